"""Which boxes lie mostly on void: annotated neither as a known thing nor as stuff.

The test is asked for thousands of boxes an image; over an integral image each answer is four look-ups.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.errors import InputError


def integral(mask: Tensor) -> Tensor:
    """The integral image (H + 1, W + 1), int32, of a void mask (H, W), bool.

    Entry (y, x) counts the void pixels above row y and left of column x.
    """
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise InputError(
            f"the void mask is {mask.dtype} of shape {tuple(mask.shape)}; expected torch.bool of shape "
            "(H, W), such as `semantic == void_label`."
        )
    return F.pad(mask.cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32), (1, 0, 1, 0))


def majority(integral: Tensor, boxes: Tensor) -> Tensor:
    """Whether more than half of each box is void, (n,) bool, for boxes (n, 4) as x1, y1, x2, y2 in pixels.

    The corners are cut to whole pixels, towards zero, and the region that counts ends one pixel early
    (official code): columns x1 .. x2 - 2 and rows y1 .. y2 - 2, inside the image. A box that has no pixel
    there, for being degenerate, outside the image or NaN, is not void.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(
            f"the boxes have shape {tuple(boxes.shape)}; expected (n, 4), with x1, y1, x2, y2 in pixels."
        )
    height, width = (size - 1 for size in integral.shape)
    x1, y1, x2, y2 = boxes.nan_to_num(0).clamp(0, max(height, width) + 1).long().T
    x1, x2 = x1.clamp(max=width), (x2 - 1).clamp(0, width)
    y1, y2 = y1.clamp(max=height), (y2 - 1).clamp(0, height)
    void = integral[y2, x2] - integral[y1, x2] - integral[y2, x1] + integral[y1, x1]
    area = (x2 - x1) * (y2 - y1)
    return (2 * void > area) & (x2 > x1) & (y2 > y1) & ~boxes.isnan().any(1)
