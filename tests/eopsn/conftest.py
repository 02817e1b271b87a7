"""A small COCO 2017, prepared by the data script as the real one is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cvpr21lib.segmentation.coco2017 import COCO2017
from data_scripts import coco_panoptic
from tests.eopsn import miniature


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Each size once."""
    made: dict[tuple[object, ...], Path] = {}

    def prepare(train: int, val: int, size: tuple[int, int]) -> Path:
        key = (train, val, size)
        if key not in made:
            root = tmp_path_factory.mktemp("coco2017")
            folder = miniature.coco_2017(root / COCO2017.folder, train, val, size)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(coco_panoptic, "COUNTS", miniature.counts(train, val))
                coco_panoptic.prepare(folder, workers=1)
            made[key] = root
        return made[key]

    return prepare


@pytest.fixture
def miniature_coco2017(tmp_path: Path, _prepared: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a small, prepared COCO 2017 and returns the data_root that holds it (`miniature.coco_2017`)."""

    def make(train: int = 4, val: int = 2, size: tuple[int, int] = (48, 64)) -> Path:
        shutil.copytree(_prepared(train, val, size), tmp_path / "data")
        return tmp_path / "data"

    return make
