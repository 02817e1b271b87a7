"""Drawn road scenes in two looks: a plain one with known truth, and one textured with photographs.

A pinhole camera drives along a street. In both domains semantics and depth are related alike: hedges are near
and houses far; people, vehicles and signs have one shape, and each kind is twice as large as the one before
and twice as far away, so that it looks the same but for its depth. What differs is the look. The source has a
plain colour for each class. In the target colours are half lost, and vary more from thing to thing; real
photographs are the texture; the light is another. Haze lies over both, so that depth shows in either.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_args

import cv2
import numpy as np

from cvpr21lib.errors import InputError
from cvpr21lib.scenes import photographs

Array = np.ndarray[Any, Any]
Domain = Literal["source", "target"]

CLASSES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
FLAT, CONSTRUCTION, OBJECT, NATURE, SKY, HUMAN, VEHICLE = range(7)
"""Numbers of the classes in labels."""
HEIGHT, WIDTH = 48, 96
"""Pixels of a scene."""
FOCAL = 60.0
"""Focal length, pixels."""
SKY_DEPTH = 300.0
"""Metres."""
END = 60.0
"""Where the street ends, metres ahead."""
SCALES = {HUMAN: 1.0, VEHICLE: 2.0, OBJECT: 4.0}
"""How large upright things are, and how far away: all look about as large as people, the nearest ones."""
NEAREST = (3.5, 7.0)
"""Metres, between which people stand."""
HAZE = np.array([0.75, 0.78, 0.80])
COLOURS = np.array(
    [
        [0.45, 0.36, 0.44],
        [0.62, 0.50, 0.38],
        [0.80, 0.75, 0.25],
        [0.28, 0.55, 0.20],
        [0.50, 0.68, 0.92],
        [0.80, 0.28, 0.28],
        [0.15, 0.22, 0.62],
    ]
)
"""The source's colour of each class, RGB in [0, 1]."""


@dataclass(frozen=True)
class Look:
    """How a domain looks; colours are RGB in [0, 1]."""

    grey: float = 0.0
    """How far each class's colour is taken towards its grey."""
    by_class: float = 0.05
    """Standard deviation of a class's colour from image to image."""
    by_thing: float = 0.06
    """The same from thing to thing."""
    texture: float = 0.0
    """How much of a photograph is added."""
    haze: float = 25.0
    """Metres in which light falls to 1/e."""
    gamma: float = 1.0
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Gains of R, G and B."""
    noise: float = 0.02
    """Standard deviation."""


LOOKS: dict[Domain, Look] = {
    "source": Look(),
    "target": Look(
        grey=0.5, by_class=0.07, by_thing=0.09, texture=0.5, gamma=1.25, cast=(0.97, 1.0, 0.88), noise=0.03
    ),
}
TEXTURES: dict[int, tuple[tuple[str, tuple[float, float, float, float]], ...]] = {
    FLAT: (("gravel", (0, 0, 1, 1)),),
    CONSTRUCTION: (("brick", (0, 0, 1, 1)), ("china", (0.3, 0.3, 0.7, 0.8))),
    OBJECT: (("chelsea", (0.2, 0.1, 0.8, 0.9)),),
    NATURE: (("grass", (0, 0, 1, 1)), ("flower", (0, 0, 1, 1))),
    SKY: (("rocket", (0, 0, 0.35, 0.5)), ("china", (0, 0, 1, 0.3))),
    HUMAN: (("astronaut", (0.1, 0.4, 0.6, 1)),),
    VEHICLE: (("coffee", (0.1, 0.1, 0.9, 0.9)),),
}
"""Photographs of each class, and the part that is used: left, top, right, bottom, as shares."""


@dataclass(frozen=True)
class Scene:
    """One scene with its exact truth."""

    image: Array
    """uint8 (48, 96, 3), RGB."""
    label: Array
    """uint8 (48, 96): the class at each pixel."""
    depth: Array
    """float32 (48, 96), metres ahead; the sky's is 300."""


def scenes(seed: int, domain: Domain, count: int, first: int = 0, look: Look | None = None) -> list[Scene]:
    """The scenes `first` to `first + count - 1` of a world."""
    return [scene(seed, domain, number, look) for number in range(first, first + count)]


def scene(seed: int, domain: Domain, number: int, look: Look | None = None) -> Scene:
    """Scene `number` of one domain of the world `seed`: a function of the arguments, whatever the others.

    `look`: another one than the domain's own.
    """
    if domain not in get_args(Domain):
        raise InputError(f"the domain is {domain!r}; it can be {', '.join(get_args(Domain))}")
    rng = np.random.default_rng((seed, get_args(Domain).index(domain), number))
    street = Street(rng)
    image = painted(rng, street, LOOKS[domain] if look is None else look)
    return Scene(image, street.label, street.depth.astype(np.float32))


class Street:
    """The geometry of a scene: class, depth and thing at each pixel; the nearest thing is seen."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        horizon = np.clip(rng.normal(0.40, 0.03) * HEIGHT, 15, 24)
        vanishing, self.camera = WIDTH / 2 + rng.normal(0, 6), 1.5 + rng.normal(0, 0.1)
        row, column = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        self.across, self.down = (column - vanishing) / FOCAL, (row - horizon) / FOCAL  # of a ray 1 m ahead
        self.label = np.full((HEIGHT, WIDTH), SKY, np.uint8)
        self.depth = np.full((HEIGHT, WIDTH), SKY_DEPTH)
        self.thing = np.zeros((HEIGHT, WIDTH), int)
        ground = self.camera / np.maximum(self.down, 1e-6)
        self._add(FLAT, ground < 3 * END, ground)
        for side in (-1, 1):
            self._walls(side)
        for kind, scale in SCALES.items():
            for _ in range(rng.integers(1, 4)):
                self._upright(kind, scale)

    def _add(self, kind: int, where: Array, depth: Array) -> None:
        seen = where & (depth < self.depth)
        self.label[seen], self.depth[seen], self.thing[seen] = kind, depth[seen], self.thing.max() + 1

    def _walls(self, side: int) -> None:
        """Along one side of the street: two hedges, and behind them two houses."""
        last = self.rng.uniform(12, 18)
        ends = (3, last * self.rng.uniform(0.4, 0.7), last, last * self.rng.uniform(1.5, 2), END)
        for number, (near, far) in enumerate(pairwise(ends)):
            self._wall(side, near, far, house=number >= 2)

    def _wall(self, side: int, near: float, far: float, house: bool) -> None:
        away = self.rng.uniform(5, 9) if house else self.rng.uniform(3.5, 5.5)
        tall = self.rng.uniform(6, 12) if house else self.rng.uniform(3, 6.5)
        first, second = self.rng.uniform(0, 2 * np.pi, 2)
        depth = away / np.maximum(side * self.across, 1e-6)
        above = self.camera - self.down * depth  # metres above the ground
        where = (depth >= near) & (depth < far) & (above >= 0)
        if house:
            self._add(CONSTRUCTION, where & (above < tall), depth)
            return
        top = tall * (0.75 + 0.25 * np.sin(1.5 * depth + first))
        bumps = 0.18 * np.sin(2.1 * depth + second) * np.sin(2.6 * above + first)
        self._add(NATURE, where & (above < top), depth * (1 + bumps))

    def _upright(self, kind: int, scale: float) -> None:
        """A box with a narrower top, somewhere on the street."""
        width, height = scale * self.rng.uniform(0.75, 0.95), scale * self.rng.uniform(1.6, 1.9)
        ahead = scale * float(np.exp(self.rng.uniform(*np.log(NEAREST))))
        middle = self.rng.uniform(-1, 1) * min(4.0, 0.75 * ahead)
        off, above = np.abs(self.across * ahead - middle), self.camera - self.down * ahead
        half = width / 2 * np.where(above > 0.75 * height, 0.6, 1)
        self._add(kind, (off < half) & (above >= 0) & (above < height), np.full_like(off, ahead))


def painted(rng: np.random.Generator, street: Street, look: Look) -> Array:
    """A photograph of the street, uint8 (48, 96, 3)."""
    grey = COLOURS.mean(1, keepdims=True)
    palette = COLOURS + look.grey * (grey - COLOURS) + rng.normal(0, look.by_class, COLOURS.shape)
    image = palette[street.label]
    image += rng.normal(0, look.by_thing, (street.thing.max() + 1, 3))[street.thing]
    if look.texture:
        for kind in np.unique(street.label):
            there = street.label == kind
            amount = look.texture * (0.4 if kind == SKY else 1)
            image[there] += amount * _patch(rng, int(kind))[there]
    clear = np.exp(-street.depth / look.haze)[..., None]
    hazy = HAZE + clear * (image - HAZE)
    image = np.where((street.label == SKY)[..., None], image, hazy)
    image = np.clip(image, 0, 1) ** look.gamma * look.cast
    return _bytes(image + rng.normal(0, look.noise, image.shape))


def _patch(rng: np.random.Generator, kind: int) -> Array:
    """A window of one of the class's photographs, (48, 96, 3), with the mean 0."""
    found = _textures(kind)
    texture = found[rng.integers(len(found))]
    top, left = (
        int(rng.integers(0, size - side + 1))
        for size, side in zip(texture.shape, (HEIGHT, WIDTH), strict=False)
    )
    patch = texture[top : top + HEIGHT, left : left + WIDTH]
    return patch[:, ::-1] if rng.random() < 0.5 else patch


@cache
def _textures(kind: int) -> list[Array]:
    """The class's photographs, each in two sizes, with the mean 0."""
    made = []
    for name, (left, top, right, bottom) in TEXTURES[kind]:
        photo = _photograph(name)
        height, width = photo.shape[:2]
        part = photo[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
        for scale in (1.15, 2.0):
            ratio = scale * max(HEIGHT / part.shape[0], WIDTH / part.shape[1])
            size = (max(WIDTH, round(part.shape[1] * ratio)), max(HEIGHT, round(part.shape[0] * ratio)))
            small = cv2.resize(part, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
            made.append(small - small.mean((0, 1)))
    return made


def _photograph(name: str) -> Array:
    """RGB, float32 in [0, 1]."""
    if name in photographs.NAMES:
        return photographs.load(name)
    from skimage import data

    return np.repeat((getattr(data, name)() / 255).astype(np.float32)[..., None], 3, 2)


def _bytes(image: Array) -> Array:
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)
