"""Portrait sessions with known truth: a person of one bundled photograph, set before the others.

A session is a group of photographs of one person in one place. From one to the next the framing and the pose
change a little, and so do the camera's exposure and white balance: that is what a retoucher has to even out.
The masks are exact, since people were set in by them. The expert is a formula that sees the scene before the
camera does, so in the targets only composition varies within a group. He lifts and warms people and calms
the rest: what no single colour map can do for a pixel whose colour is found in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFilter

from cvpr21lib.scenes import photographs

Image = np.ndarray[Any, Any]

PLACES = ("china", "coffee", "motorcycle", "rocket", "flower", "chelsea")
"""Photographs that serve as background."""
OUTLINE = (
    (35, 345), (45, 295), (70, 245), (112, 207), (118, 185), (140, 158), (170, 149), (173, 132), (169, 118),
    (156, 102), (153, 78), (163, 52), (187, 30), (215, 18), (246, 17), (274, 32), (294, 57), (301, 82),
    (297, 106), (280, 127), (272, 136), (267, 151), (256, 174), (280, 188), (299, 214), (304, 236),
    (318, 241), (335, 258), (346, 281), (361, 345),
)  # fmt: skip
"""Head and shoulders of the astronaut, (column, row) in pixels of her photograph."""
BUST = (35, 17, 361, 345)
"""Left, top, right and bottom of the outline."""
STATURE = (0.75, 1.0)
"""Height of the bust, in geometric means of the frame's sides."""
HEADROOM = 0.06
"""What is left above a head that has no room, as a share of the frame's height."""
COLLAR = 0.45
"""What lies lower, as a share of the bust's height, is the suit."""

EXPOSURE, WARMTH, TINT = (-0.8, 0.0), 0.18, 0.06
"""The camera's errors, in stops: its exposure's range; red over blue and magenta over green, up or down."""
PEOPLE, REST = np.array([0.62, 0.5, 0.34]), np.array([-0.31, -0.25, -0.15])
"""Stops that the expert adds to R, G, B: people lighter and warmer, the rest darker and cooler."""
LUMA = np.array([0.2126, 0.7152, 0.0722])
"""ITU-R BT.709."""


@dataclass(frozen=True)
class Portrait:
    """One photograph of a session; images float32 (H, W, 3), RGB in [0, 1]."""

    name: str
    """<group>_<number>."""
    clean: Image
    """The scene before the camera."""
    source: Image
    """What the camera made of it."""
    target: Image
    """What the expert makes of the scene."""
    mask: Image
    """Where the person is: bool (H, W)."""


def session(group: int, photos: int = 5, long: int = 84) -> list[Portrait]:
    """The photographs of one group, 3:2 or 2:3, with `long` pixels along the longer side.

    All of a session is a function of its arguments; a larger `long` shows the same scenes in more detail.
    """
    rng = np.random.default_rng(group)
    size = (long, long * 2 // 3) if rng.random() < 0.5 else (long * 2 // 3, long)
    place, mirrored = PLACES[rng.integers(len(PLACES))], rng.random() < 0.5
    zoom, centre = rng.uniform(0.55, 0.9), rng.uniform(0, 1, 2)
    dye, skin = rng.uniform(0.25, 0.95, 3), rng.uniform(0.75, 1.1)
    stature, stand = rng.uniform(*STATURE), rng.uniform(0.4, 0.6)
    portraits = []
    for number in range(photos):
        nearer, moved = rng.uniform(0.9, 1.1), rng.uniform(-0.1, 0.1, 2)
        wall = background(place, size, zoom * nearer, centre + moved, mirrored)
        taller, aside, turned = rng.uniform(0.92, 1.08), rng.uniform(-0.08, 0.08), rng.random() < 0.5
        bust, mask = person(size, stature * taller, stand + aside, turned)
        clean = np.where(mask[..., None], dressed(bust, mask, dye, skin), wall)
        stops, warmth, tint = rng.uniform(*EXPOSURE), rng.uniform(-WARMTH, WARMTH), rng.uniform(-TINT, TINT)
        source = camera(clean, stops, warmth, tint, *rng.uniform(0.7, 0.95, 2))
        clean, source, target = (image.astype(np.float32) for image in (clean, source, expert(clean, mask)))
        portraits.append(Portrait(f"{group}_{number}", clean, source, target, mask))
    return portraits


def background(place: str, size: tuple[int, int], zoom: float, centre: Image, mirrored: bool) -> Image:
    """A window of a photograph, slightly out of focus: (H, W, 3) in [0, 1].

    `zoom`: its share of the largest that fits; `centre` (x, y): where between the edges, 0 to 1.
    """
    photo = _photograph(place)
    height, width = size
    scale = min(photo.width / width, photo.height / height) * min(zoom, 1)
    spare = np.array([photo.width - width * scale, photo.height - height * scale])
    left, top = np.clip(centre, 0, 1) * spare
    box = (left, top, left + width * scale, top + height * scale)
    window = photo.resize((width, height), Pillow.Resampling.BICUBIC, box)
    blurred = np.asarray(window.filter(ImageFilter.GaussianBlur(max(size) / 100))) / 255
    return blurred[:, ::-1] if mirrored else blurred


def person(size: tuple[int, int], stature: float, stand: float, mirrored: bool) -> tuple[Image, Image]:
    """The bust before nothing, (H, W, 3), and where it is, bool (H, W).

    `stature`: its height, in geometric means of the frame's sides; what finds no room is cut off below the
    frame. `stand`: its middle, as a share of the frame's width.
    """
    height, width = size
    tall = round(stature * (height * width) ** 0.5)
    broad = round(tall * (BUST[2] - BUST[0]) / (BUST[3] - BUST[1]))
    top, left = max(height - tall, round(HEADROOM * height)), round(stand * width - broad / 2)
    layers = (_photograph("astronaut"), _outline())
    cut = [np.asarray(layer.resize((broad, tall), Pillow.Resampling.BICUBIC, BUST)) for layer in layers]
    bust = np.dstack(cut) / 255
    bust = bust[: height - top, :: -1 if mirrored else 1]
    frame = np.zeros((height, width, 4))
    inside = slice(max(left, 0), min(left + broad, width))
    frame[top:, inside] = bust[:, inside.start - left : inside.stop - left]
    return frame[..., :3], frame[..., 3] > 0.5


def dressed(bust: Image, mask: Image, dye: Image, skin: float) -> Image:
    """The person with the orange suit dyed another colour, and `skin` > 1 lighter, < 1 darker."""
    rows = np.flatnonzero(mask.any(1))
    below = np.arange(len(mask)) > rows[0] + COLLAR * len(rows)
    orange = np.clip(4 * (bust[..., 0] - bust[..., 2] - 0.25), 0, 1) * below[:, None]
    cloth = np.clip((bust @ LUMA)[..., None] / 0.42 * dye, 0, 1)
    return (bust + orange[..., None] * (cloth - bust)) ** (1 / skin)


def camera(
    scene: Image, stops: float, warmth: float, tint: float, contrast: float, saturation: float
) -> Image:
    """What a camera makes of a scene, (H, W, 3) in [0, 1]: wrong light and white balance, a flat curve."""
    gains = 2 ** (stops + np.array([warmth + tint / 2, -tint, -warmth + tint / 2]))
    flat = 0.06 + 0.94 * contrast * _encoded(_linear(scene) * gains)
    return _saturated(flat, saturation)


def expert(scene: Image, mask: Image) -> Image:
    """The retouched scene, (H, W, 3) in [0, 1]: people and the rest apart, then contrast and colour."""
    exposed = _encoded(_linear(scene) * 2 ** np.where(mask[..., None], PEOPLE, REST))
    return _saturated(0.5 * exposed**2 * (3 - 2 * exposed) + 0.5 * exposed, 1.15)


def _saturated(image: Image, factor: float) -> Image:
    luma = (image @ LUMA)[..., None]
    return np.clip(luma + factor * (image - luma), 0, 1)


def _linear(encoded: Image) -> Image:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _encoded(linear: Image) -> Image:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@cache
def _photograph(name: str) -> Pillow.Image:
    return Pillow.fromarray(np.rint(photographs.load(name) * 255).astype(np.uint8))


@cache
def _outline() -> Pillow.Image:
    drawn = Pillow.new("L", _photograph("astronaut").size)
    ImageDraw.Draw(drawn).polygon(OUTLINE, fill=255)
    return drawn
