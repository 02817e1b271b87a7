"""The demo: treatments of void, from the same trained start, on scenes where we know what is in the void.

Trunk, RPN, mask and semantic head stay as they are, so every arm has the same proposals and masks; only the
box head is trained. What differs between the arms is what becomes of proposals that lie on void. (This is a
simplification: the paper trains the whole network.)
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal, get_args

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import Dataset

from cvpr21lib import runs
from cvpr21lib.eopsn import (
    clustering,
    detections,
    exemplars,
    judge,
    kmeans,
    memory,
    merge,
    mining,
    pseudo_truth,
    quality,
    search,
    small,
    start,
)
from cvpr21lib.eopsn.clustering import Calibrated, Quantiles, Selection
from cvpr21lib.eopsn.config import Config
from cvpr21lib.eopsn.judge import SIZE, Seen
from cvpr21lib.eopsn.memory import Memory, VoidProposals
from cvpr21lib.eopsn.model import PanopticFPN, Void
from cvpr21lib.eopsn.pseudo_truth import absolute
from cvpr21lib.eopsn.search import Search
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.runs import Loss, Phase, Step
from cvpr21lib.scenes import unknown_objects
from cvpr21lib.segmentation import panoptic_quality
from cvpr21lib.segmentation.panoptic import Panoptic

Method = Literal["suppression", "train", "eopsn"]
TRAIN, TEST = 150, 100
"""Scenes of a world to train on, and others to judge on."""


@dataclass(frozen=True)
class Settings:
    """All that makes a run of the demo."""

    method: Method = "eopsn"
    mining: bool = True
    """Proposals like an exemplar become pseudo ground truth, too."""
    selection: Selection = field(default_factory=Selection)
    quantiles: Quantiles = field(default_factory=Quantiles)
    remembered: int = memory.SAMPLE
    """Void proposals of a batch that are remembered until the next clustering."""
    interval: int = 13
    """Steps between two clusterings: about a round over the scenes."""
    min_area: float = 64.0
    """Smaller void proposals are passed over, pixels²."""
    clutter: tuple[int, int] = (1, 2)
    """The least and the most of it in a scene."""
    objectness: float = 0.5
    """Without discovered classes: an unknown object's objectness is above."""
    unknown_score: float = 0.1
    """An unknown object's score is at least this, to be in the panoptic map."""
    stuff_area: int = 64
    """Smaller stuff is left out of the panoptic map, pixels."""
    steps: int = 150
    batch_size: int = 12
    lr: float = 1e-3
    """The highest of a one-cycle schedule."""
    weight_decay: float = 1e-3
    clip: float = 5.0
    """Longest gradient."""
    workers: int = 0


TUNED: dict[Method, dict[str, Any]] = {
    "suppression": {"lr": 1e-3, "objectness": 0.5},
    "train": {"lr": 2e-3, "objectness": 0.3},
    "eopsn": {"lr": 1e-3, "unknown_score": 0.4},
}
"""What gave the best strict PQ of unknown things on the worlds 100, 102 and 105, for each method of its own.

Tried were three learning rates (0.5, 1 and 2 thousandths), and for each about eight thresholds of what counts
as unknown."""


@dataclass(frozen=True)
class Knobs:
    """What an arm turns; None leaves the method's own value."""

    method: Method = "eopsn"
    mining: bool = True
    """Exemplars' look-alikes join them."""
    density: bool = True
    """Only dense clusters become classes."""
    objectness: bool = True
    """Only clusters and members that look like objects do."""
    pairs: bool = True
    """Only pairs of members from different images become exemplars."""
    clutter: tuple[int, int] | None = None
    """The least and the most of it in a scene (1, 2)."""
    density_rank: float | None = None
    """Share of the clusters that count as dense."""


ARMS = {
    "suppression": Knobs(method="suppression"),
    "void-train": Knobs(method="train"),
    "eopsn": Knobs(),
    "eopsn-no-mining": Knobs(mining=False),
    "eopsn-no-density": Knobs(density=False),
    "eopsn-no-objectness": Knobs(objectness=False),
    "eopsn-no-pairs": Knobs(pairs=False),
    "k-means": Knobs(mining=False, density=False, objectness=False, pairs=False),
}
"""The demo's arms. k-means alone makes a class of every cluster, and exemplars of all its members."""
LIVE = ("suppression", "void-train", "eopsn", "k-means")
"""The arms that the chapter trains before the reader's eyes."""


def recipe(options: Options, knobs: Knobs | None = None) -> Demo:
    """The run that these options and knobs describe.

    Raises:
        InputError: a method that there is not, or more than one device.
    """
    knobs = knobs or Knobs()
    if knobs.method not in get_args(Method):
        raise InputError(f"method is {knobs.method!r}; it can be {', '.join(get_args(Method))}")
    if options.devices * options.num_nodes > 1:
        raise InputError(
            f"the demo of EOPSN was given {options.devices * options.num_nodes} devices; it runs on one"
        )
    selection = Selection(knobs.density, knobs.objectness, knobs.objectness, knobs.pairs)
    chosen = replace(
        Settings(**({"method": knobs.method, "selection": selection} | TUNED[knobs.method])),
        mining=knobs.mining,
    )
    if knobs.clutter is not None:
        chosen = replace(chosen, clutter=knobs.clutter)
    if knobs.density_rank is not None:
        chosen = replace(chosen, quantiles=replace(chosen.quantiles, density=knobs.density_rank))
    return Demo(chosen, options.seed)


@dataclass(frozen=True)
class Demo(runs.ChosenRecipe):
    """Train a box head, and judge whole panoptic maps of other scenes."""

    chosen: Settings
    seed: int = 0
    """Of the world; with it comes the trained start."""

    paper = "eopsn"
    sources = (
        *start.NETWORK, unknown_objects, search, clustering, kmeans, exemplars, memory, mining, pseudo_truth,
        detections, merge, judge, quality, panoptic_quality, sys.modules[__name__],
    )  # fmt: skip

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.chosen.method}-scenes"

    def settings(self) -> Mapping[str, Any]:
        return {"profile": "demo", **asdict(self.chosen)}

    @property
    def config(self) -> Config:
        """That of the small network, with this method's logits."""
        c = self.chosen
        unknown = c.quantiles.clusters if c.method == "eopsn" else 0
        mode: Any = "train" if c.method == "train" else "suppression"
        return replace(small.CONFIG, void_mode=mode, unknown=unknown, objectness_threshold=c.objectness)

    def networks(self) -> dict[str, nn.Module]:
        net = reshaped(small.load_base(self.seed), self.config)
        net.requires_grad_(False).box_head.requires_grad_(True)
        c = self.chosen
        return {
            "net": net,
            "search": Search(range(TRAIN), Calibrated(c.quantiles), Memory(c.remembered, c.min_area)),
        }

    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        c, net = self.chosen, networks["net"]
        assert isinstance(net, PanopticFPN)
        optimizer = AdamW(net.box_head.parameters(), c.lr, weight_decay=c.weight_decay)
        return {"net": start.clipped(optimizer, c.clip)}

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        return {name: OneCycleLR(each, self.chosen.lr, self.steps) for name, each in optimizers.items()}

    def data(self) -> Dataset[Any]:
        return Places(TRAIN)

    @cached_property
    def training(self) -> Seen:
        return judge.seen(self.seed, TRAIN, "train", self.chosen.clutter)

    @cached_property
    def test(self) -> Seen:
        return judge.seen(self.seed, TEST, "test", self.chosen.clutter)

    def phases(self) -> Sequence[Phase]:
        return [Phase("net", self._loss)]

    def _loss(self, step: Step) -> Loss:
        """The losses of the box head. With EOPSN, what they saw of void is mined, remembered, clustered."""
        net: Any = getattr(step.networks["net"], "module", step.networks["net"])
        places: list[int] = step.batch["place"].tolist()
        if self.chosen.method != "eopsn":
            return Loss(self._box_losses(net, places)[0])
        found: Any = step.networks["search"]
        net.class_weight.copy_(found.table.class_weight(self.config.known, self.config.unknown))
        appended = found.table.another_image(places)
        losses, suppressed = self._box_losses(
            net, [*places, *([] if appended is None else [appended])], found
        )
        void = [_as_proposals(place, each) for place, each in zip(places, suppressed, strict=False)]
        mined = [torch.full((len(each.boxes),), -1) for each in void]
        if appended is not None and self.chosen.mining:
            mined = self._mine(net, found, appended, void)
        found.memory.collect(void, mined)
        if (step.number + 1) % self.chosen.interval == 0:
            found.cluster(step.number + 1, self.chosen.selection)
        watched = {"classes": found.table.classes, "pseudo_boxes": len(found.table)}
        return Loss(losses, {name: torch.tensor(float(value)) for name, value in watched.items()})

    def _box_losses(
        self, net: PanopticFPN, places: list[int], found: Search | None = None
    ) -> tuple[dict[str, Tensor], list[Void]]:
        there = self.training
        proposals, truths = [there.proposals[i] for i in places], [there.truths[i] for i in places]
        pseudo = None if found is None else [found.pseudo(i, SIZE, False, self.config) for i in places]
        sampled = net.sample(proposals, [SIZE] * len(places), truths, pseudo)
        return net.box_losses({"p2": there.maps[places]}, sampled)

    def _mine(
        self, net: PanopticFPN, found: Search, appended: int, void: list[VoidProposals]
    ) -> list[Tensor]:
        rows = found.table.of(appended)
        with torch.no_grad():
            seen = net.box_output({"p2": self.training.maps[[appended]]}, [absolute(rows.box, SIZE)])
        new, mined = mining.mine(
            seen.features, rows.label, void, found.rules, len(found.table), self.chosen.min_area
        )
        found.table.add(new)
        return mined

    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """The numbers of `judge.scores`; `judge.ceiling`; with EOPSN those of `judge.purity`."""
        net, found = networks["net"], networks["search"]
        assert isinstance(net, PanopticFPN)
        assert isinstance(found, Search)
        numbers = {"ceiling": 100 * judge.ceiling(self.test)}
        numbers |= judge.scores(self.test.scenes, self.maps(net, self.test))
        if self.chosen.method == "eopsn":
            numbers |= judge.purity(self.training.scenes, found.table.rows)
        return numbers

    def maps(self, net: PanopticFPN, there: Seen) -> list[Panoptic]:
        """The panoptic maps that a network of this run makes of scenes."""
        rule = merge.Rule(unknown_score=self.chosen.unknown_score, stuff_area=self.chosen.stuff_area)
        return judge.panoptic_maps(net, there, rule)


class Places(start.Places):
    """The numbers of the training scenes, and the fingerprint of what is behind them."""

    def fingerprint(self) -> str:
        """That of world 0 and of the trained starts, whatever the seed: a record, which has many worlds, is
        held against this one."""
        return _fingerprint(self.count)


def reshaped(base: PanopticFPN, config: Config) -> PanopticFPN:
    """The start with the logits of another configuration: those of its own classes, and zero for new ones."""
    net, state = small.network(config), base.state_dict()
    for name in ("box_head.cls_score.weight", "box_head.cls_score.bias"):
        old = state[name]
        new = old.new_zeros(config.logits, *old.shape[1:])
        new[: config.known], new[config.background] = old[: config.known], old[base.config.background]
        state[name] = new
    net.load_state_dict(state | {"class_weight": net.class_weight})
    return net.eval()


def _as_proposals(place: int, void: Void) -> VoidProposals:
    """What one image's losses saw of void, as mining and memory take it."""
    return VoidProposals(place, *void, SIZE, flipped=False)


@cache
def _fingerprint(count: int) -> str:
    """Over segments and each picture's mean and spread to a whole grey value, as computed pixels differ in
    their last bits from processor to processor; and over the files of the trained starts."""
    digest = hashlib.sha256()
    for part, number in (("train", count), ("test", TEST)):
        for scene in unknown_objects.scenes(0, number, part):  # type: ignore[arg-type]
            picture = scene.image
            listed = (picture.shape, round(picture.mean()), round(picture.std()))
            digest.update(f"{scene.segments} {listed}\n".encode())
    for base in range(small.BASES):
        digest.update(small.base_file(base).read_bytes())
    return digest.hexdigest()
