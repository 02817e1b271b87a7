"""A LUT as a picture: the colour cube, bent the way the LUT bends it."""

from __future__ import annotations

from itertools import product
from typing import Any

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

TILT, TURN = np.deg2rad(28), np.deg2rad(17)
"""How far the cube, on its black corner, leans towards the viewer, and is turned about its grey axis."""
MARGIN = 0.25
"""Room around the cube for colours outside [0, 1], as a share of its width."""
OVERSAMPLING = 2

Image = np.ndarray[Any, Any]


def colour_cube(lut: Tensor, *, points: int = 9, size: int = 360) -> Image:
    """Where `lut` (3, D, D, D) takes a regular grid of colours: uint8 (size, size, 3) on white.

    The cube stands on its black corner, white on top. Each of the input colours, `points` a side, is a dot at
    the place of its *output* colour, painted in it: the identity shows a regular grid. The outline holds all
    colours that can be displayed.
    """
    grid = F.interpolate(
        lut[None].detach().float().cpu(), (points,) * 3, mode="trilinear", align_corners=True
    )
    colours = grid[0].flatten(1).T.double().numpy()
    side = size * OVERSAMPLING
    canvas = np.full((side, side, 3), 255, np.uint8)
    for start, end in _edges():
        line = _screen(np.array([start, end], float), side)
        cv2.line(canvas, line[0], line[1], (200, 200, 200), OVERSAMPLING, cv2.LINE_AA)
    places, painted = _screen(colours, side), (np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8)
    radius = max(round(side / points / 12), 2)
    for i in np.argsort(_depth(colours)):
        cv2.circle(canvas, places[i], radius, painted[i].tolist(), cv2.FILLED, cv2.LINE_AA)
        cv2.circle(canvas, places[i], radius, (120, 120, 120), 1, cv2.LINE_AA)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)


def _axes() -> tuple[Image, Image, Image]:
    """Unit vectors in RGB: to the right on the screen, towards the viewer, and black to white."""
    first, second = np.array([1, -1, 0]) / np.sqrt(2), np.array([-1, -1, 2]) / np.sqrt(6)
    right = first * np.cos(TURN) + second * np.sin(TURN)
    near = second * np.cos(TURN) - first * np.sin(TURN)
    return right, near, np.ones(3) / np.sqrt(3)


def _screen(colours: Image, side: int) -> Image:
    """Pixels (x, y) of colours (M, 3), int32."""
    right, near, up = _axes()
    centred = colours - 0.5
    across = centred @ right
    height = centred @ up * np.cos(TILT) - centred @ near * np.sin(TILT)
    scale = side / (np.sqrt(3) * (1 + MARGIN))
    return np.stack([side / 2 + scale * across, side / 2 - scale * height], 1).round().astype(np.int32)


def _depth(colours: Image) -> Image:
    """Larger is nearer."""
    _, near, up = _axes()
    return colours @ near * np.cos(TILT) + colours @ up * np.sin(TILT)


def _edges() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The twelve edges of the unit cube."""
    corners = list(product((0, 1), repeat=3))
    return [(a, b) for a in corners for b in corners if a < b and sum(np.abs(np.subtract(a, b))) == 1]
