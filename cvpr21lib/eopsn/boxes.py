"""Boxes (n, 4) as x1, y1, x2, y2 in pixels: anchors, and what leads from one box to another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MOST_GROWTH = math.log(1000 / 16)
"""The largest logarithm of a ratio of sizes that is believed (Faster R-CNN's official code)."""

RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""By how much the differences in x, y, width and height are scaled for the RPN and for the box head."""

Weights = tuple[float, float, float, float]


def anchors(height: int, width: int, stride: int, cells: Tensor) -> Tensor:
    """The boxes of `cells` (a, 4) around each point of a map, (height · width · a, 4), row by row.

    Point (0, 0) of the map stands for the image's corner (0, 0), not for the middle of the first `stride`
    pixels (detectron2, offset 0).
    """
    y, x = torch.meshgrid(
        torch.arange(0, height * stride, stride, dtype=cells.dtype, device=cells.device),
        torch.arange(0, width * stride, stride, dtype=cells.dtype, device=cells.device),
        indexing="ij",
    )
    shifts = torch.stack([x, y, x, y], 2).reshape(-1, 1, 4)
    return (shifts + cells).reshape(-1, 4)


def cells(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Boxes around (0, 0), (sizes · ratios, 4): every size (√area) in every ratio height / width."""
    shapes = [
        (math.sqrt(size**2 / ratio), ratio * math.sqrt(size**2 / ratio)) for size in sizes for ratio in ratios
    ]
    return torch.tensor([(-w / 2, -h / 2, w / 2, h / 2) for w, h in shapes])


def encode(boxes: Tensor, targets: Tensor, weights: Weights) -> Tensor:
    """What leads from `boxes` to `targets`, (n, 4): shifts as parts of the size, logarithms of the growth."""
    size, centre = _size_and_centre(boxes)
    target_size, target_centre = _size_and_centre(targets)
    deltas = torch.cat([(target_centre - centre) / size, (target_size / size).log()], 1)
    return deltas * deltas.new_tensor(weights)


def decode(boxes: Tensor, deltas: Tensor, weights: Weights) -> Tensor:
    """The boxes to which `deltas` lead from `boxes`; a side grows at most 62.5 times."""
    deltas = deltas / deltas.new_tensor(weights)
    size, centre = _size_and_centre(boxes)
    centre = centre + deltas[:, :2] * size
    half = size * deltas[:, 2:].clamp(max=MOST_GROWTH).exp() / 2
    return torch.cat([centre - half, centre + half], 1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The part inside an image of `size` (height, width)."""
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor((width, height, width, height)))


def has_area(boxes: Tensor) -> Tensor:
    """Which boxes are finite and longer than 0 in both directions, (n,) bool."""
    return boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)


def _size_and_centre(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[:, 2:] - boxes[:, :2]
    return size, boxes[:, :2] + size / 2
