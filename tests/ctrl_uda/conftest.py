"""Small data sets, prepared by the data scripts as the real ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data_scripts import cityscapes, mapillary, synthia
from tests.ctrl_uda import miniature


@pytest.fixture
def miniature_streets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes small SYNTHIA, Cityscapes and Mapillary Vistas, prepared, and returns the data_root of all three.

    Frames: `source` of SYNTHIA, `train` and `val` of each of the others. `depth`: also Cityscapes' disparity
    and cameras (SYNTHIA always has depth). Frames are 64 x 38, 64 x 32, and about 64 x 48 pixels, the last
    landscape and portrait by turns.
    """

    def make(
        source: int = 4, train: int = 3, val: int = 2, depth: bool = False, root: Path | None = None
    ) -> Path:
        root = root or tmp_path / "data"
        monkeypatch.setattr(synthia, "FRAMES", source)
        monkeypatch.setattr(cityscapes, "FRAMES", {"train": train, "val": val})
        monkeypatch.setattr(mapillary, "FRAMES", {"train": train, "val": val})
        miniature.synthia_raw(root / "Synthia/RAND_CITYSCAPES", source)
        miniature.cityscapes_raw(root / "Cityscapes", train, val, depth=depth)
        miniature.mapillary_raw(root / "Mapillary-Vista", train, val)
        synthia.prepare(root / "Synthia/RAND_CITYSCAPES", root, workers=1)
        cityscapes.prepare(root / "Cityscapes", root, depth, workers=1)
        mapillary.prepare(root / "Mapillary-Vista", root, workers=1)
        return root

    return make
