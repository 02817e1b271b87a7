"""A fully connected CRF: masks that follow the image's own edges (Krähenbühl, Koltun; NIPS 2011).

Every pixel has an energy for every label, -log p. Two pixels with different labels pay for being near each
other, and for being near and of similar colour. Mean field finds beliefs Q under which little is paid. In
each round a pixel hears what all others believe, weighted by two Gaussians k of place, and of place and
colour:

    Q_i(l) ∝ exp(log p_i(l) + Σ_k w_k Σ_j k(f_i, f_j) Q_j(l))

The sums over all pixels are `permutohedral` filters, normalised symmetrically: each is divided by the root of
its own sum of weights, at i and at j. That is what pydensecrf computes, which needs a compiler to be
installed, and these are its numbers, to 1e-5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation.permutohedral import Lattice


@dataclass(frozen=True)
class CRF:
    """A CRF's two kernels; `crf(image, probabilities)` applies it."""

    near_weight: float
    """w of the Gaussian of place; 0 leaves it out."""
    near_xy: float
    """Its standard deviation, pixels."""
    alike_weight: float
    """w of the Gaussian of place and colour; 0 leaves it out."""
    alike_xy: float
    """Its standard deviation of place, pixels."""
    alike_rgb: float
    """Its standard deviation of colour, in 8-bit steps."""
    iterations: int = 10

    def __call__(self, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Q (L, H, W) float32, summing to 1, for an image uint8 (H, W, 3) RGB and p (L, H, W) in [0, 1].

        L are the labels that the image may have: leave those out which it surely has not, they only cost
        time. p need not add up to 1; below 1e-5 it counts as 1e-5.
        """
        _check(image, probabilities)
        return mean_field(image, unary(probabilities), self)


PSA = CRF(near_weight=3, near_xy=3, alike_weight=10, alike_xy=80, alike_rgb=13)
"""Of the official inference script, which has it from PSA."""
DEEPLAB = CRF(near_weight=3, near_xy=1, alike_weight=4, alike_xy=67, alike_rgb=3)
"""Of DeepLab-v2 with ResNet-101; of the paper's CRF numbers and of stage 2 (official readme, issue 5)."""


def class_scores(maps: np.ndarray, alpha: float) -> np.ndarray:
    """p (K + 1, H, W) of K class maps (K, H, W) in [0, 1]: first the background's, (1 - their maximum)^α.

    The larger α, the more becomes foreground; the official script takes 4 and 32. They do not add up to 1,
    and the official code leaves it at that.
    """
    background = (1 - maps.max(0, initial=0)) ** alpha
    return np.concatenate([background[None], maps]).astype(np.float32, copy=False)


def unary(probabilities: np.ndarray) -> np.ndarray:
    """-log p as float32, with p at least 1e-5."""
    return -np.log(np.clip(probabilities, 1e-5, 1)).astype(np.float32, copy=False)


def mean_field(image: np.ndarray, unary: np.ndarray, crf: CRF) -> np.ndarray:
    """Q (L, H, W) after the rounds of mean field, from energies (L, H, W) float32."""
    if len(unary) == 1:
        return np.ones_like(unary)
    kernels = _kernels(image, crf)
    energy = np.ascontiguousarray(unary.reshape(len(unary), -1).T)  # (H W, L): a pixel's labels lie together
    energy -= energy.min(1, keepdims=True)
    everyone = np.ones((len(energy), 1), np.float32)
    loudest = sum(kernel.filter(everyone).max() for kernel in kernels)
    q = _normalised_exp(-energy)
    for _ in range(crf.iterations):
        message = -energy
        for kernel in kernels:
            message += kernel.filter(q)
        if loudest > LARGEST_EXPONENT:
            message -= message.max(1, keepdims=True)
        q = _normalised_exp(message)
    return np.ascontiguousarray(q.T).reshape(unary.shape)


LARGEST_EXPONENT = 80
"""exp stays finite in float32 up to 88. Below this no maximum need be subtracted first, which takes long."""


def _kernels(image: np.ndarray, crf: CRF) -> list[Lattice]:
    height, width = image.shape[:2]
    kernels = []
    if crf.near_weight:
        kernels.append(_near(height, width, crf.near_xy, crf.near_weight))
    if crf.alike_weight:
        places = _places(height, width, crf.alike_xy)
        features = np.concatenate([places, image / np.float32(crf.alike_rgb)], -1)
        kernels.append(_kernel(features, crf.alike_weight))
    return kernels


@lru_cache(maxsize=4)
def _near(height: int, width: int, xy: float, weight: float) -> Lattice:
    """The kernel of place, which all images of one size share."""
    return _kernel(_places(height, width, xy), weight)


def _kernel(features: np.ndarray, weight: float) -> Lattice:
    """w times the Gaussian filter of features (H, W, d), symmetrically normalised."""
    lattice = Lattice(features.reshape(-1, features.shape[-1]))
    sums = lattice.filter(np.ones((len(lattice.splat.indptr) - 1, 1), np.float32))[:, 0]
    lattice.scale(np.sqrt(np.float32(weight) / (sums + np.float32(1e-20))))
    return lattice


def _places(height: int, width: int, xy: float) -> np.ndarray:
    """(x, y) / xy of each pixel, float32 (H, W, 2)."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(xy)
    return np.stack([x, y], -1)


def _normalised_exp(energy: np.ndarray) -> np.ndarray:
    """exp over its sum along the last axis, in place."""
    np.exp(energy, out=energy)
    energy /= (energy @ np.ones(energy.shape[1], np.float32))[:, None]
    return energy


def _check(image: np.ndarray, probabilities: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"the image is {image.dtype} {image.shape}; expected RGB as uint8 (H, W, 3)")
    if probabilities.ndim != 3 or not len(probabilities):
        raise InputError(f"the probabilities have the shape {probabilities.shape}; expected (L, H, W), L ≥ 1")
    if probabilities.shape[1:] != image.shape[:2]:
        raise InputError(
            f"the image has {image.shape[0]} x {image.shape[1]} pixels, its label maps have "
            f"{probabilities.shape[1]} x {probabilities.shape[2]}; enlarge the maps to the image first"
        )
    if not np.isfinite(probabilities).all():
        raise InputError(
            "the probabilities hold NaN or infinite values; the model that made them has diverged"
        )
