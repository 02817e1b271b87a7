"""Masks of objects: as targets inside a box, and from the network's 28×28 back into the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

from cvpr21lib.errors import InputError


class Masks(Protocol):
    """The masks of an image's annotated objects."""

    def __len__(self) -> int: ...

    def inside(self, boxes: Tensor, objects: Tensor, size: int) -> Tensor:
        """What each box (n, 4) holds of its object, an index (n,), as (n, size, size) of 0 and 1."""
        ...

    def to(self, device: torch.device) -> Masks: ...


class Bitmaps:
    """Masks as (n, H, W) bool."""

    def __init__(self, pixels: Tensor) -> None:
        if pixels.ndim != 3 or pixels.dtype != torch.bool:
            raise InputError(
                f"masks are {pixels.dtype} of shape {tuple(pixels.shape)}; expected torch.bool of shape "
                "(n, H, W)."
            )
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def inside(self, boxes: Tensor, objects: Tensor, size: int) -> Tensor:
        if not len(boxes):
            return boxes.new_zeros(0, size, size)
        used, index = objects.unique(return_inverse=True)
        rois = torch.cat([index[:, None].to(boxes), boxes], 1)
        values = roi_align(self.pixels[used][:, None].to(boxes), rois, size, 1.0, 0, aligned=True)
        return (values[:, 0] >= 0.5).to(boxes)

    def to(self, device: torch.device) -> Bitmaps:
        return Bitmaps(self.pixels.to(device))


class Polygons:
    """Masks as polygons: for each object a list of rings x, y, x, y, ... in pixels, as COCO has them."""

    def __init__(self, rings: Sequence[Sequence[np.ndarray]]) -> None:
        self.rings = [[np.asarray(ring, np.float64).reshape(-1) for ring in each] for each in rings]
        for number, each in enumerate(self.rings):
            for ring in each:
                if len(ring) < 6 or len(ring) % 2 or not np.isfinite(ring).all():
                    raise InputError(
                        f"a polygon of object {number} has {len(ring)} numbers; expected x, y, x, y, ... of "
                        "three points or more, all finite."
                    )

    def __len__(self) -> int:
        return len(self.rings)

    def inside(self, boxes: Tensor, objects: Tensor, size: int) -> Tensor:
        """Rasterised at the size of the result, not of the image, by COCO's own rules."""
        made = [
            self._inside(one, index, size)
            for one, index in zip(boxes.double().tolist(), objects.tolist(), strict=True)
        ]
        stack = np.stack(made) if made else np.zeros((0, size, size), np.uint8)
        return torch.from_numpy(stack).to(boxes)

    def to(self, device: torch.device) -> Polygons:
        return self  # rasterised on the CPU, wherever the boxes are

    def _inside(self, box: Sequence[float], index: int, size: int) -> np.ndarray:
        x1, y1, x2, y2 = box
        corner = np.array([x1, y1])
        scale = size / np.maximum([x2 - x1, y2 - y1], 0.1)  # a box without area has no scale
        scaled = [((ring.reshape(-1, 2) - corner) * scale).ravel() for ring in self.rings[index]]
        if not scaled:
            return np.zeros((size, size), np.uint8)
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(scaled, size, size)))


class Patch(NamedTuple):
    """The part of a mask around its box; outside of it the mask is empty."""

    top: int
    left: int
    pixels: Tensor  # (h, w) bool


def paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> list[Patch]:
    """The masks (n, m, m), in [0, 1], of `boxes` (n, 4), as pixels of an image of `size` (height, width).

    A pixel gets the bilinear value at its centre, where beyond the m×m values there are zeros, and belongs to
    the mask from `threshold` on. As rows and columns can be interpolated one after the other, each mask costs
    two products of small matrices.
    """
    height, width = size
    x1, y1 = (boxes[:, :2].floor() - 1).long().T
    x2, y2 = (boxes[:, 2:].ceil() + 1).long().T
    corners = torch.stack(
        [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], 1
    )
    patches = []
    for mask, box, (left, top, right, bottom) in zip(probabilities, boxes, corners.tolist(), strict=True):
        rows = _interpolation(top, bottom, box[1], box[3], mask.shape[0])
        columns = _interpolation(left, right, box[0], box[2], mask.shape[1])
        patches.append(Patch(top, left, rows @ mask @ columns.T >= threshold))
    return patches


def full(patches: Sequence[Patch], size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """The patches as masks of the whole image, (n, H, W) bool."""
    masks = torch.zeros(len(patches), *size, dtype=torch.bool, device=device)
    for mask, (top, left, pixels) in zip(masks, patches, strict=True):
        mask[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return masks


def _interpolation(start: int, stop: int, low: Tensor, high: Tensor, count: int) -> Tensor:
    """The weights of `count` values, spread evenly from `low` to `high`, at the centres of the pixels from
    `start` to `stop`: (stop − start, count)."""
    centres = torch.arange(start, max(start, stop), dtype=low.dtype, device=low.device) + 0.5
    position = (centres - low) / (high - low) * count - 0.5  # 0 is the centre of the first value
    values = torch.arange(count, dtype=low.dtype, device=low.device)
    return (1 - (position[:, None] - values).abs()).clamp(min=0)
