"""Mapillary Vistas v1 (66 classes): street photographs of many sizes, as `data_scripts.mapillary` lays them
out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from cvpr21lib.segmentation.streets import Streets

VOID = 65
"""The id of what has no class."""


class MapillaryVistas(Streets):
    """Splits: train (18,000) and val (2,000)."""

    FOLDER = "Mapillary-Vista"
    ELSEWHERE = ("Mapillary-Vistas", "mapillary")
    SCRIPT = "mapillary"
    SPELLINGS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train images": ("training/images", "train/images"),
        "val images": ("validation/images",),
        "train labels": ("training/labels", "train/labels", "training/v1.2/labels", "train/v1.2/labels"),
        "val labels": ("validation/labels", "validation/v1.2/labels"),
    }
    LAST_ID = VOID

    def image(self, split: str, name: str) -> Path:
        return self.root / self.folders[f"{split} images"] / f"{name}.jpg"

    def label(self, split: str, name: str) -> Path:
        return self.root / self.folders[f"{split} labels"] / f"{name}.png"
