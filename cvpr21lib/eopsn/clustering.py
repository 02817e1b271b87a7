"""From remembered void proposals to new unknown classes and their exemplars (section 3).

k-means splits the memory; clusters that are dense and object-like become classes, and the closest pairs of
their members across images become exemplars. Two sets of rules say how dense, how object-like and how close:
`Schedule`, the paper's, and `Calibrated`, for data on which the paper's constants mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.eopsn.exemplars import coupled
from cvpr21lib.eopsn.kmeans import Clusters, cosine_kmeans, means_by_cluster, require_finite
from cvpr21lib.eopsn.memory import Remembered
from cvpr21lib.eopsn.pseudo_truth import Rows, no_rows


@dataclass(frozen=True)
class Selection:
    """Which rules of selection act; each can be left out to see what it does."""

    density: bool = True  # clusters must be dense
    objectness: bool = True  # clusters must look like objects
    members: bool = True  # so must each member
    pairs: bool = True  # members must pair across images; otherwise all of a cluster are exemplars


def discover(
    memory: Remembered | None,
    rules: Rules,
    *,
    classes: int = 0,
    pseudo_boxes: int = 0,
    selection: Selection = Selection(),
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
) -> Discovery | None:
    """Cluster the memory; None without a free class, or with a memory of fewer than two images.

    Args:
        classes: u, unknown classes found before; new ones are numbered from there.
        pseudo_boxes: n_pgt, boxes in the pseudo ground truth when it was last merged.
        generator, start: as of `kmeans.cosine_kmeans`.

    Raises:
        InputError: features that are not finite.
    """
    free = rules.clusters - classes
    if memory is None or free <= 0 or len(memory.image.unique()) < 2:
        return None
    require_finite(memory.features, "the features in the memory")
    rules.calibrate(memory)
    features = rules.centred(memory.features)
    clusters = cosine_kmeans(features, rules.clusters, generator, start)
    bar = rules.thresholds(memory, clusters, classes, pseudo_boxes)

    objectness = means_by_cluster(memory.objectness, clusters.assignment, clusters.sizes)
    passed = clusters.sizes > 0
    if selection.density:
        passed &= clusters.distance < bar.density
    if selection.objectness:
        passed &= objectness > bar.cluster_objectness
    selected = passed.nonzero()[:, 0].flip(0)  # the last cluster gets the first label (official code)

    members: list[Tensor] = []
    labels: list[Tensor] = []
    for cluster in selected.tolist():
        inside = clusters.assignment == cluster
        if selection.members:
            inside &= memory.objectness >= bar.member_objectness
        chosen = inside.nonzero()[:, 0]
        if selection.pairs:
            chosen = chosen[coupled(features[chosen], memory.image[chosen], bar.pair_distance)]
        if len(chosen) and len(members) < free:
            labels.append(torch.full_like(chosen, classes + len(members)))
            members.append(chosen)
    if not members:
        return Discovery(no_rows(), selected[:0], clusters, selected, bar)
    exemplars = torch.cat(members)
    rows = Rows(memory.image[exemplars], torch.cat(labels), memory.box[exemplars])
    return Discovery(rows, exemplars, clusters, selected, bar)


class Discovery(NamedTuple):
    """What one clustering found."""

    rows: Rows  # the exemplars, for the pseudo ground truth, class after class
    exemplars: Tensor  # (e,) int64: the same as indices of the memory
    clusters: Clusters
    selected: Tensor  # int64: clusters that passed, the highest first; some may give no exemplar
    thresholds: Thresholds


class Thresholds(NamedTuple):
    """What clusters, members and pairs have to meet."""

    density: float  # a cluster's mean cosine distance must be below
    cluster_objectness: float  # and its mean objectness above
    member_objectness: float  # a member's objectness must be at least this
    pair_distance: float  # the cosine distance of a pair at most this


class Rules(Protocol):
    """What clustering and mining ask; `state_dict` keeps what a set of rules has learnt from the memory."""

    @property
    def clusters(self) -> int:
        """M, clusters made and at most as many classes found."""

    def calibrate(self, memory: Remembered) -> None:
        """See a memory that is about to be clustered."""

    def centred(self, features: Tensor) -> Tensor:
        """Features (n, D) as they are to be compared, in clustering and in mining."""

    def thresholds(
        self, memory: Remembered, clusters: Clusters, classes: int, pseudo_boxes: int
    ) -> Thresholds: ...

    def mining_distance(self, pseudo_boxes: int) -> float:
        """Cosine distance below which a proposal is mined."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Schedule:
    """The paper's rules, which grow stricter as classes (u) and boxes (n_pgt) are found. Official code."""

    known: int = 64  # C: 64 of COCO's things at K = 20 %, 72 at 10 %, 76 at 5 %
    clusters: int = 128  # M
    density_rank: int = 13  # denser than the cluster of this rank: about the densest tenth of 128
    cluster_objectness: float = 0.90  # grows by the factor 1 + u / (C + 1 + M)
    member_objectness: float = 0.95  # or the highest in the memory; grows by 0.01 every 100 boxes
    member_growth: float = 0.01 / 100
    highest_objectness: float = 0.99  # neither grows above
    pair_distance: float = 0.15  # shrinks by the factor 1 - u / (C + 1 + M)
    mine_distance: float = 0.15  # shrinks by 0.01 every 200 boxes
    mine_decay: float = 0.01 / 200
    smallest_distance: float = 0.01  # neither shrinks below
    official: bool = False  # empty clusters count as the densest ones and use up ranks

    def calibrate(self, memory: Remembered) -> None:
        pass

    def centred(self, features: Tensor) -> Tensor:
        return features

    def thresholds(
        self, memory: Remembered, clusters: Clusters, classes: int, pseudo_boxes: int
    ) -> Thresholds:
        distances = clusters.distance if self.official else clusters.distance[clusters.sizes > 0]
        sparse = distances.sort().values[self.density_rank - 1 :]
        found = classes / (self.known + 1 + self.clusters)
        member = min(self.member_objectness, float(memory.objectness.max()))
        return Thresholds(
            density=float(sparse[0]) if len(sparse) else inf,
            cluster_objectness=min(self.cluster_objectness * (1 + found), self.highest_objectness),
            member_objectness=min(member + self.member_growth * pseudo_boxes, self.highest_objectness),
            pair_distance=max(self.pair_distance * (1 - found), self.smallest_distance),
        )

    def mining_distance(self, pseudo_boxes: int) -> float:
        return max(self.mine_distance - self.mine_decay * pseudo_boxes, self.smallest_distance)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


@dataclass(frozen=True)
class Quantiles:
    """Where `Calibrated` puts its thresholds. Ours, chosen on development scenes of the demo."""

    clusters: int = 16  # M
    pair: float = 0.02  # share of the distances between void proposals of different images
    objectness: float = 0.25  # share of the memory
    density: float = 0.25  # share of the clusters with at least
    density_members: int = 4  # members


class Calibrated:
    """Rules that are read off the first memory that is clustered, without any label, and kept from then on.

    Features are compared after its mean was subtracted. One distance serves pairs and mining, and one
    objectness clusters and members. While no cluster has had enough members for a bound on density, none is
    dense.
    """

    def __init__(self, quantiles: Quantiles = Quantiles()) -> None:
        self.quantiles = quantiles
        self.mean: Tensor | None = None  # (D,)
        self.distance = 0.0
        self.objectness = inf
        self.density = -inf

    @property
    def clusters(self) -> int:
        return self.quantiles.clusters

    def calibrate(self, memory: Remembered) -> None:
        if self.mean is not None:
            return
        self.mean = memory.features.float().mean(0)
        unit = F.normalize(self.centred(memory.features), dim=1)
        pairs = (memory.image[:, None] != memory.image).triu(1)
        self.distance = float(np.quantile((1 - unit @ unit.T)[pairs].cpu().numpy(), self.quantiles.pair))
        self.objectness = float(np.quantile(memory.objectness.cpu().numpy(), self.quantiles.objectness))

    def centred(self, features: Tensor) -> Tensor:
        return features if self.mean is None else features.float() - self.mean.to(features.device)

    def thresholds(
        self, memory: Remembered, clusters: Clusters, classes: int, pseudo_boxes: int
    ) -> Thresholds:
        if self.density == -inf:
            distances = clusters.distance[clusters.sizes >= self.quantiles.density_members].sort().values
            if len(distances):
                self.density = float(distances[int(self.quantiles.density * len(distances))])
        return Thresholds(self.density, self.objectness, self.objectness, self.distance)

    def mining_distance(self, pseudo_boxes: int) -> float:
        return self.distance

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("mean", "distance", "objectness", "density")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("mean", "distance", "objectness", "density"):
            setattr(self, name, state[name])
