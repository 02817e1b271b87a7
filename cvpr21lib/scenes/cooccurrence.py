"""Drawn scenes in which things never come without their surroundings: trains on rails, boats on water.

Trains and boats come in any colour, while rails and water always look alike. So a classifier that learns from
image labels alone finds these first. Sofas and balls have no such company. With each scene comes a saliency
map with the errors of real ones: it misses every sofa, now and then one of two objects, and sometimes it sees
something where nothing is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

Image = np.ndarray[Any, Any]

CLASSES = ("train", "boat", "ball", "sofa")
TRAIN, BOAT, BALL, SOFA = range(1, 5)
"""Numbers of the classes in masks."""
RAIL, WATER = 5, 6
"""Further regions, which are background in masks."""
CONTEXT = {"rail": (RAIL, TRAIN), "water": (WATER, BOAT)}
"""Which region is taken for which class."""

SIDE = 48
"""Pixels along each side of a scene."""
BASES, SHARES = (TRAIN, BOAT, SOFA, None), (0.28, 0.28, 0.28, 0.16)
"""What stands in a scene, and how often."""
BALL_BESIDE = {TRAIN: 0.45, BOAT: 0.45, SOFA: 0.15, None: 1.0}
"""How often a ball comes with it."""
DROPPED, INVENTED = 0.15, 0.1
"""How often saliency misses one of two objects, and sees one that is not there."""
NOISE = 0.06
"""Standard deviation of the pixels' noise, of values in [0, 1]."""


@dataclass(frozen=True)
class Scene:
    """One scene with its exact truth."""

    image: Image
    """uint8 (48, 48, 3), RGB."""
    regions: Image
    """uint8 (48, 48): 0 background, 1 to 4 the classes, 5 rails, 6 water."""
    saliency: Image
    """uint8 (48, 48), 255 where something is salient."""

    @property
    def mask(self) -> Image:
        """uint8 (48, 48): 0 background, c + 1 class c."""
        return np.where(self.regions > len(CLASSES), np.uint8(0), self.regions)

    @property
    def label(self) -> tuple[int, ...]:
        """The classes that can be seen, 0 for train, ascending."""
        return tuple(int(value) - 1 for value in np.unique(self.mask) if value)


def scenes(seed: int, count: int = 300) -> list[Scene]:
    """The first `count` scenes of a world."""
    return [scene(seed, number) for number in range(count)]


def scene(seed: int, number: int) -> Scene:
    """Scene `number` of the world `seed`, a function of the two."""
    rng = np.random.default_rng((seed, number))
    picture = cv2.resize(rng.uniform(0.2, 0.8, (4, 4, 3)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    regions = np.zeros((SIDE, SIDE), np.uint8)
    base = BASES[rng.choice(len(BASES), p=SHARES)]
    if base is not None:
        {TRAIN: _train, BOAT: _boat, SOFA: _sofa}[base](rng, picture, regions)
    if rng.random() < BALL_BESIDE[base]:
        _ball(rng, picture, regions)
    noisy = picture + rng.normal(0, NOISE, picture.shape)
    return Scene(_bytes(noisy), regions, _saliency(rng, regions))


def _train(rng: np.random.Generator, picture: Image, regions: Image) -> None:
    """A box with a row of windows, on rails."""
    top, strip = _strip(rng)
    y, x = _grid()
    sleepers = np.where((x + rng.integers(5)) % 5 < 2, 0.25, 0.55)[..., None] * np.array([1.0, 0.85, 0.7])
    steel = (y == top + 2) | (y == top + 5)
    picture[strip] = np.where(steel[..., None], 0.8, sleepers)[strip]
    regions[strip] = RAIL
    height, width = rng.integers(11, 18), rng.integers(20, 35)
    left, bottom = rng.integers(0, SIDE - width + 1), top + 1
    body = (y < bottom) & (y >= bottom - height) & (x >= left) & (x < left + width)
    row = y - (bottom - height)
    windows = body & (row >= 3) & (row < 7) & ((x - left) % 6 > 2)
    colour = rng.uniform(0, 1, 3)
    picture[body] = colour
    picture[windows] = (colour + 0.5) % 1
    regions[body] = TRAIN


def _boat(rng: np.random.Generator, picture: Image, regions: Image) -> None:
    """A hull that tapers towards its keel, on water."""
    top, strip = _strip(rng)
    y, x = _grid()
    waves = np.sin(x * 0.9 + 2.0 * np.sin(y * 1.3) + rng.uniform(0, 6.3))[..., None]
    picture[strip] = (np.array([0.15, 0.4, 0.65]) + 0.15 * waves)[strip]
    regions[strip] = WATER
    height, width = rng.integers(10, 16), rng.integers(22, 37)
    middle, bottom = rng.uniform(width / 2, SIDE - width / 2), top + 2
    half = width / 2 - (y - (bottom - height)) * 0.45
    hull = (y < bottom) & (y >= bottom - height) & (np.abs(x + 0.5 - middle) < half)
    colour = rng.uniform(0, 1, 3)
    picture[hull] = colour
    picture[hull & (y < bottom - height + 2)] = (colour + 0.5) % 1
    regions[hull] = BOAT


def _sofa(rng: np.random.Generator, picture: Image, regions: Image) -> None:
    """A high back between low arms, with diagonal stripes."""
    y, x = _grid()
    height, width = rng.integers(14, 22), rng.integers(22, 36)
    top, left = rng.integers(0, SIDE - height + 1), rng.integers(0, SIDE - width + 1)
    down, across = y - top, x - left
    box = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    arms = (across < 5) | (across >= width - 5)
    body = box & ~(arms & (down < height // 2))
    colour = rng.uniform(0, 1, 3)
    picture[body] = np.where(((x + y) % 6 < 3)[..., None], colour, (colour + 0.35) % 1)[body]
    regions[body] = SOFA


def _ball(rng: np.random.Generator, picture: Image, regions: Image) -> None:
    """A disc with a core of the opposite colour."""
    y, x = _grid()
    radius = rng.uniform(6, 8.5)
    centre = rng.uniform(radius, SIDE - radius, 2)
    distance = np.hypot(y + 0.5 - centre[0], x + 0.5 - centre[1])
    colour = rng.uniform(0, 1, 3)
    picture[distance < radius] = colour
    picture[distance < radius / 2] = 1 - colour
    regions[distance < radius] = BALL


def _saliency(rng: np.random.Generator, regions: Image) -> Image:
    salient = [regions == value for value in (TRAIN, BOAT, BALL) if (regions == value).any()]
    kept = [each for each in salient if len(salient) < 2 or rng.random() >= DROPPED]
    drawn = np.any(kept, 0) if kept else np.zeros(regions.shape, bool)
    if rng.random() < INVENTED:
        side = rng.integers(8, 13)
        top, left = rng.integers(0, SIDE - side + 1, 2)
        drawn[top : top + side, left : left + side] = True
    return _bytes(cv2.GaussianBlur(drawn.astype(np.float32), (0, 0), 1))


def _strip(rng: np.random.Generator) -> tuple[int, Image]:
    """The first row of a strip across the scene, and its pixels."""
    top, height = int(rng.integers(20, 36)), int(rng.integers(7, 12))
    y, _ = _grid()
    return top, (y >= top) & (y < top + height)


def _grid() -> tuple[Image, Image]:
    y, x = np.mgrid[:SIDE, :SIDE]
    return y, x


def _bytes(image: Image) -> Image:
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)
