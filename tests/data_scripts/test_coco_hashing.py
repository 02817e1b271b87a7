"""MS COCO for hashing, from a prepared COCO 2014 in miniature: 20 images of train2014 and val2014."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import data, splits
from cvpr21lib.segmentation import coco, image_labels, layout
from data_scripts import coco_hashing, manifest
from tests.prosgan import miniature

NUMBER = 20
NAMES = [f"COCO_{'train' if i % 2 else 'val'}2014_{i + 1:012d}" for i in range(NUMBER)]
LABELS = (np.random.default_rng(0).random((NUMBER, 80)) < 0.4).astype(np.uint8)
"""Columns in COCO's own order."""


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(coco_hashing, "MS_COCO", replace(data.MS_COCO, counts=(6, 5, 15)))
    monkeypatch.setattr(coco_hashing, "ROWS", (6, 5, None))
    found = coco.COCO2014(tmp_path / "COCO2014")
    for i, name in enumerate(NAMES):
        miniature.picture(found.image(name), i, (20, 24))
    known = {name: np.flatnonzero(row).tolist() for name, row in zip(NAMES, LABELS, strict=True)}
    image_labels.write(found.root / layout.LABELS, known, coco.CLASSES)
    return tmp_path


def prepared(root: Path, **options: object) -> splits.Splits:
    coco_hashing.main(root=root, **options)
    return data.find(root, "MS-COCO").splits


def test_columns_are_in_alphabetical_order_as_the_official_ones(root):
    found = prepared(root)
    assert list(found.classes) == sorted(coco.CLASSES)
    assert [found.classes.index(name) for name in ("hair drier", "person", "toaster")] == [35, 49, 69]
    place = {f"{name[5:-13]}/{name}.jpg": i for i, name in enumerate(NAMES)}
    person = coco.CLASSES.index("person")
    for part in found.parts.values():
        rows = [place[image] for image in part.images]
        np.testing.assert_array_equal(part.labels[:, 49], LABELS[rows, person])
        np.testing.assert_array_equal(part.labels.sum(1), LABELS[rows].sum(1))


def test_the_images_are_read_where_coco_2014_has_them(root, capsys):
    prepared(root)
    found = data.find(root, "MS-COCO")
    photographs = {part: data.Photographs(found, part) for part in splits.NAMES}
    assert [len(part) for part in photographs.values()] == [6, 5, 15]
    assert photographs["test"][0]["image"].shape == (3, 224, 224)
    assert {image.split("/")[0] for image in photographs["database"].images} == {"train2014", "val2014"}
    coco_hashing.main(root=root, verify_only=True)
    assert "1 files, all as they were prepared" in capsys.readouterr().out


def test_one_seed_is_one_draw(root):
    first = prepared(root, seed=1)
    for seed, same in ((1, True), (2, False)):
        (root / "MS-COCO" / manifest.NAME).unlink()
        assert (prepared(root, seed=seed).parts["test"].images == first.parts["test"].images) == same


def test_official_lists_are_imported(root, tmp_path):
    images = [f"{name[5:-13]}/{name}.jpg" for name in NAMES]
    labels = LABELS[:, np.argsort(coco.CLASSES)]
    rows = {"train": range(5, 11), "test": range(5), "database": range(5, 20)}
    found = prepared(root, lists=miniature.lists(tmp_path / "lists", images, labels, rows))
    assert list(found.classes) == sorted(coco.CLASSES)
    assert found.parts["test"].images == tuple(images[:5])


def test_missing_images_are_named(root):
    coco.COCO2014(root / "COCO2014").image(NAMES[3]).unlink()
    with pytest.raises(
        InputError, match=rf"1 of 20 images are missing in .*COCO2014 \(train2014/{NAMES[3]}\.jpg\)"
    ):
        prepared(root)


def test_another_number_of_images_is_refused(root, monkeypatch):
    monkeypatch.setattr(coco_hashing, "MS_COCO", replace(data.MS_COCO, counts=(6, 5, 16)))
    with pytest.raises(InputError, match="database has 15 images instead of 16"):
        prepared(root)
    assert not (root / "MS-COCO").exists()


def test_coco_2014_must_be_prepared_first_and_lie_beside(root, tmp_path):
    with pytest.raises(InputError, match=r"COCO2014 was not found.*python -m data_scripts\.coco2014"):
        prepared(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"--root must be the folder that holds COCO2014"):
        prepared(root / "COCO2014")


def test_a_finished_data_set_is_left_alone(root, capsys):
    prepared(root)
    prepared(root, seed=9)
    assert "note: it was prepared before" in capsys.readouterr().err
