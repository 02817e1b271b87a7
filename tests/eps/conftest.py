"""Small data sets, prepared by the data scripts as the real ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from cvpr21lib.eps import data
from cvpr21lib.segmentation import masks
from data_scripts import coco2014, voc2012
from tests.eps import miniature


def draw_saliency(data_root: Path, dataset: data.DatasetName, splits: tuple[str, ...]) -> None:
    """Where the ground truth has an object, slightly blurred, for each image of the splits."""
    layout = data.find(data_root, dataset)
    folder = data.saliency_folder(layout)
    folder.mkdir()
    for split in splits:
        for name in layout.names(split):
            shown = masks.read(layout.mask(name), len(layout.classes) + 1) > 0
            blurred = Image.fromarray(shown).convert("L").filter(ImageFilter.GaussianBlur(1))
            blurred.save(folder / f"{name}.png")


@pytest.fixture
def miniature_voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a small, prepared VOC 2012 and returns the data_root that holds it.

    `train` images, `extra` more in train_aug, `val` ones, of about `size` (height, width), landscape and
    portrait by turns; saliency maps for train_aug and val, if asked for, in VOC2012_saliency.
    """

    def make(
        train: int = 3,
        extra: int = 3,
        val: int = 2,
        size: tuple[int, int] = (48, 64),
        saliency: bool = True,
        root: Path | None = None,
    ) -> Path:
        root = root or tmp_path / "data"
        raw = tmp_path / f"raw_{root.name}"
        ours, theirs = miniature.voc_and_sbd(raw, train, extra, val, size)
        archive = miniature.tar(theirs.parent, theirs.parent.name, raw / "benchmark.tgz")
        monkeypatch.setattr(voc2012, "SBD_ARCHIVE", miniature.described(archive))
        monkeypatch.setattr(voc2012, "COUNTS", miniature.voc_counts(train, extra, val))
        root.mkdir(parents=True, exist_ok=True)
        ours.rename(root / "VOC2012")
        voc2012.prepare(root / "VOC2012", sbd_archive=archive)
        if saliency:
            draw_saliency(root, "voc12", ("train_aug", "val"))
        return root

    return make


@pytest.fixture
def miniature_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a small, prepared COCO 2014 and returns the data_root that holds it.

    `train` and `val` annotated images of about `size`, and one without annotation in each split; saliency
    maps for both splits, if asked for, in COCO2014_saliency.
    """

    def make(
        train: int = 4,
        val: int = 2,
        size: tuple[int, int] = (48, 64),
        saliency: bool = True,
        root: Path | None = None,
    ) -> Path:
        root = root or tmp_path / "data"
        miniature.coco_2014(root / "COCO2014", train, val, size)
        monkeypatch.setattr(coco2014, "COUNTS", miniature.coco_counts(train, val))
        coco2014.prepare(root / "COCO2014", workers=1)
        if saliency:
            draw_saliency(root, "coco14", ("train", "val"))
        return root

    return make
