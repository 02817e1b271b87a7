"""From a trained network and the image's own labels to its pseudo-mask (official inference).

An image passes the network in four sizes, plain and flipped. The maps of its labelled classes are summed in
the image's size, and each is divided by its maximum. A pixel belongs to the class of its strongest map where
that is above a constant threshold, else to the background; the background map of EPS has no say in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cvpr21lib.eps.model import Classifier
from cvpr21lib.eps.resnet38 import normalise
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import metrics

SCALES = (0.5, 1.0, 1.5, 2.0)

#: On VOC and COCO, for EPS and the baseline (official scripts).
THRESHOLD = 0.2


class ClassMaps(NamedTuple):
    """The maps of the classes that an image is labelled with."""

    classes: tuple[int, ...]  # K of 0 ... C - 1, ascending
    maps: Tensor  # (K, H, W) float32 on the CPU, in [0, 1)


@torch.inference_mode()
def class_maps(
    net: Classifier, image: np.ndarray, label: Tensor | np.ndarray, scales: Sequence[float] = SCALES
) -> ClassMaps:
    """The maps of one image, uint8 (H, W, 3) RGB, with the labels (C,) in {0, 1}; `net` in evaluation mode.

    Equal to 1e-5 to the official order, in which eight passes follow each other and all their maps are
    enlarged before anything is added or left out.
    """
    _check(net, image, label)
    height, width = image.shape[:2]
    classes = torch.as_tensor(label).nonzero().flatten()
    device = net.fc8.weight.device
    total = torch.zeros(len(classes), height, width, device=device)
    for scale in scales if len(classes) else ():
        small = normalise(_resized(image, scale)).to(device)
        plain, flipped = net.class_maps(torch.stack([small, small.flip(2)]), classes.to(device)).float()
        both = plain + flipped.flip(2)
        total += F.interpolate(both[None], (height, width), mode="bilinear", align_corners=False)[0]
    if not total.isfinite().all():
        raise InputError("the network's maps hold NaN or infinite values: its training has diverged.")
    maps = total / (total.amax((1, 2), keepdim=True) + 1e-5)
    return ClassMaps(tuple(classes.tolist()), maps.cpu())


def mask(found: ClassMaps, threshold: float = THRESHOLD) -> np.ndarray:
    """The pseudo-mask, uint8 (H, W): 0 is background, c + 1 is class c.

    A pixel exactly at the threshold is background; of equal classes the first has it. Without labels all is
    background.
    """
    strength, winner = _strongest(found)
    return np.where(strength > np.float32(threshold), winner, np.uint8(0))


def scan(found: ClassMaps, target: np.ndarray, thresholds: Sequence[float], num_classes: int) -> np.ndarray:
    """Confusion matrices of one image's masks at T thresholds, (T, K, K) int64; sum them over the images.

    K = `num_classes` includes the background; `target` as in `metrics.confusion`; `thresholds` ascend from 0.
    One histogram has them all, as the strongest class does not depend on the threshold.
    """
    steps = np.asarray(thresholds, np.float32)
    if not 0 < len(steps) < 255 or steps[0] < 0 or (np.diff(steps) <= 0).any():
        raise InputError(f"the thresholds are {list(thresholds)}; expected 1 to 254, ascending from 0 on.")
    strength, winner = _strongest(found)
    passed = np.searchsorted(steps, strength).astype(np.uint8)  # how many thresholds lie below
    counts = metrics.histogram(target, winner, passed, sizes=(num_classes, num_classes, len(steps) + 1))
    # at threshold number t, a pixel that passed more than t of them has its class, any other is background
    kept = counts[..., ::-1].cumsum(2)[..., -2::-1]
    kept[:, 0] += counts.sum((1, 2))[:, None] - kept.sum(1)
    return np.moveaxis(kept, 2, 0)


def _strongest(found: ClassMaps) -> tuple[np.ndarray, np.ndarray]:
    """At each pixel the largest value, float32, and the mask's number of its class, uint8."""
    if not found.classes:
        return np.zeros(found.maps.shape[1:], np.float32), np.zeros(found.maps.shape[1:], np.uint8)
    strength, index = found.maps.max(0)
    return strength.numpy(), (np.asarray(found.classes, np.uint8) + 1)[index.numpy()]


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    """Bicubic, as Pillow does it on 8 bits."""
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _check(net: Classifier, image: np.ndarray, label: Tensor | np.ndarray) -> None:
    if net.training:
        raise InputError("the network is in training mode, where dropout changes its maps: call net.eval().")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"the image is {image.dtype} {image.shape}; expected RGB as uint8 (H, W, 3).")
    if tuple(label.shape) != (net.num_classes,):
        raise InputError(
            f"the labels have the shape {tuple(label.shape)}; expected ({net.num_classes},), 0 or 1 a class."
        )
