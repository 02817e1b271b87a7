"""Drawn scenes with things that have names, things that nobody named, and clutter, before two kinds of stuff.

A class of things is an outline and a pattern, in any two colours: a striped square, a dotted disk. Twelve of
the sixteen are known. The other four are *unknown*: every outline and every pattern of theirs is found in
known classes too, so that a network can see that something is there. Clutter is as large as things are, but
no two pieces are alike. Whoever trains is told of neither: unknown things and clutter are *void*. So void
holds what repeats and what does not, and only the first should be reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from cvpr21lib.scenes import photographs

Image = np.ndarray[Any, Any]
Kind = Literal["stuff", "known", "unknown", "clutter"]
Part = Literal["train", "test"]

SIDE = 96
"""Pixels along each side of a scene."""
OUTLINES = ("disk", "square", "triangle", "plus")
PATTERNS = ("solid", "stripes", "checker", "dots")
UNKNOWN = ("disk-stripes", "square-dots", "triangle-checker", "plus-solid")
"""Classes of things that have no name in training."""
KNOWN = tuple(name for o in OUTLINES for p in PATTERNS if (name := f"{o}-{p}") not in UNKNOWN)
"""The other twelve."""
STUFF = ("brick", "grass", "gravel", "photo")
TINTS = {"brick": (0.95, 0.6, 0.5), "grass": (0.6, 0.95, 0.45), "gravel": (0.75, 0.8, 0.95)}
"""Colours of the grey pictures."""
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "china", "flower")
"""Of which photo is made, and some of the clutter."""
RADIUS = (9.0, 14.5)
"""Of things and clutter, pixels."""
TURN = 0.2
"""How far a thing is turned at most, radians."""
NOISE = 0.03
"""Standard deviation of the pixels' noise, of values in [0, 1]."""


class Segment(NamedTuple):
    """One region of a scene: a stuff, a thing or a piece of clutter."""

    kind: Kind
    category: int
    """Position in `STUFF`, `KNOWN` or `UNKNOWN`; 0 for clutter."""


@dataclass(frozen=True)
class Scene:
    """One scene with its exact truth."""

    image: Image
    """uint8 (96, 96, 3), RGB."""
    regions: Image
    """uint8 (96, 96): i + 1 where `segments[i]` is; each is somewhere."""
    segments: tuple[Segment, ...]

    def of_kind(self, *kinds: Kind) -> list[int]:
        """Positions of the segments of these kinds."""
        return [i for i, segment in enumerate(self.segments) if segment.kind in kinds]

    def masks(self, *kinds: Kind) -> Image:
        """Where each segment of these kinds is: bool (n, 96, 96)."""
        numbers = np.array(self.of_kind(*kinds), int) + 1
        return self.regions == numbers[:, None, None]

    def boxes(self, *kinds: Kind) -> Image:
        """Tight boxes of the segments of these kinds: float32 (n, 4), x1, y1, x2, y2 at the pixels' edges."""
        masks = self.masks(*kinds)
        columns, rows = masks.max(1, initial=False), masks.max(2, initial=False)
        first = [used.argmax(1) for used in (columns, rows)]
        last = [SIDE - used[:, ::-1].argmax(1) for used in (columns, rows)]
        return np.stack([*first, *last], 1).astype(np.float32)

    def categories(self, *kinds: Kind) -> Image:
        """int64 (n,), of the segments of these kinds."""
        return np.array([self.segments[i].category for i in self.of_kind(*kinds)], np.int64)

    @property
    def void(self) -> Image:
        """What has no label in training, bool (96, 96): unknown things and clutter."""
        return self.masks("unknown", "clutter").max(0, initial=False)

    @property
    def semantic(self) -> Image:
        """Labels of the semantic head in training, uint8 (96, 96): 0 things, 1 to 4 stuff, 5 void."""
        lookup = [0] + [
            1 + category if kind == "stuff" else 0 if kind == "known" else 1 + len(STUFF)
            for kind, category in self.segments
        ]
        return np.array(lookup, np.uint8)[self.regions]


def scenes(seed: int, count: int, part: Part = "train", clutter: tuple[int, int] = (1, 2)) -> list[Scene]:
    """The first `count` scenes of a world; `clutter` is the least and the most of it in a scene."""
    return [scene(seed, number, part, clutter) for number in range(count)]


def scene(seed: int, number: int, part: Part = "train", clutter: tuple[int, int] = (1, 2)) -> Scene:
    """Scene `number` of the world `seed`, a function of its arguments.

    Stuff and clutter are cut from the left halves of their pictures for training, and from the right ones for
    test.
    """
    rng = np.random.default_rng((seed, number, part == "test"))
    pictures = _Pictures(rng, part)
    canvas, regions, segments = _stuff(rng, pictures)
    few: dict[Kind, tuple[int, int]] = {"known": (2, 3), "unknown": (1, 2), "clutter": clutter}
    wanted = [kind for kind, (least, most) in few.items() for _ in range(rng.integers(least, most + 1))]
    y, x = _grid()
    for kind, (left, top, radius) in zip(wanted, _places(rng, len(wanted)), strict=True):
        across, down = x - left, y - top
        category = 0
        if kind == "clutter":
            mask, paint = _clutter(rng, across, down, radius, pictures)
        else:
            names = KNOWN if kind == "known" else UNKNOWN
            category = int(rng.integers(len(names)))
            mask, paint = _thing(rng, across, down, radius, names[category])
        canvas[mask] = paint[mask]
        segments.append(Segment(kind, category))
        regions[mask] = len(segments)
    noisy = canvas + rng.normal(0, NOISE, canvas.shape)
    seen = [i for i in range(len(segments)) if (regions == i + 1).any()]
    lookup = np.zeros(len(segments) + 1, np.uint8)
    lookup[np.array(seen) + 1] = np.arange(len(seen)) + 1
    image = np.rint(noisy.clip(0, 1) * 255).astype(np.uint8)
    return Scene(image, lookup[regions], tuple(segments[i] for i in seen))


def _stuff(rng: np.random.Generator, pictures: _Pictures) -> tuple[Image, Image, list[Segment]]:
    """Two kinds of stuff, and a tilted line between them: canvas, regions, segments."""
    y, x = _grid()
    kinds = rng.choice(len(STUFF), 2, replace=False)
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.25) * SIDE
    side = (x - SIDE / 2) * np.cos(angle) + (y - SIDE / 2) * np.sin(angle) > offset
    first, second = (pictures.crop(_NAMES[STUFF[kind]], SIDE, SIDE) for kind in kinds)
    canvas = np.where(side[..., None], second, first)
    segments = [Segment("stuff", int(kind)) for kind in kinds]
    return canvas, side.astype(np.uint8) + 1, segments


def _places(rng: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
    """Centres and radii of circles that do not touch: (x, y, r)."""
    while True:
        radii = rng.uniform(*RADIUS, count)
        placed: list[tuple[float, float, float]] = []
        for radius in radii:
            for x, y in rng.uniform(radius, SIDE - radius, (30, 2)):
                if all(np.hypot(x - a, y - b) > radius + r + 1 for a, b, r in placed):
                    placed.append((float(x), float(y), float(radius)))
                    break
        if len(placed) == count:
            return placed


def _thing(
    rng: np.random.Generator, across: Image, down: Image, radius: float, name: str
) -> tuple[Image, Image]:
    """Mask (96, 96) and paint (96, 96, 3) of a thing; coordinates count from its centre."""
    turn = rng.uniform(-TURN, TURN)
    u = across * np.cos(turn) + down * np.sin(turn)
    v = down * np.cos(turn) - across * np.sin(turn)
    outline, pattern = name.split("-")
    mask = {
        "disk": np.hypot(u, v) < radius,
        "square": np.maximum(np.abs(u), np.abs(v)) < radius * 0.78,
        "triangle": (v < radius * 0.6) & (np.abs(u) * 1.6 < v + radius),
        "plus": (np.minimum(np.abs(u), np.abs(v)) < radius * 0.36)
        & (np.maximum(np.abs(u), np.abs(v)) < radius),
    }[outline] & (np.hypot(u, v) <= radius * 1.15)
    step = rng.uniform(4.0, 4.8)
    i, j = np.floor(u / step), np.floor(v / step)
    near = np.hypot(u % (1.6 * step) - 0.8 * step, v % (1.6 * step) - 0.8 * step)
    second = {
        "solid": np.zeros_like(mask),
        "stripes": i % 2 == 0,
        "checker": (i + j) % 2 == 0,
        "dots": near < 0.45 * step,
    }[pattern]
    one, other = _two_colours(rng)
    return mask, np.where(second[..., None], other, one)


def _two_colours(rng: np.random.Generator) -> tuple[Image, Image]:
    """Any two that can be told apart."""
    while True:
        one, other = rng.uniform(0, 1, (2, 3))
        if np.abs(one - other).sum() > 1.1:
            return one, other


def _clutter(
    rng: np.random.Generator, across: Image, down: Image, radius: float, pictures: _Pictures
) -> tuple[Image, Image]:
    """Mask (96, 96) and paint (96, 96, 3) of something that looks like nothing else."""
    angle = np.arctan2(down, across)
    waves = np.arange(2, 6)[:, None, None]
    phases = rng.uniform(0, 2 * np.pi, (4, 1, 1))
    heights = rng.uniform(0, 0.34, (4, 1, 1)) / waves**0.5
    outline = 1 + (heights * np.cos(waves * angle + phases)).sum(0)
    mask = np.hypot(across, down) < radius * np.clip(outline / outline.max(), 0.35, 1)
    one, other = _two_colours(rng)
    kind = rng.integers(4)
    if kind == 0:
        return mask, pictures.crop(PHOTOGRAPHS, SIDE, SIDE)
    if kind == 1:
        coarse = rng.normal(0, 1, (SIDE // 3, SIDE // 3))
        second = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) > rng.uniform(-0.4, 0.4)
        return mask, np.where(second[..., None], other, one)
    if kind == 2:
        tilt = rng.uniform(0, 2 * np.pi)
        share = np.clip(0.5 + (across * np.cos(tilt) + down * np.sin(tilt)) / (2 * radius), 0, 1)
        return mask, one + share[..., None] * (other - one)
    paint = np.broadcast_to(one, (SIDE, SIDE, 3)).copy()
    for colour in rng.uniform(0, 1, (3, 3)):
        tilt, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, 0.6) * radius
        paint[across * np.cos(tilt) + down * np.sin(tilt) > offset] = colour
    return mask, paint


class _Pictures:
    """Where crops come from."""

    def __init__(self, rng: np.random.Generator, part: Part) -> None:
        self.rng, self.part = rng, part

    def crop(self, names: Sequence[str], height: int, width: int) -> Image:
        """A window of one of the pictures, (height, width, 3) in [0, 1]."""
        picture = _picture(names[int(self.rng.integers(len(names)))])
        half = picture.shape[1] // 2
        picture = picture[:, :half] if self.part == "train" else picture[:, -half:]
        top = self.rng.integers(picture.shape[0] - height + 1)
        left = self.rng.integers(picture.shape[1] - width + 1)
        return picture[top : top + height, left : left + width].copy()


_NAMES = {name: PHOTOGRAPHS if name == "photo" else (name,) for name in STUFF}


@cache
def _picture(name: str) -> Image:
    """Half the size, (H, W, 3) in [0, 1]."""
    if name in TINTS:
        from skimage import data

        grey = getattr(data, name)().astype(np.float32) / 255
        large = grey[..., None] * np.array(TINTS[name], np.float32)
    else:
        large = photographs.load(name)
    height, width = large.shape[0] // 2, large.shape[1] // 2
    return cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)


@cache
def _grid() -> tuple[Image, Image]:
    """Rows and columns of the pixels' centres."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    return y, x
