"""What a training view does to a photograph: cut out, resize, mirror.

The two training scripts of the official code resize in different ways. The plain one gives a constant of
Pillow (BILINEAR, which is 2) to OpenCV, where 2 means bicubic: 16-bit sources are resized by cubic
interpolation, targets and masks by Pillow's bilinear filter with antialiasing. The one with group-level
consistency resizes everything by OpenCV's bilinear interpolation.

Images are (H, W, 3), masks (H, W): uint8, uint16, or float32 in [0, 1].
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvpr21lib.ppr10k.decoded import Pixels


class Window(NamedTuple):
    """A rectangle of pixels: its first row and column, and its size."""

    top: int
    left: int
    height: int
    width: int


def free_window(rng: random.Random, height: int, width: int) -> Window:
    """60-100 % of each side, drawn independently, anywhere in the image (official code)."""
    window_height, window_width = (round(side * rng.uniform(0.6, 1)) for side in (height, width))
    return _placed(rng, height, width, window_height, window_width)


def square_window(rng: random.Random, size: int, crop: int) -> Window:
    """A square of side `crop` anywhere in a square image of side `size`."""
    return _placed(rng, size, size, crop, crop)


def cut(image: Pixels, window: Window) -> Pixels:
    """The pixels of the window."""
    return image[window.top : window.top + window.height, window.left : window.left + window.width]


def mirror(image: Pixels) -> Pixels:
    """Left and right exchanged."""
    return cv2.flip(image, 1)


def bicubic(image: Pixels, size: int) -> Pixels:
    """OpenCV's cubic interpolation, without antialiasing, to `size` x `size`; overshoots are clipped."""
    resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    return resized.clip(0, 1) if resized.dtype == np.float32 else resized


def bilinear(image: Pixels, size: int) -> Pixels:
    """OpenCV's bilinear interpolation, no antialiasing, to `size` x `size`."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def antialiased(image: Pixels, size: int) -> Pixels:
    """Pillow's bilinear filter, which widens when it shrinks, to `size` x `size`."""
    if image.dtype == np.uint8:
        return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    channels = [Image.fromarray(channel) for channel in cv2.split(image.astype(np.float32))]
    smooth = [np.asarray(channel.resize((size, size), Image.Resampling.BILINEAR)) for channel in channels]
    resized = np.stack(smooth, -1).reshape(size, size, *image.shape[2:])
    return resized if image.dtype == np.float32 else np.rint(resized).astype(image.dtype)


RESIZE: Mapping[str, tuple[Callable[[Pixels, int], Pixels], Callable[[Pixels, int], Pixels]]] = {
    "official": (bicubic, antialiased),
    "bilinear": (bilinear, bilinear),
}
"""How sources, and how targets and masks, are resized."""


def tensor(image: Pixels) -> Tensor:
    """float32 (3, H, W), or (1, H, W) for a mask, in [0, 1]."""
    channels_first = torch.from_numpy(image if image.ndim == 3 else image[..., None]).permute(2, 0, 1)
    values = channels_first.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return values if image.dtype == np.float32 else values.div_(np.iinfo(image.dtype).max)


def _placed(rng: random.Random, height: int, width: int, window_height: int, window_width: int) -> Window:
    top, left = rng.randint(0, height - window_height), rng.randint(0, width - window_width)
    return Window(top, left, window_height, window_width)
