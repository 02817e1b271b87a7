"""The Laplacian pyramid: an image split, without loss, into bands of detail and one small low-pass image.

Section 3.1 of the paper (after Burt and Adelson, 1983). With k = [1, 4, 6, 4, 1] / 16 along each axis,

    down(x) = every second sample of blur(x)                    (N, C, ceil(H/2), ceil(W/2))
    up(x)   = 4 * blur(x spread out with zeros in between)      (N, C, 2h or 2h-1, 2w or 2w-1)
    x_0 = image,   x_{l+1} = down(x_l),   h_l = x_l - up(x_{l+1})        band l holds what up() missed,

so adding the bands back, coarsest first, restores the image exactly, whatever its size.

Borders are the official code's. down() mirrors the image at all four borders. up() mirrors on the left and
at the top but repeats the last sample on the right and at the bottom, because the spread-out grid ends on a
zero. For an odd size up() drops the last row or column. (From 3227 pixels on, the official code's float32
index arithmetic sometimes picks a neighbour instead; that is a defect, and is not reproduced here.)
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.errors import InputError


def decompose(image: Tensor, num_high: int) -> list[Tensor]:
    """Split `image` (N, C, H, W) into `num_high` bands, finest first, and the low-pass image at the end.

    Band l has the size of the image halved l times (rounding up); bands are signed. Any floating type, any
    device, differentiable. H and W must be at least `minimum_size(num_high)`, else `InputError`.
    """
    _check(image, num_high)
    pyramid, current = [], image
    for _ in range(num_high):
        smaller = down(current)
        pyramid.append(current - up(smaller, current.shape[-2:]))
        current = smaller
    return [*pyramid, current]


def reconstruct(pyramid: list[Tensor]) -> Tensor:
    """Put a pyramid back together: the inverse of `decompose`, to rounding. Returns (N, C, H, W)."""
    *bands, image = pyramid
    for band in reversed(bands):
        image = up(image, band.shape[-2:]).add_(band)  # in place: the sum needs no second full-size tensor
    return image


def minimum_size(num_high: int) -> int:
    """Smallest height or width in pixels that `num_high` levels can halve: 2^num_high + 1.

    Mirroring by two samples needs three, so every level that is halved must have three pixels or more.
    """
    return 2**num_high + 1


def down(x: Tensor) -> Tensor:
    """Blur and keep every second sample: (N, C, H, W) to (N, C, ceil(H/2), ceil(W/2)). H, W >= 3."""
    if min(x.shape[-2:]) < 3:
        raise InputError(f"an image of {_size(x)} pixels cannot be halved: each side needs at least 3.")
    return _down_opencv(x) if _opencv_applies(x) else _down_torch(x)


def up(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Double the size by interpolation: (N, C, h, w) to (N, C, *size). h, w >= 2.

    `size` is (height, width), each twice the input's or one less: the size that `down` came from.
    """
    h, w = x.shape[-2:]
    if min(h, w) < 2:
        raise InputError(f"an image of {_size(x)} pixels cannot be doubled: each side needs at least 2.")
    if size[0] not in (2 * h, 2 * h - 1) or size[1] not in (2 * w, 2 * w - 1):
        raise InputError(
            f"an image of {_size(x)} pixels doubles to {2 * h} × {2 * w} or one row or column less, "
            f"not to {size[0]} × {size[1]}."
        )
    return _up_opencv(x, size) if _opencv_applies(x) else _up_torch(x, size)


def _opencv_applies(x: Tensor) -> bool:
    # The one choice between two exact ways. OpenCV's pyrDown and pyrUp are this very pyramid, borders
    # included, about ten times faster than torch operations, but know neither gradients nor other devices.
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not (x.requires_grad and torch.is_grad_enabled())
        and not torch.compiler.is_compiling()
    )


def _down_opencv(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    out = x.new_empty(n, c, (h + 1) // 2, (w + 1) // 2)
    for source, target in zip(_planes(x), _planes(out), strict=True):
        cv2.pyrDown(source, dst=target)
    return out


def _up_opencv(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    out = x.new_empty(*x.shape[:2], *size)
    for source, target in zip(_planes(x), _planes(out), strict=True):
        cv2.pyrUp(source, dst=target, dstsize=(size[1], size[0]))
    return out


def _planes(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().flatten(0, 1).numpy()


def _down_torch(x: Tensor) -> Tensor:
    channels = x.shape[1]
    k = x.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = torch.outer(k, k).expand(channels, 1, 5, 5)
    with torch.autocast(x.device.type, enabled=False):  # bands are small differences: keep every digit
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=channels)


def _up_torch(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return _double(_double(x, 2), 3)[..., : size[0], : size[1]]


def _double(x: Tensor, axis: int) -> Tensor:
    # What the blur makes of [x0, 0, x1, 0, ...]: even samples see three inputs, odd ones two.
    n = x.shape[axis]
    padded = torch.cat([x.narrow(axis, 1, 1), x, x.narrow(axis, n - 1, 1)], axis)
    left, right = padded.narrow(axis, 0, n), padded.narrow(axis, 2, n)
    even = (left + 6 * x + right) / 8
    odd = (x + right) / 2
    return torch.stack([even, odd], axis + 1).flatten(axis, axis + 1)


def _check(image: Tensor, num_high: int) -> None:
    if image.ndim != 4 or not image.is_floating_point():
        raise InputError(
            f"the image has shape {tuple(image.shape)} and type {image.dtype}; expected (N, C, H, W) of a "
            "floating type, with values in [0, 1] for a photograph."
        )
    if num_high < 1:
        raise InputError(f"num_high is {num_high}; a pyramid needs at least 1 level.")
    side = min(image.shape[-2:])
    if side < minimum_size(num_high):
        largest = max((side - 1).bit_length() - 1, 0)
        advice = f"use num_high <= {largest}" if largest else "use a larger image"
        raise InputError(
            f"an image of {_size(image)} pixels is too small for a pyramid of {num_high} levels, which needs "
            f"{minimum_size(num_high)} × {minimum_size(num_high)} or more: {advice}."
        )


def _size(x: Tensor) -> str:
    return f"{x.shape[-2]} × {x.shape[-1]}"
