"""Mapillary Vistas from its archive, in miniature."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation.mapillary import MapillaryVistas
from data_scripts import manifest, mapillary
from tests.ctrl_uda import miniature
from tests.eps.miniature import zipped


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(mapillary, "FRAMES", {"train": 3, "val": 2})


def run(root: Path, **options: object) -> MapillaryVistas:
    mapillary.main(root=root, **{"workers": 2, "accept_licence": True, **options})
    return MapillaryVistas.find(root)


def test_there_are_18000_and_2000_frames_of_66_ids(monkeypatch):
    monkeypatch.undo()
    assert mapillary.FRAMES == {"train": 18_000, "val": 2_000}
    assert MapillaryVistas.LAST_ID == 65


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_the_archive_becomes_a_data_set_that_the_library_finds(tmp_path, version, capsys):
    raw = miniature.mapillary_raw(tmp_path / "raw")
    archive = tmp_path / f"mapillary-vistas-dataset_public_v{version}.zip"
    zipped(raw, archive)
    data = run(tmp_path / "data", archives=tmp_path)
    assert data.root == tmp_path / "data/Mapillary-Vista"
    assert data.frames("train") == (
        ("train-0_x7Y", 48, 64),
        ("train-1_x7Y", 67, 49),
        ("train-2_x7Y", 50, 70),
    )
    assert (data.ids("val", "val-1_x7Y")[-1] == 65).all()
    assert manifest.verify(data.root) == 11
    assert "research edition" in capsys.readouterr().err


@pytest.mark.parametrize("train", ["training", "train"])
@pytest.mark.parametrize("labels", ["labels", "v1.2/labels"])
def test_all_spellings_of_the_folders_are_taken(tmp_path, train, labels):
    miniature.mapillary_raw(tmp_path / "Mapillary-Vista", folders=(train, labels))
    data = run(tmp_path)
    assert data.folders["train labels"] == f"{train}/{labels}"
    assert data.label("train", "train-2_x7Y").is_file()


def test_the_labels_of_another_edition_are_recognised(tmp_path):
    miniature.mapillary_raw(tmp_path / "Mapillary-Vista", folders=("training", "v2.0/labels"))
    with pytest.raises(
        InputError, match=r"labels of v2\.0 alone, with 124 classes; CTRL-UDA uses the 66 of v1"
    ):
        run(tmp_path)


def test_an_id_of_another_edition_is_named(tmp_path):
    miniature.mapillary_raw(tmp_path / "Mapillary-Vista")
    path = tmp_path / "Mapillary-Vista/validation/labels/val-0_x7Y.png"
    Image.fromarray(np.full((48, 64), 123, np.uint8)).save(path)
    with pytest.raises(InputError, match=r"val-0_x7Y\.png holds the ids 123; expected 0 to 65"):
        run(tmp_path)


def test_all_problems_are_named_at_once(tmp_path):
    folder = miniature.mapillary_raw(tmp_path / "Mapillary-Vista")
    (folder / "training/images/train-0_x7Y.jpg").unlink()
    (folder / "training/labels/train-1_x7Y.png").unlink()
    Image.new("P", (70, 49)).save(folder / "training/labels/train-2_x7Y.png")
    (folder / "validation/images/val-0_x7Y.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError) as error:
        run(tmp_path)
    for part in (
        "2 images for train instead of 3",
        "1 frames without label (train-1_x7Y)",
        "train-2_x7Y.png has 70 x 49",
        "val-0_x7Y.jpg is damaged or cut short (it is no picture)",
    ):
        assert part in str(error.value)


def test_a_folder_that_is_missing_is_named(tmp_path):
    folder = miniature.mapillary_raw(tmp_path / "Mapillary-Vista")
    shutil.rmtree(folder / "validation/labels")
    with pytest.raises(InputError, match="has no folder validation/labels; unpack the archive again"):
        run(tmp_path)


def test_a_missing_archive_is_named_with_where_to_get_it(tmp_path):
    with pytest.raises(
        InputError, match=r"public_v1\.2\.zip or .*\(about 25 GB\); not in .*Register at http"
    ):
        run(tmp_path)


def test_an_archive_of_something_else_leaves_nothing_behind(tmp_path):
    (tmp_path / "raw/other").mkdir(parents=True)
    zipped(tmp_path / "raw", tmp_path / "mapillary-vistas-dataset_public_v1.2.zip")
    with pytest.raises(InputError, match="holds no folder training or train; is it another archive"):
        run(tmp_path / "data", archives=tmp_path)
    assert not list((tmp_path / "data").iterdir())


def test_the_terms_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match="--accept-licence"):
        run(tmp_path / "data", accept_licence=False)
    assert not (tmp_path / "data").exists()


def test_a_finished_data_set_is_left_alone_and_verified(tmp_path, capsys):
    miniature.mapillary_raw(tmp_path / "Mapillary-Vista")
    run(tmp_path)
    run(tmp_path)
    assert "it was prepared before" in capsys.readouterr().err
    mapillary.main(root=tmp_path, verify_only=True)
    assert "11 files, all as they were prepared" in capsys.readouterr().out
