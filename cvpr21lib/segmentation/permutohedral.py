"""Gaussian filtering in many dimensions: the permutohedral lattice (Adams, Baek, Davis; Eurographics 2010).

The value at point i is to become the sum over all points j of exp(-|f_i - f_j|² / 2) times the value at j.
All pairs would take minutes for a photograph. So the points hand their values to the vertices of a lattice
(splat), there they are blurred along its axes, and the points read them back (slice). In d dimensions the
lattice has d + 1 axes, and its cells are simplices: a point has d + 1 vertices, not 2^d as in a grid. Only
the vertices of cells with a point in them exist.

Splat and slice are one sparse matrix and its transpose, the blur along each axis is another.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.sparse import csr_array

from cvpr21lib.errors import InputError


class Lattice:
    """The lattice of points with features (N, d) float32, in units of the Gaussian's standard deviation."""

    def __init__(self, features: np.ndarray) -> None:
        points, vertices_each = len(features), features.shape[1] + 1
        position = _elevated(features)
        origin, rank = _simplices(position)
        weights = _barycentric(position, origin, rank)
        example, simplex = _distinct(origin, rank)
        keys, steps = _keys(origin[:, example], rank[:, example])
        ordered = np.sort(keys, axis=None)  # np.unique hashes, which is slow where few points share a vertex
        vertices = ordered[np.diff(ordered, prepend=ordered[0] - 1) > 0]
        index = np.searchsorted(vertices, keys).astype(np.int32)[:, simplex]
        rows = np.arange(0, points * vertices_each + 1, vertices_each, dtype=np.int32)
        self.splat = csr_array((weights.T.ravel(), index.T.ravel(), rows), (points, len(vertices)))
        self.blurs = [_blur(vertices, step) for step in steps]

    def filter(self, values: np.ndarray) -> np.ndarray:
        """The Gaussian sums of values (N, C) float32, times a constant that is the lattice's."""
        on_vertices = self.splat.T @ values
        for blur in self.blurs:
            on_vertices = blur @ on_vertices
        return self.splat @ on_vertices

    def scale(self, factors: np.ndarray) -> None:
        """From now on multiply what goes in by `factors` (N,), float32, and likewise what comes out."""
        self.splat.data *= np.repeat(factors, self.splat.indptr[1])


def _elevated(features: np.ndarray) -> np.ndarray:
    """The points in the plane Σ = 0 of d + 1 dimensions (section 3.1), float32 (d + 1, N).

    Scaled so that splat, blur and slice together have the Gaussian's variance. Operations have the order and
    precision of Krähenbühl's code, for the same results to the last bits: rounding decides which of two cells
    has a point on their border, and with it, which vertices exist.
    """
    points, d = features.shape
    scale = 1 / np.sqrt(np.arange(1.0, d + 1) * np.arange(2.0, d + 2)) * np.float32(np.sqrt(2 / 3) * (d + 1))
    scaled = np.multiply(features.T, scale.astype(np.float32)[:, None], order="C")
    position = np.empty((d + 1, points), np.float32)
    total = np.zeros(points, np.float32)
    for i in range(d, 0, -1):
        position[i] = total - i * scaled[i - 1]
        total += scaled[i - 1]
    position[0] = total
    return position


def _simplices(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each point's simplex: its vertex 0, in units of d + 1, and the ranks of coordinates; int32 (d + 1, N).

    All coordinates of vertex 0 are multiples of d + 1. The coordinate of rank 0 is the one in which the point
    is farthest above it.
    """
    size = len(position)
    origin = np.rint(position * np.float32(1 / size)).astype(np.int32)  # nearest; Σ = 0 may not hold yet
    above = position - size * origin.astype(np.float32)
    rank = np.broadcast_to(origin.sum(0, dtype=np.int32), position.shape).copy()
    for i, j in combinations(range(size), 2):
        less = above[i] < above[j]
        rank[i] += less
        rank[j] += ~less
    wrap = (rank < 0).astype(np.int32) - (rank >= size)
    return origin + wrap, rank + size * wrap


def _barycentric(position: np.ndarray, origin: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """How much of a point each of its vertices gets, (d + 1, N): at least 0, and 1 in all."""
    size = len(position)
    distance = (position - size * origin.astype(np.float32)) * np.float32(1 / size)
    above = np.empty_like(position)
    np.put_along_axis(above, rank, distance, 0)
    return np.concatenate([1 + above[-1:] - above[:1], (above[:-1] - above[1:])[::-1]])


def _distinct(origin: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One point of each simplex that occurs, (S,), and each point's simplex, (N,)."""
    numbers, _ = _numbered(np.concatenate([origin[1:], rank[1:]]))
    return np.unique(numbers, return_index=True, return_inverse=True)[1:]


def _keys(origin: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One integer for each vertex of each simplex, (d + 1, S), and what a step along an axis adds, (d + 1,).

    A step along an axis adds 1 to all coordinates and takes d + 1 from the axis's own. Vertex k + 1 of a
    simplex is one step from vertex k, along the axis of rank d - k.
    """
    size = len(origin)
    keys = np.empty(origin.shape, np.int64)
    keys[0], place = _numbered(size * origin[1:], margin=2 * size)
    steps = place.sum() - size * np.concatenate([[0], place])
    by_rank = np.empty(origin.shape, np.int64)
    np.put_along_axis(by_rank, rank, np.broadcast_to(steps[:, None], rank.shape), 0)
    for k in range(size - 1):
        keys[k + 1] = keys[k] + by_rank[size - 1 - k]
    return keys, steps


def _numbered(digits: np.ndarray, margin: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One integer for each column of (K, N) digits, and by how much it grows with each digit, (K,).

    Columns that differ have different integers, also after digits have moved by up to `margin`. A point's
    first coordinate is never among the digits: it follows from the others.
    """
    lowest = digits.min(1) - margin
    span = digits.max(1) + margin + 1 - lowest.astype(np.int64)
    if np.prod(span, dtype=float) >= 2**62:
        raise InputError(
            f"the features spread over {span.max()} steps of the lattice in {len(digits)} dimensions, "
            "too many to be numbered; take larger standard deviations"
        )
    place = np.cumprod([1, *span[:-1]])
    return sum((row - low) * step for row, low, step in zip(digits, lowest, place, strict=True)), place


def _blur(vertices: np.ndarray, step: int) -> csr_array:
    """Adds to each vertex half of its two neighbours along an axis, where these exist; `vertices` ascend."""
    index = np.searchsorted(vertices, vertices + step)
    index[index == len(vertices)] = 0
    here = np.flatnonzero(vertices[index] == vertices + step)
    there, every = index[here], np.arange(len(vertices))
    weights = np.repeat(np.array([1, 0.5, 0.5], np.float32), [len(every), len(here), len(here)])
    rows, columns = np.concatenate([every, here, there]), np.concatenate([every, there, here])
    return csr_array((weights, (rows, columns)), (len(every), len(every)))
