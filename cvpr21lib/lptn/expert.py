"""The demo's world: real photographs, a camera that is known, and an expert who is known.

The camera renders flat, cool and under-exposed. The expert corrects the exposure *locally* (dark regions are
lifted, bright ones lowered), then undoes the cast, adds contrast and colour. Both are formulas, so the right
answer is known for every pixel, and the local term is what a per-pixel colour map cannot do.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from skimage.filters import gaussian

from cvpr21lib.scenes import photographs

TRAIN = ("astronaut", "coffee", "motorcycle", "china", "rocket")
TEST = ("chelsea", "flower")

CAST = np.array([0.86, 0.95, 1.06])
"""Gains of R, G, B: a cool white balance."""
EXPOSURE, GAMMA, VEIL = 0.78, 1.1, 0.03
LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601."""
LOCAL_GAIN, MIDDLE_GREY = 1.5, 0.4
"""Stops of correction for each unit of brightness away from middle grey."""
BLUR = 1 / 16
"""Standard deviation of the neighbourhood, as a share of the short side."""
EXPERT_GAMMA, CONTRAST, SATURATION = 1.2, 0.6, 1.25

Image = np.ndarray[Any, Any]


@cache
def pair(name: str) -> tuple[Image, Image]:
    """Camera rendering and expert's version of a bundled photograph, float32 (H, W, 3), RGB in [0, 1]."""
    rendered = camera(photographs.load(name).astype(np.float64))
    return rendered.astype(np.float32), expert(rendered).astype(np.float32)


def camera(image: Image) -> Image:
    """The source domain: (H, W, 3) in [0, 1] to the same."""
    return np.clip(EXPOSURE * image**GAMMA * CAST + VEIL, 0, 1)


def expert(rendered: Image) -> Image:
    """The target domain: local exposure, white balance, contrast, saturation; (H, W, 3) in [0, 1]."""
    surroundings = gaussian(rendered @ LUMA, min(rendered.shape[:2]) * BLUR, mode="reflect")
    exposed = np.clip(rendered * 2 ** (LOCAL_GAIN * (MIDDLE_GREY - surroundings))[..., None], 0, 1)
    balanced = np.clip((exposed - VEIL) / (EXPOSURE * CAST), 0, 1) ** (1 / EXPERT_GAMMA)
    steep = CONTRAST * balanced**2 * (3 - 2 * balanced) + (1 - CONTRAST) * balanced
    luma = (steep @ LUMA)[..., None]
    return np.clip(luma + SATURATION * (steep - luma), 0, 1)
