"""MS COCO: its classes, its annotations as labels and masks, and COCO 2014 laid out by `data_scripts`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation.layout import Layout

if TYPE_CHECKING:
    from pycocotools.coco import COCO

CATEGORIES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train",
    8: "truck", 9: "boat", 10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter",
    15: "bench", 16: "bird", 17: "cat", 18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant",
    23: "bear", 24: "zebra", 25: "giraffe", 27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie",
    33: "suitcase", 34: "frisbee", 35: "skis", 36: "snowboard", 37: "sports ball", 38: "kite",
    39: "baseball bat", 40: "baseball glove", 41: "skateboard", 42: "surfboard", 43: "tennis racket",
    44: "bottle", 46: "wine glass", 47: "cup", 48: "fork", 49: "knife", 50: "spoon", 51: "bowl",
    52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot", 58: "hot dog",
    59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard",
    77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator",
    84: "book", 85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier",
    90: "toothbrush",
}  # fmt: skip
"""COCO's category numbers, which have gaps, and names."""

CLASSES = tuple(CATEGORIES.values())
CONTIGUOUS = {category: number for number, category in enumerate(CATEGORIES)}
"""Category numbers to 0 ... 79."""


MASKS = "SegmentationClass"


class COCO2014(Layout):
    """Splits: train (82,081) and val (40,137), the images that have an annotation."""

    folder = "COCO2014"
    script = "coco2014"
    classes = CLASSES

    def image(self, name: str) -> Path:
        return self.root / _part(name) / f"{name}.jpg"

    def mask(self, name: str) -> Path:
        return self.root / MASKS / _part(name) / f"{name}.png"

    def split_list(self, split: str) -> Path:
        return self.root / "ImageSets" / f"{split}.txt"


def _part(name: str) -> str:
    """train2014 of COCO_train2014_000000000009."""
    found = re.fullmatch(r"COCO_((?:train|val|test)2014)_\d{12}", name)
    if found is None:
        raise InputError(f"{name!r} is not a name of COCO 2014, such as COCO_train2014_000000000009.")
    return found[1]


def read_instances(path: Path) -> COCO:
    """The annotations `instances_*.json` through pycocotools, indexed by image.

    Raises:
        InputError: no such file, not COCO's JSON, or categories that are not COCO's 80.
    """
    from pycocotools.coco import COCO

    try:
        # pycocotools tells the standard output what it does
        with redirect_stdout(StringIO()):
            instances = COCO(str(path))
        found = {category["id"]: category["name"] for category in instances.dataset["categories"]}
    except FileNotFoundError as error:
        raise InputError(f"The annotations {path} do not exist; fetch them again.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, AssertionError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged, or not COCO's instance annotations ({error!r}).") from error
    if found != CATEGORIES:
        raise InputError(f"{path} has {len(found)} categories that are not COCO's {len(CATEGORIES)}.")
    return instances


def labels(annotations: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """The classes of the annotations of one image, ascending, 0 for person; crowds count."""
    return tuple(sorted({_class(annotation) for annotation in annotations}))


def semantic_mask(annotations: Sequence[Mapping[str, Any]], height: int, width: int) -> np.ndarray:
    """The class of each pixel, uint8 (height, width), 0 for background: all objects of one image painted over
    each other.

    Where objects overlap, the smaller one is on top (a cup before the table), and crowds, which are drawn
    roughly, lie below everything. There is no void. EPS's authors do not say how theirs were made.
    """
    from pycocotools import mask as run_lengths

    shapes = [_encoded(annotation, height, width) for annotation in annotations]

    def depth(index: int) -> tuple[bool, int, int]:
        """Painted first: crowds, then the largest."""
        crowd, area = bool(annotations[index].get("iscrowd", 0)), int(run_lengths.area(shapes[index]))
        return not crowd, -area, _class(annotations[index])

    mask = np.zeros((height, width), np.uint8)
    for index in sorted(range(len(shapes)), key=depth):
        mask[run_lengths.decode(shapes[index]).astype(bool)] = _class(annotations[index]) + 1
    return mask


def _class(annotation: Mapping[str, Any]) -> int:
    category = annotation["category_id"]
    if category not in CONTIGUOUS:
        raise InputError(
            f"Annotation {annotation.get('id')} is of category {category}, which COCO does not have."
        )
    return CONTIGUOUS[category]


def _encoded(annotation: Mapping[str, Any], height: int, width: int) -> Any:
    """Polygons, or run lengths (crowds), as compressed run lengths.

    A polygon of fewer than three points encloses nothing; pycocotools would take two points for a box.
    """
    from pycocotools import mask as run_lengths

    shape = annotation["segmentation"]
    try:
        if isinstance(shape, list):
            polygons = [polygon for polygon in shape if len(polygon) >= 6]
            drawn = run_lengths.frPyObjects(polygons, height, width) if polygons else []
            return run_lengths.merge([_nothing(height, width), *drawn])
        if list(shape["size"]) != [height, width]:
            raise ValueError(f"drawn on {shape['size']} instead of {[height, width]} pixels")
        return run_lengths.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"Annotation {annotation.get('id')} cannot be drawn ({error}).") from error


def _nothing(height: int, width: int) -> Any:
    from pycocotools import mask as run_lengths

    return run_lengths.encode(np.zeros((height, width), np.uint8, order="F"))
