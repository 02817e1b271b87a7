"""SYNTHIA, Cityscapes and Mapillary Vistas in miniature, laid out as their publishers lay them out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cvpr21lib.segmentation import cityscapes, mapillary, synthia
from tests.conftest import photograph

SYNTHIA_SHOWN = (2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 17, 19, 21)
CITYSCAPES_SHOWN = (8, 11, 12, 13, 17, 19, 20, 21, 22, 24, 25, 26, 28, 32, 33)
MAPILLARY_SHOWN = (17, 30, 45, 20, 55, 3, 65)
"""Ids of what stands between sky and road, by turns."""

CITIES = {"train": ("aachen", "bremen"), "val": ("frankfurt", "munster")}


def street(
    seed: int, height: int, width: int, sky: int, road: int, shown: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture uint8 (H, W, 3), its ids uint8 (H, W), and depth in centimetres uint16 (H, W).

    Sky above, road below, and before both four boxes of different ids, the nearer the lower.
    """
    rng = np.random.default_rng(seed)
    ids = np.full((height, width), sky, np.uint8)
    depth = np.full((height, width), 65535, np.uint16)
    rows = np.arange(height // 2, height)
    ids[rows] = road
    depth[rows] = (20_000 / (rows - height // 2 + 2))[:, None].astype(np.uint16)
    for number in range(4):
        bottom, left = height // 2 + (number + 1) * height // 10, number * width // 4
        box = np.s_[bottom - height // 3 : bottom, left : left + int(rng.integers(width // 8, width // 4))]
        ids[box], depth[box] = shown[(4 * seed + number) % len(shown)], depth[bottom, 0]
    colours = np.random.default_rng(0).integers(40, 216, (256, 3))
    image = np.clip(photograph(seed, height, width) * 0.25 + colours[ids] * 0.75, 0, 255).astype(np.uint8)
    return image, ids, depth


def synthia_raw(folder: Path, frames: int = 4, size: tuple[int, int] = (38, 64)) -> Path:
    """`folder`, which becomes RAND_CITYSCAPES as it comes out of the archive."""
    for part in ("RGB", "GT/LABELS", "GT/COLOR", "Depth/Depth"):
        (folder / part).mkdir(parents=True)
    for number in range(frames):
        image, ids, depth = street(number, *size, sky=1, road=3, shown=SYNTHIA_SHOWN)
        name = f"{number:07d}.png"
        Image.fromarray(image).save(folder / "RGB" / name)
        Image.fromarray(image).save(folder / "GT/COLOR" / name)
        objects = np.where(np.isin(ids, (8, 10, 11, 12)), 900 + ids.astype(np.uint16), 0)
        write_channels(folder / "GT/LABELS" / name, ids, objects, np.zeros_like(ids))
        write_channels(folder / "Depth/Depth" / name, depth, depth, depth)
    assert set(SYNTHIA_SHOWN) < set(range(len(synthia.CLASSES)))
    return folder


def cityscapes_raw(
    folder: Path,
    train: int = 3,
    val: int = 2,
    size: tuple[int, int] = (32, 64),
    depth: bool = True,
    folders: str = "{}",
) -> Path:
    """`folder` with leftImg8bit, gtFine, and, with `depth`, disparity and camera.

    `folders`: where they are for the official code, "{0}_trainvaltest/{0}".
    """
    places = {
        kind: folder / folders.format(kind) for kind in ("leftImg8bit", "gtFine", "disparity", "camera")
    }
    for split, count in {"train": train, "val": val}.items():
        for number in range(count):
            city = CITIES[split][number % 2]
            seed = number + (100 if split == "val" else 0)
            image, ids, far = street(seed, *size, sky=23, road=7, shown=CITYSCAPES_SHOWN)
            files = {kind: place / split / city for kind, place in places.items()}
            for kind, path in files.items():
                if depth or kind in ("leftImg8bit", "gtFine"):
                    path.mkdir(parents=True, exist_ok=True)
            name = f"{city}_{number:06d}_000019"
            Image.fromarray(image).save(files["leftImg8bit"] / f"{name}_leftImg8bit.png")
            Image.fromarray(ids).save(files["gtFine"] / f"{name}_gtFine_labelIds.png")
            Image.fromarray(image).save(files["gtFine"] / f"{name}_gtFine_color.png")
            if depth:
                camera = {"extrinsic": {"baseline": 0.209313}, "intrinsic": {"fx": 2262.52}}
                (files["camera"] / f"{name}_camera.json").write_text(json.dumps(camera))
                disparity = pack_disparity(far / 100, cityscapes.Camera(0.209313, 2262.52))
                Image.fromarray(disparity).save(files["disparity"] / f"{name}_disparity.png")
    return folder


def pack_disparity(metres: np.ndarray, camera: cityscapes.Camera) -> np.ndarray:
    """As Cityscapes stores it, uint16; the left columns are not known, the farthest pixels do not move."""
    packed = np.rint(camera.baseline * camera.fx / metres * 256 + 1).astype(np.uint16)
    packed[metres > 600] = 1
    packed[:, :4] = 0
    return packed


def mapillary_raw(
    folder: Path,
    train: int = 3,
    val: int = 2,
    size: tuple[int, int] = (48, 64),
    folders: tuple[str, str] = ("training", "labels"),
) -> Path:
    """`folder` with training and validation, images of different shapes, landscape and portrait by turns.

    `folders`: what the training part and that of the labels are called.
    """
    for split, part, count in (("train", folders[0], train), ("val", "validation", val)):
        images, labels = folder / part / "images", folder / part / folders[1]
        images.mkdir(parents=True), labels.mkdir(parents=True)
        for number in range(count):
            height, width = size[0] + number, size[1] + 3 * number
            height, width = (width, height) if number % 2 else (height, width)
            seed = number + (100 if split == "val" else 0)
            image, ids, _ = street(seed, height, width, sky=27, road=13, shown=MAPILLARY_SHOWN)
            ids[-2:] = mapillary.VOID
            name = f"{split}-{number}_x7Y"
            Image.fromarray(image).save(images / f"{name}.jpg", quality=95)
            label = Image.fromarray(ids)
            label.putpalette(np.arange(768).astype(np.uint8).tobytes())
            label.save(labels / f"{name}.png")
    return folder


def write_channels(path: Path, red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> None:
    """A PNG of three 16-bit channels."""
    assert cv2.imwrite(str(path), np.dstack([blue, green, red]).astype(np.uint16))
