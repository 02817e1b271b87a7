"""COCO 2017 with panoptic annotations in miniature, laid out as its publisher lays it out."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cvpr21lib.segmentation import coco, coco2017, panoptic
from cvpr21lib.segmentation.panoptic import Segment
from data_scripts import coco_panoptic
from data_scripts.coco_panoptic import Count, Source
from tests.conftest import photograph

SKY, GRASS = 187, 193
PERSON, DOG, CAR, COW, BOAT, BANANA = 1, 18, 3, 21, 9, 52
UNKNOWN = (CAR, BANANA, COW, BOAT)
"""By turns, one of the unknown things of each image: of K = 5, 20, 5 and 10."""
NAMED = "veranda_at-noon"
"""The id and name of the one training image that has no number."""


def coco_2017(folder: Path, train: int = 4, val: int = 2, size: tuple[int, int] = (48, 64)) -> Path:
    """`folder` with train2017/, val2017/ and annotations/; `train` + 1 and `val` + 1 images.

    Image i shows sky above grass, a person, a dog, UNKNOWN[i % 4], UNKNOWN[(i + 1) % 4], and a spot that is
    labelled as nothing; every third one a crowd of people. Training image 1 is `NAMED`. The last image of
    each split has no instance, and nothing but grass.
    """
    (folder / "annotations").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        _write_split(folder, split, count, size)
    return folder


def counts(train: int = 4, val: int = 2) -> dict[str, Count]:
    """What the script should find in `coco_2017`."""
    return {
        split: Count(count + 1, 4 * count + len(range(0, count, 3)))
        for split, count in (("train", train), ("val", val))
    }


def archives(folder: Path, to: Path) -> tuple[Source, ...]:
    """Pack `coco_2017` as COCO does, panoptic PNGs as archives in an archive; their descriptions."""
    to.mkdir(exist_ok=True)
    described = []
    for archive in coco_panoptic.ARCHIVES:
        with zipfile.ZipFile(to / archive.name, "w") as packed:
            for part in archive.holds:
                path = folder / part
                if path.is_dir() and part.startswith("annotations/"):
                    inner = zipped(path, to / "inner.zip", path.name)
                    packed.write(inner, f"{part}.zip")
                    inner.unlink()
                elif path.is_dir():
                    for file in sorted(path.iterdir()):
                        packed.write(file, f"{part}/{file.name}")
                elif path.is_file():
                    packed.write(path, part)
            packed.writestr("__MACOSX/._annotations", b"left by a Mac, as in COCO's own")
        content = (to / archive.name).read_bytes()
        described.append(archive._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest()))
    return tuple(described)


def zipped(folder: Path, archive: Path, name: str) -> Path:
    """The files of `folder` as `name`/..., in an archive whose count of files is as wrong as COCO's."""
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.iterdir()):
            packed.write(file, f"{name}/{file.name}")
    content = bytearray(archive.read_bytes())
    content[-14:-10] = (1).to_bytes(2, "little") * 2  # the end record's two counts
    archive.write_bytes(content)
    return archive


def _write_split(folder: Path, split: str, count: int, size: tuple[int, int]) -> None:
    (folder / f"{split}2017").mkdir()
    pngs = folder / f"annotations/panoptic_{split}2017"
    pngs.mkdir()
    images, instances, annotations = [], [], []
    for number in range(count + 1):
        identity: Any = number * 7 + (2 if split == "val" else 1)
        name = f"{identity:012d}"
        if split == "train" and number == 1:
            identity = name = NAMED
        image, ids, segments, objects = scene(number, split, size, empty=number == count)
        height, width = ids.shape
        Image.fromarray(image).save(folder / f"{split}2017" / f"{name}.jpg", quality=95)
        panoptic.write_png(pngs / f"{name}.png", ids)
        images.append({"id": identity, "file_name": f"{name}.jpg", "height": height, "width": width})
        info = [
            {"id": one.id, "category_id": one.category, "iscrowd": int(one.crowd), "area": one.area}
            for one in segments
        ]
        annotations.append({"image_id": identity, "file_name": f"{name}.png", "segments_info": info})
        for one in objects:
            instances.append({"id": len(instances) + 1, "image_id": identity, **one})
    things = [{"id": number, "name": name} for number, name in coco.CATEGORIES.items()]
    everything = [
        {"id": number, "name": one.name, "isthing": int(one.isthing)}
        for number, one in coco2017.CATEGORIES.items()
    ]
    write_json(
        folder / f"annotations/instances_{split}2017.json",
        {"images": images, "annotations": instances, "categories": things},
    )
    write_json(
        folder / f"annotations/panoptic_{split}2017.json",
        {"images": images, "annotations": annotations, "categories": everything},
    )


def scene(
    number: int, split: str, size: tuple[int, int], empty: bool = False
) -> tuple[np.ndarray, np.ndarray, list[Segment], list[dict[str, Any]]]:
    """A picture uint8 (H, W, 3), its ids (H, W), its segments, and its things as instance annotations."""
    height, width = size[0] + number % 3, size[1] + number % 5
    image = photograph(number + (100 if split == "val" else 0), height, width).copy()
    ids = np.zeros((height, width), np.int32)
    stuff = [GRASS] if empty else [SKY, GRASS]
    drawn: list[tuple[int, bool]] = []
    objects: list[dict[str, Any]] = []

    def paint(where: Any, category: int, crowd: bool = False) -> None:
        drawn.append((category, crowd))
        ids[where] = segment_id(len(drawn))
        image[where] = (image[where] // 2) + np.array(_colour(category), np.uint8) // 2

    for index, category in enumerate(stuff):
        paint(np.s_[height * index // len(stuff) : height * (index + 1) // len(stuff)], category)
    if not empty:
        # a row of places, turned on by one from image to image
        places = np.roll(np.arange(6), number) * width // 6
        side, top = width // 6 - 1, height // 3
        if number % 3 == 0:
            paint(np.s_[: height // 6], PERSON, crowd=True)
            objects.append(_crowd(height, width, height // 6))
        shown = PERSON, DOG, UNKNOWN[number % 4], UNKNOWN[(number + 1) % 4]
        for left, category in zip(places.tolist(), shown, strict=False):
            paint(np.s_[top : top + 2 * side, left : left + side], category)
            objects.append(_object(category, left, top, side, 2 * side))
        ids[top : top + 2 * side, places[4] : places[4] + side] = panoptic.VOID
    areas = {int(one): int(many) for one, many in zip(*np.unique(ids, return_counts=True), strict=True)}
    segments = [
        Segment(segment_id(index), category, crowd, areas[segment_id(index)])
        for index, (category, crowd) in enumerate(drawn, 1)
    ]
    return image, ids, segments, objects


def segment_id(index: int) -> int:
    """Of the index-th segment of an image; all three channels of its colour count."""
    return 70_000 * index + 300


def _colour(category: int) -> Sequence[int]:
    return np.random.default_rng(category).integers(0, 256, 3).tolist()


def _object(category: int, left: int, top: int, width: int, height: int) -> dict[str, Any]:
    right, bottom = left + width, top + height
    return {
        "category_id": category,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def _crowd(height: int, width: int, bottom: int) -> dict[str, Any]:
    """The people in the first `bottom` rows, as run lengths, which go down the columns."""
    runs = [0, *([bottom, height - bottom] * width)]
    return {
        "category_id": PERSON,
        "segmentation": {"size": [height, width], "counts": runs},
        "bbox": [0, 0, width, bottom],
        "area": width * bottom,
        "iscrowd": 1,
    }


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
