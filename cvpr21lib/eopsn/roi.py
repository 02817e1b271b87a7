"""What a region of interest looks like: the values of one pyramid level under a box, at a fixed size."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4
"""A box of 224 pixels belongs to p4 (FPN, eq. 1)."""


def pool(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Sequence[Tensor],
    images: Sequence[int],
    size: int,
    sampling_ratio: int,
) -> Tensor:
    """RoIAlign of groups of boxes (n_i, 4), each in one of the `images`: (Σ n_i, C, size, size), in order.

    `maps` (N, C, H/s, W/s) and their `strides` s ascend. Pixel centres are at half integers ("aligned").
    `sampling_ratio` 0 takes as many samples as a box has values under it.
    """
    flat = torch.cat(list(boxes))
    image = torch.cat([flat.new_full((len(own), 1), i) for i, own in zip(images, boxes, strict=True)])
    rois = torch.cat([image, flat], 1)
    level = levels(flat, strides)
    pooled = maps[0].new_zeros(len(flat), maps[0].shape[1], size, size)
    for i, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        chosen = (level == i).nonzero().flatten()
        if len(chosen):
            values = roi_align(
                features, rois[chosen].to(features), size, 1 / stride, sampling_ratio, aligned=True
            )
            pooled = pooled.index_copy(0, chosen, values)
    return pooled


def levels(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """The index of each box's level, (n,) int64: it belongs to p_k with k = ⌊4 + log2(√area / 224)⌋.

    p_k has stride 2^k. A level that is not there is replaced by the nearest.
    """
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    smallest = int(strides[0]).bit_length() - 1
    level = (CANONICAL_LEVEL + (area.sqrt() / CANONICAL_SIZE + sys.float_info.epsilon).log2()).floor()
    return level.clamp(smallest, smallest + len(strides) - 1).long() - smallest
