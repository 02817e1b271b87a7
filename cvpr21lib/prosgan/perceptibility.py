"""How visible an attack is: root mean square and largest change, as computed and as saved to a file."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cvpr21lib.errors import InputError


class Perceptibility(NamedTuple):
    """Changes over a whole set of images, in units of [0, 1] (times 255: grey levels)."""

    rmse: float
    """sqrt of the mean over images of the mean squared change: one root over the set (official)."""
    linf: float
    """The largest change of any value of any image."""
    rmse_8bit: float
    """`rmse` after rounding both images to 8 bits, as a file holds them; the official code never rounds."""
    linf_8bit: float
    """`linf` after that rounding: up to a grey level more than the bound, if `images` were not of 8 bits."""


class Meter:
    """Collects `Perceptibility` over batches.

    meter = Meter(); meter.update(images, attacking); meter.result()
    """

    def __init__(self) -> None:
        self._images = 0
        self._squares = [0.0, 0.0]
        self._largest = [0.0, 0.0]

    def update(self, images: Tensor, attacking: Tensor) -> None:
        """Both (N, C, H, W) in [0, 1]."""
        if images.shape != attacking.shape or images.ndim != 4:
            raise InputError(
                f"images of the shapes {tuple(images.shape)} and {tuple(attacking.shape)} cannot be "
                "compared; expected twice the same (N, C, H, W)."
            )
        if not len(images):
            return
        if not torch.isfinite(attacking).all():
            raise InputError("the attacking images hold NaN or infinite values; what made them has diverged.")
        self._images += len(images)
        for kind, change in enumerate((attacking - images, eight_bits(attacking) - eight_bits(images))):
            self._squares[kind] += float(change.double().square().mean((1, 2, 3)).sum())
            self._largest[kind] = max(self._largest[kind], float(change.abs().max()))

    def result(self) -> Perceptibility:
        if not self._images:
            raise InputError("no images were measured; call update first.")
        rmse, rounded = (math.sqrt(squares / self._images) for squares in self._squares)
        return Perceptibility(rmse, self._largest[0], rounded, self._largest[1])


def eight_bits(images: Tensor) -> Tensor:
    """Images in [0, 1] as a file of 8 bits would hold them: multiples of 1/255, nothing outside."""
    return (images.clamp(0, 1) * 255).round() / 255
