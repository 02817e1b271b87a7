"""Random crops of an image and of what belongs to it, pixel by pixel: masks, saliency.

Every choice comes from a `random.Random` that the caller seeds, so a crop can be made again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import torchvision.transforms.functional as tf
from PIL import Image
from torch import Tensor


class Window(NamedTuple):
    """Which part of a picture fills which part of the crop."""

    source: tuple[slice, slice]
    target: tuple[slice, slice]
    size: tuple[int, int]  # of the crop: height, width


def place(rng: random.Random, height: int, width: int, crop: int | None) -> Window:
    """A window of `crop` x `crop` pixels, uniform over all places in the picture; None: the whole picture.

    In a direction where the picture is smaller, it lies anywhere in the window instead.
    """
    rows, top = _span(rng, height, crop or height)
    columns, left = _span(rng, width, crop or width)
    return Window((rows, columns), (top, left), (crop or height, crop or width))


def cut(picture: Tensor, window: Window, fill: float = 0) -> Tensor:
    """What the window shows of a picture (C, H, W): (C, *size), with `fill` where there is no picture."""
    crop = picture.new_full((picture.shape[0], *window.size), fill)
    crop[:, window.target[0], window.target[1]] = picture[:, window.source[0], window.source[1]]
    return crop


def scale(picture: Image.Image, long: int) -> Image.Image:
    """The picture with `long` pixels on its longer side, bicubic."""
    width, height = (max(1, round(side * long / max(picture.size))) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def mirror(picture: Image.Image) -> Image.Image:
    """Left becomes right."""
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def change_colours(
    rng: random.Random, image: Image.Image, brightness: float, contrast: float, saturation: float, hue: float
) -> Image.Image:
    """Torchvision's colour jitter, its choices from `rng`: four changes in random order.

    Factors within 1 ± the first three, a turn of the hue within ± `hue` of the circle.
    """
    changes: list[tuple[Callable[[Image.Image, float], Image.Image], float]] = [
        (tf.adjust_brightness, rng.uniform(1 - brightness, 1 + brightness)),
        (tf.adjust_contrast, rng.uniform(1 - contrast, 1 + contrast)),
        (tf.adjust_saturation, rng.uniform(1 - saturation, 1 + saturation)),
        (tf.adjust_hue, rng.uniform(-hue, hue)),
    ]
    rng.shuffle(changes)
    for change, amount in changes:
        image = change(image, amount)
    return image


def _span(rng: random.Random, side: int, crop: int) -> tuple[slice, slice]:
    start = rng.randint(0, abs(side - crop))
    if side > crop:
        return slice(start, start + crop), slice(0, crop)
    return slice(0, side), slice(start, start + side)
