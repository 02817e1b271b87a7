"""Losses of PPR10K: what training minimises beside, or in place of, a plain mean squared error.

With y the retouched photograph, t the expert's, w the predicted weights and L_1 ... L_K the LUTs,

    loss = pixel + glc + smooth · (weight_norm(w) + Σ_k TV(L_k)) + monotone · Σ_k MN(L_k)

where `pixel` is MSE(y, t) or `hrp`, and `glc` is there where two views of each photograph are retouched.
Everything here is a pure function; the released weights of the terms are the defaults.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.errors import InputError

SMOOTH, MONOTONE = 1e-4, 10.0
"""Released weights of weight norm and total variation, and of monotonicity (official code)."""

Box = tuple[slice, slice]


def hrp(pred: Tensor, target: Tensor, mask: Tensor, human: float = 5.0) -> Tensor:
    """Human-region priority: MSE(W·pred, W·target), W = `human` where there is a person and 1 elsewhere.

    `pred`, `target` (N, 3, H, W); `mask` (N, C, H, W), a person wherever its channels sum to more than 0,
    so one that was resized softly reaches a pixel further. As in the official code W enters squared (5 counts
    25 times), and the mean is not divided by it: the loss grows with the area of the people.
    """
    if mask.ndim != 4 or len(mask) != len(pred) or mask.shape[-2:] != pred.shape[-2:]:
        raise InputError(
            f"the mask has the shape {tuple(mask.shape)} but the photographs {tuple(pred.shape)}; "
            "resize it to (N, 1, H, W) with their N, H and W."
        )
    weight = torch.where(mask.sum(1, keepdim=True) > 0, human, 1.0).to(pred)
    return F.mse_loss(weight * pred, weight * target)


def glc(first: Tensor, second: Tensor, corners: Tensor, batch_size: int | None = None) -> Tensor:
    """Group-level consistency: two views of one photograph should have the same colours where they overlap.

    Args:
        first, second: the retouched views (N, 3, h, w), crops of one size.
        corners: (N, 4) whole numbers: top and left of the first crop, top and left of the second, in pixels
            of the photograph.
        batch_size: what the sum over samples of MSE(first, second) on the overlap is divided by; None: N. The
            official code divides by its *option* batch_size, so a short last batch counts for less.
    """
    if first.shape != second.shape or corners.shape != (len(first), 4):
        raise InputError(
            f"two views of one shape and their corners (N, 4) are needed, but the shapes are "
            f"{tuple(first.shape)}, {tuple(second.shape)} and {tuple(corners.shape)}."
        )
    height, width = first.shape[-2:]
    boxes = zip(*overlap(corners, (height, width)), strict=True)
    errors = [
        F.mse_loss(one[:, *box], other[:, *same])
        for one, other, (box, same) in zip(first, second, boxes, strict=True)
    ]
    return torch.stack(errors).sum() / (batch_size or len(first))


def overlap(corners: Tensor, crop: int | tuple[int, int]) -> tuple[list[Box], list[Box]]:
    """Where two crops show the same pixels: for each sample (rows, columns) in the first and in the second.

    `corners` (N, 4) as in `glc`; `crop` is their side, or (height, width), in pixels. The official sizes
    (336 of 448) always overlap by 224 or more; crops that do not meet raise `InputError`.
    """
    sides = (crop, crop) if isinstance(crop, int) else crop
    first, second = [], []
    for top_1, left_1, top_2, left_2 in corners.tolist():
        rows = _common(top_1, top_2, sides[0])
        columns = _common(left_1, left_2, sides[1])
        if rows is None or columns is None:
            raise InputError(
                f"crops of {sides[0]} × {sides[1]} pixels at (top, left) ({top_1}, {left_1}) and "
                f"({top_2}, {left_2}) do not overlap; place them nearer, or make them larger."
            )
        first.append((rows[0], columns[0]))
        second.append((rows[1], columns[1]))
    return first, second


def _common(start_1: int, start_2: int, length: int) -> tuple[slice, slice] | None:
    start, end = max(start_1, start_2), min(start_1, start_2) + length
    return (
        None
        if end <= start
        else (slice(start - start_1, end - start_1), slice(start - start_2, end - start_2))
    )


def regulariser(weights: Tensor, luts: Tensor, smooth: float = SMOOTH, monotone: float = MONOTONE) -> Tensor:
    """smooth · (weight_norm + total_variation) + monotone · monotonicity, of `weights` (N, K) and `luts`."""
    return smooth * (weight_norm(weights) + total_variation(luts)) + monotone * monotonicity(luts)


def weight_norm(weights: Tensor) -> Tensor:
    """WN: the mean square of the predicted weights (N, K)."""
    return weights.square().mean()


def total_variation(luts: Tensor) -> Tensor:
    """TV: along each axis the mean squared difference of neighbours, summed over axes and LUTs.

    `luts` (K, 3, D, D, D), or one (3, D, D, D). The first and the last difference along an axis count twice
    (official code; with D = 2 the only one counts twice, not four times).
    """
    total = luts.new_zeros(())
    for axis, difference in _steps(luts):
        weight = luts.new_ones(luts.shape[-1] - 1)
        weight[[0, -1]] = 2
        weighed = difference.square().movedim(axis, -1) * weight
        total = total + weighed.mean((-4, -3, -2, -1)).sum()
    return total


def monotonicity(luts: Tensor) -> Tensor:
    """MN: how far outputs fall where an input rises, the mean along each axis, summed over axes and LUTs.

    `luts` as in `total_variation`. Every output channel should rise, or stay, with *every* input channel.
    """
    total = luts.new_zeros(())
    for _, difference in _steps(luts):
        total = total + F.relu(-difference).mean((-4, -3, -2, -1)).sum()
    return total


def _steps(luts: Tensor) -> list[tuple[int, Tensor]]:
    """Upper minus lower neighbour along input blue (axis -3), green and red."""
    if luts.ndim not in (4, 5) or luts.shape[-4] != 3 or len(set(luts.shape[-3:])) != 1 or luts.shape[-1] < 2:
        raise InputError(
            f"LUTs of the shape {tuple(luts.shape)}; expected (K, 3, D, D, D) with D of at least 2."
        )
    return [(axis, luts.diff(dim=axis)) for axis in (-3, -2, -1)]
