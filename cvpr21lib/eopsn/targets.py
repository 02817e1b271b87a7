"""What a box should be: the object that it overlaps most, or none; and which boxes to train on."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

IGNORED = -1
"""The label of boxes that are neither one thing nor the other."""


def match(
    boxes: Tensor, truth: Tensor, negative: float, positive: float, keep_best: bool = False
) -> tuple[Tensor, Tensor]:
    """For each box the object that overlaps it most, and whether it counts as that object, both (n,) int64.

    It does (1) with an IoU from `positive` on, does not (0) below `negative`, and is `IGNORED` in between.
    With `keep_best`, the boxes that fit an object best count as well, however badly they fit (RPN). Where
    there are no objects, nothing counts; an object that overlaps no box is not found.
    """
    if not len(truth) or not len(boxes):
        nothing = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return nothing, nothing.clone()
    iou = box_iou(truth, boxes).nan_to_num(0)  # of two boxes without area
    best, index = iou.max(0)
    matched = torch.full_like(index, IGNORED)
    matched[best < negative] = 0
    matched[best >= positive] = 1
    if keep_best:
        for_object = iou.amax(1, keepdim=True)
        matched[((iou == for_object) & (for_object > 0)).any(0)] = 1
    return index, matched


def sample(
    matched: Tensor, number: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Indices of positive and of negative boxes, drawn at random: `number` together, if there are as many.

    At most `positive_fraction` of the number is positive; `matched` is what `match` returned. The `generator`
    is one of the CPU, so that all devices draw alike.
    """
    positive, negative = (matched == 1).nonzero().flatten(), (matched == 0).nonzero().flatten()
    positive = _draw(positive, int(number * positive_fraction), generator)
    return positive, _draw(negative, number - len(positive), generator)


def _draw(indices: Tensor, most: int, generator: torch.Generator | None) -> Tensor:
    order = torch.randperm(len(indices), generator=generator)[:most]
    return indices[order.to(indices.device)]
