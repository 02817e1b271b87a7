"""SYNTHIA-RAND-CITYSCAPES: 9,400 rendered street frames with ids and depth, as `data_scripts.synthia` lays it
out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import deep_png
from cvpr21lib.segmentation.streets import Streets, require_ids

CLASSES = (
    "void", "sky", "building", "road", "sidewalk", "fence", "vegetation", "pole", "car", "traffic sign",
    "pedestrian", "bicycle", "motorcycle", "parking slot", "road work", "traffic light", "terrain", "rider",
    "truck", "bus", "train", "wall", "lane marking",
)  # fmt: skip
"""By SYNTHIA's id."""


class Synthia(Streets):
    """Its one split is "train"; names are seven digits."""

    FOLDER = "Synthia/RAND_CITYSCAPES"
    ELSEWHERE = ("SYNTHIA/RAND_CITYSCAPES", "RAND_CITYSCAPES")
    SCRIPT = "synthia"
    SPELLINGS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "images": ("RGB",),
        "labels": ("parsed_LABELS",),
        "depth": ("Depth/Depth", "Depth"),
        "packed labels": ("GT/LABELS",),
    }
    LAST_ID = len(CLASSES) - 1

    def image(self, split: str, name: str) -> Path:
        return self.root / self.folders["images"] / f"{name}.png"

    def label(self, split: str, name: str) -> Path:
        return self.root / self.folders["labels"] / f"{name}.png"

    def depth_files(self, split: str, name: str) -> tuple[Path, ...]:
        return (self.root / self.folders["depth"] / f"{name}.png",)

    def depth(self, split: str, name: str) -> np.ndarray:
        """As rendered: whole centimetres up to 65,535, which is also the sky's."""
        return deep_png.read(*self.depth_files(split, name)).astype(np.float32)


def unpack_ids(path: Path) -> np.ndarray:
    """Ids uint8 (H, W) out of a file of GT/LABELS: the first of three 16-bit channels (the second numbers the
    objects).

    Raises:
        InputError: a damaged file, one of 8 bits, or a first channel that cannot be the classes': numbers
            beyond SYNTHIA's, or nothing but void.
    """
    first = deep_png.read_channels(path)[..., 0]
    require_ids(first, Synthia.LAST_ID, path)
    if not first.any():
        raise InputError(
            f"{path} has nothing but void in its first channel, where SYNTHIA has the classes; were its "
            "channels put into another order? Take the original file out of its archive again."
        )
    return first.astype(np.uint8)
