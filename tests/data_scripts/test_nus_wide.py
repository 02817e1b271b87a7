"""NUS-WIDE from what a user can get, in miniature: 60 images, and the 3 most frequent of 5 concepts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import data, splits
from data_scripts import manifest, nus_wide
from tests.eps.miniature import zipped
from tests.prosgan import miniature

NUMBER, CONCEPTS = 60, ("animal", "book", "sky", "water", "zebra")
LABELS = (np.random.default_rng(0).random((NUMBER, 5)) < [0.5, 0.05, 0.6, 0.4, 0.1]).astype(np.uint8)
NAMES = [f"{i:04d}_{7 * i + 1000}.jpg" for i in range(NUMBER)]
SHOWN = np.flatnonzero(LABELS[:, [0, 2, 3]].any(1))


@pytest.fixture
def raw(tmp_path) -> Path:
    """Groundtruth, ImageList and a pack of images, as NUS's page and a request give them."""
    root = tmp_path / "raw"
    for folder in ("Groundtruth/AllLabels", "Groundtruth/TrainTestLabels", "ImageList"):
        (root / folder).mkdir(parents=True)
    for concept, column in zip(CONCEPTS, LABELS.T, strict=True):
        (root / f"Groundtruth/AllLabels/Labels_{concept}.txt").write_text("".join(f"{v}\n" for v in column))
        (root / f"Groundtruth/TrainTestLabels/Labels_{concept}_Train.txt").write_text("1\n")
    lines = [f"{CONCEPTS[i % 5]}\\{name} \n" for i, name in enumerate(NAMES)]
    (root / "ImageList/Imagelist.txt").write_text("".join(lines))
    (root / "ImageList/TrainImagelist.txt").write_text(lines[0])
    for i, name in enumerate(NAMES):
        miniature.picture(root / "pack/images" / name, i, (20, 24))
    return root


@pytest.fixture
def run(raw, tmp_path, monkeypatch):
    """Packs what is there now, and runs the script."""
    counts = 9, 6, len(SHOWN) - 6
    monkeypatch.setattr(nus_wide, "NUS_WIDE", replace(data.NUS_WIDE, classes=3, counts=counts))
    monkeypatch.setitem(data.BENCHMARKS, "NUS-WIDE", nus_wide.NUS_WIDE)
    monkeypatch.setattr(nus_wide, "ROWS", (9, 6, None))
    monkeypatch.setattr(nus_wide, "CONCEPTS", 5)
    monkeypatch.setattr(nus_wide, "LISTED", NUMBER)

    def call(**options: object) -> splits.Splits:
        given = {
            "annotations": [
                zipped(raw / part, tmp_path / f"{part}.zip") for part in ("Groundtruth", "ImageList")
            ],
            "images": zipped(raw / "pack", tmp_path / "pack.zip"),
            **options,
        }
        nus_wide.main(root=tmp_path / "data", accept_licence=True, **given)
        return data.find(tmp_path / "data", "NUS-WIDE").splits

    return call


def images(rows) -> tuple[str, ...]:
    return tuple(f"images/{NAMES[row]}" for row in rows)


def test_the_most_frequent_concepts_in_alphabetical_order_label_the_images_that_show_one(
    run, tmp_path, capsys
):
    found = run()
    assert found.classes == ("animal", "sky", "water")
    assert set(found.parts["test"].images) | set(found.parts["database"].images) == set(images(SHOWN))
    place = {image: i for i, image in enumerate(images(range(NUMBER)))}
    for part in found.parts.values():
        np.testing.assert_array_equal(
            part.labels, LABELS[[place[image] for image in part.images]][:, [0, 2, 3]]
        )
    assert [len(found.parts[name].images) for name in splits.NAMES] == [9, 6, len(SHOWN) - 6]
    nus_wide.main(root=tmp_path / "data", verify_only=True)
    assert "all as they were prepared" in capsys.readouterr().out


def test_every_concept_has_its_share_of_the_draw(run):
    found = run(seed=5)
    assert found.origin == "drawn by class with seed 5"
    assert (found.parts["test"].labels.sum(0) >= 2).all()
    assert (found.parts["train"].labels.sum(0) >= 3).all()


def test_one_seed_is_one_draw(run, tmp_path):
    first = run(seed=1)
    for seed, same in ((1, True), (2, False)):
        (tmp_path / "data/NUS-WIDE" / manifest.NAME).unlink()
        assert (run(seed=seed).parts["test"].images == first.parts["test"].images) == same


def test_official_lists_are_imported_and_their_columns_found_among_all_concepts(run, tmp_path, capsys):
    rows = {"train": SHOWN[6:15], "test": SHOWN[:6], "database": SHOWN[6:-1]}
    folder = miniature.lists(tmp_path / "lists", images(range(NUMBER)), LABELS[:, [3, 0, 2]], rows)
    found = run(lists=folder)
    assert found.classes == ("water", "animal", "sky")
    assert found.parts["train"].images == images(SHOWN[6:15])
    expected = len(SHOWN) - 6
    assert (
        f"database has {expected - 1} images instead of {expected}, a number that was"
        in capsys.readouterr().err
    )


def test_images_and_annotations_in_folders_are_used(run, raw, tmp_path):
    (tmp_path / "data/NUS-WIDE").mkdir(parents=True)
    (raw / "pack/images").rename(tmp_path / "data/NUS-WIDE/images")
    (raw / "pack").mkdir(exist_ok=True)
    assert len(run(images=None, annotations=[raw]).parts["test"].images) == 6


def test_what_is_not_given_is_named(run, raw, tmp_path):
    with pytest.raises(
        InputError, match=r"no AllLabels/.* and no Imagelist\.txt in what was given; give Ground"
    ):
        run(annotations=[])
    with pytest.raises(InputError, match=r"no Imagelist\.txt in .*Groundtruth; give"):
        run(annotations=[raw / "Groundtruth"])
    with pytest.raises(InputError, match=r"the images are not in .*NUS-WIDE/images; put them there, or"):
        run(images=None)
    assert not list((tmp_path / "data/NUS-WIDE").glob(".*")), "nothing half-done is left"


def test_missing_images_are_named(run, raw):
    for row in SHOWN[:7]:
        (raw / "pack/images" / NAMES[row]).unlink()
    with pytest.raises(InputError, match=rf"7 of {len(SHOWN)} images are missing in .*NUS-WIDE \(images/"):
        run()


def test_an_archive_without_images_is_refused(run, raw, tmp_path):
    with pytest.raises(InputError, match="holds no images; is it another archive"):
        run(images=zipped(raw / "ImageList", tmp_path / "other.zip"))


def test_annotations_that_do_not_fit_together_are_refused(run, raw):
    path = raw / "Groundtruth/AllLabels/Labels_sky.txt"
    path.write_text(path.read_text() + "1\n")
    with pytest.raises(
        InputError, match=r"Labels_sky\.txt is damaged: it has 61 values, expected 60 of 0 and 1"
    ):
        run()
    path.unlink()


def test_a_missing_concept_is_noticed(run, raw):
    (raw / "Groundtruth/AllLabels/Labels_zebra.txt").unlink()
    with pytest.raises(InputError, match=r"60 images \(60 names\) and 4 concepts; expected 60 and 5"):
        run()


def test_other_labels_than_the_papers_are_noticed(run, monkeypatch):
    monkeypatch.setattr(nus_wide, "NUS_WIDE", replace(nus_wide.NUS_WIDE, counts=(9, 6, 40)))
    with pytest.raises(
        InputError, match=rf"{len(SHOWN)} images show one of the 3 most frequent concepts, not 46"
    ):
        run()


def test_the_terms_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match="--accept-licence"):
        nus_wide.main(root=tmp_path / "data")
    assert not (tmp_path / "data").exists()
