"""k-means by cosine, with which EOPSN looks for recurring objects among the void proposals (section 3).

A point belongs to the centre of the smallest cosine; its length does not matter there, so the assignment is
one product of matrices. A centre is the plain mean of its members, whose lengths do matter.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.errors import InputError

#: Points a product of matrices; their scores (CHUNK, K) are all that is kept beside the points.
CHUNK = 4096


class Clusters(NamedTuple):
    """K clusters of N points."""

    assignment: Tensor  # (N,) int64: the cluster of each point
    centres: Tensor  # (K, D)
    sizes: Tensor  # (K,) int64: members of each cluster; 0 for an empty one
    distance: Tensor  # (K,) in [0, 2]: mean of 1 - cos between members and centre; 0 for an empty one
    iterations: int


@torch.no_grad()
def cosine_kmeans(
    features: Tensor,
    clusters: int,
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
    iterations: int = 150,
) -> Clusters:
    """Cluster features (N, D).

    Stops after `iterations`, or once the squared sum of the distances that the centres moved is below
    `tolerance`. An empty cluster keeps its centre. Fewer points than clusters make as many clusters as there
    are points. A point of length 0 has cosine 0 with everything.

    Args:
        clusters: K, the number of clusters.
        generator: of the CPU, for any device; draws the points at which the centres start.
        start: (K,) the indices of these points, instead.

    Raises:
        InputError: features that are not finite.
    """
    if features.ndim != 2 or clusters < 1:
        raise InputError(
            f"the features have shape {tuple(features.shape)}, to make {clusters} clusters of; expected "
            "(N, D) and at least one cluster."
        )
    require_finite(features, "the features to cluster")
    points = features if features.dtype == torch.float64 else features.float()
    if start is None:
        start = torch.randperm(len(points), generator=generator)[:clusters]
    centres = points[start.to(points.device)].clone()
    assignment, done = points.new_zeros(len(points), dtype=torch.long), 0
    with torch.autocast(points.device.type, enabled=False):
        while done < iterations and len(points):
            assignment = torch.cat([_nearest(chunk, centres) for chunk in points.split(CHUNK)])
            before, centres, done = centres, _means(points, assignment, centres), done + 1
            if (centres - before).norm(dim=1).sum() ** 2 < tolerance:
                break
        sizes = assignment.bincount(minlength=len(centres))
        distance = _distance(points, assignment, centres, sizes)
    return Clusters(assignment, centres, sizes, distance, done)


def means_by_cluster(values: Tensor, assignment: Tensor, sizes: Tensor) -> Tensor:
    """The mean of the values (N,) of each cluster's members, (K,); 0 for an empty cluster."""
    return _sums(values[:, None], assignment, len(sizes))[:, 0] / sizes.clamp(min=1)


def require_finite(features: Tensor, what: str) -> None:
    """Raises InputError at the first row that holds NaN or infinity."""
    if features.sum(1).isfinite().all():  # one pass; the exact answer takes several
        return
    bad = (~features.isfinite()).any(1)
    if bad.any():
        raise InputError(
            f"{what} hold NaN or infinity in {int(bad.sum())} of {len(bad)} rows, first in row "
            f"{int(bad.int().argmax())}; expected finite numbers: lower the learning rate, or use 32-true "
            "precision."
        )


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return (points @ F.normalize(centres, dim=1).T).argmax(1)


def _means(points: Tensor, assignment: Tensor, centres: Tensor) -> Tensor:
    sizes = assignment.bincount(minlength=len(centres))[:, None]
    return torch.where(sizes > 0, _sums(points, assignment, len(centres)) / sizes.clamp(min=1), centres)


def _distance(points: Tensor, assignment: Tensor, centres: Tensor, sizes: Tensor) -> Tensor:
    """The mean of 1 - cos of each cluster, (K,): the cosines of its members are summed as unit vectors."""
    chunks = zip(points.split(CHUNK), assignment.split(CHUNK), strict=True)
    sums = sum(_sums(F.normalize(rows, dim=1), member, len(centres)) for rows, member in chunks)
    cosine = (sums * F.normalize(centres, dim=1)).sum(1) / sizes.clamp(min=1)
    return torch.where(sizes > 0, (1 - cosine).clamp(min=0), 0)


def _sums(values: Tensor, assignment: Tensor, clusters: int) -> Tensor:
    """The sum over each cluster's rows (K, D), the same from run to run."""
    if values.device.type != "cpu":
        return _sums_by_product(values, assignment, clusters)
    return values.new_zeros(clusters, values.shape[1]).index_add_(0, assignment, values)


def _sums_by_product(values: Tensor, assignment: Tensor, clusters: int) -> Tensor:
    """The same where index_add adds in an order that changes from run to run, as on a GPU."""
    sums = values.new_zeros(clusters, values.shape[1])
    for rows, member in zip(values.split(CHUNK), assignment.split(CHUNK), strict=True):
        sums += F.one_hot(member, clusters).to(rows.dtype).T @ rows
    return sums
