"""COCO 2014 from its archives, in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvpr21lib.eps import data
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import coco, masks
from data_scripts import coco2014, manifest
from tests.eps import miniature


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    """Four annotated images of train, two of val, and one more of each without annotation."""
    monkeypatch.setattr(coco2014, "COUNTS", miniature.coco_counts())


@pytest.fixture
def raw(tmp_path) -> Path:
    """What the three archives hold."""
    return miniature.coco_2014(tmp_path / "raw")


@pytest.fixture
def run(raw, tmp_path, monkeypatch):
    """Packs what is there now, and runs the script on the archives."""

    def call(**options: object) -> Path:
        (tmp_path / "archives").mkdir(exist_ok=True)
        packed = {
            part: miniature.zipped(raw / part, tmp_path / "archives" / archive.name)
            for part, archive in coco2014.ARCHIVES.items()
        }
        described = {part: miniature.described(path) for part, path in packed.items()}
        monkeypatch.setattr(coco2014, "ARCHIVES", described)
        given = {"archives": tmp_path / "archives", "workers": 2, **options}
        coco2014.main(root=tmp_path / "data", accept_licence=True, **given)
        return tmp_path / "data" / "COCO2014"

    return call


def edit(raw: Path, split: str, change) -> None:
    path = raw / f"annotations/instances_{split}2014.json"
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


def test_what_must_arrive_is_what_the_sheet_says():
    assert {part: archive.name for part, archive in coco2014.ARCHIVES.items()} == {
        "train2014": "train2014.zip",
        "val2014": "val2014.zip",
        "annotations": "annotations_trainval2014.zip",
    }
    assert [round(archive.size / 1e9, 1) for archive in coco2014.ARCHIVES.values()] == [13.5, 6.6, 0.3]


def test_the_splits_are_the_papers(monkeypatch):
    monkeypatch.undo()
    assert coco2014.COUNTS == {"train": (82_783, 82_081), "val": (40_504, 40_137)}


def test_three_archives_become_a_data_set_that_the_library_finds(run, tmp_path, capsys):
    folder = run()
    layout = data.find(tmp_path / "data", "coco14")
    assert layout.names("train") == tuple(f"COCO_train2014_{number:012d}" for number in (1, 8, 15, 22))
    assert len(data.Folders(layout, "train", masks=True).names) == 4
    assert len(data.Folders(layout, "val", masks=True).names) == 2
    assert manifest.verify(folder) == 19
    assert {path.name for path in folder.parent.iterdir()} == {"COCO2014"}
    shown = capsys.readouterr()
    assert "Terms of Use" in shown.err
    assert "CC BY 4.0" in shown.err
    assert "is ready" in shown.out


def test_images_without_annotation_are_in_no_list(run, tmp_path):
    folder = run()
    assert len(list((folder / "train2014").iterdir())) == 5
    assert "000000000029" not in (folder / "ImageSets/train.txt").read_text()


def test_labels_and_masks_agree_and_crowds_count_in_both(run, tmp_path):
    run()
    layout = data.find(tmp_path / "data", "coco14")
    labels = layout.labels()
    for split in ("train", "val"):
        for name in layout.names(split):
            assert masks.classes(masks.read(layout.mask(name), 81)) == labels[name]
    person, train = (coco.CLASSES.index(name) for name in ("person", "train"))
    assert labels["COCO_train2014_000000000001"] == (person, train)


def test_masks_of_ones_own_are_used_but_must_be_all_there(run, raw, tmp_path):
    folder = run()
    own = tmp_path / "own"
    (folder / coco.MASKS).rename(own)
    (folder / manifest.NAME).unlink()
    victim = own / "val2014/COCO_val2014_000000000009.png"
    masks.write(victim, np.full_like(masks.read(victim, 81), 80))
    own.rename(folder / coco.MASKS)
    run(archives=None)
    assert (masks.read(folder / coco.MASKS / "val2014" / victim.name, 81) == 80).all()
    (folder / manifest.NAME).unlink()
    (folder / coco.MASKS / "val2014" / victim.name).unlink()
    with pytest.raises(
        InputError, match=r"1 of 6 images have no mask .*COCO_val2014_000000000009.*remove the"
    ):
        run(archives=None)


def test_an_interrupted_preparation_goes_on_where_it_stopped(run, raw, tmp_path):
    def damage(contents):
        contents["annotations"][0]["segmentation"] = {"size": [1, 1], "counts": [0, 1]}

    whole = (raw / "annotations/instances_val2014.json").read_bytes()
    edit(raw, "val", damage)
    with pytest.raises(InputError, match=r"Annotation 0 cannot be drawn \(drawn on \[1, 1\]"):
        run()
    folder = tmp_path / "data/COCO2014"
    assert not list(folder.glob(".*")), "nothing half-done is left"
    assert not (folder / coco.MASKS).exists()
    with pytest.raises(InputError, match="COCO2014 is there but not prepared"):
        data.find(tmp_path / "data", "coco14")
    (folder / "annotations/instances_val2014.json").write_bytes(whole)
    run(archives=tmp_path / "not needed again")
    assert manifest.verify(folder) == 19


def test_a_finished_data_set_is_left_alone_and_verified(run, tmp_path, capsys):
    folder = run()
    run(archives=None)
    assert "note: it was prepared before" in capsys.readouterr().err
    run(verify_only=True)
    assert "19 files, all as they were prepared" in capsys.readouterr().out
    (folder / "ImageSets/val.txt").write_text("COCO_val2014_000000000002\n")
    with pytest.raises(InputError, match=r"1 changed \(ImageSets/val\.txt\)"):
        run(verify_only=True)


def test_an_archive_is_fetched_where_none_is_given(raw, tmp_path, site, monkeypatch):
    root = tmp_path / "data/COCO2014"
    root.mkdir(parents=True)
    for part in ("train2014", "val2014"):
        (raw / part).rename(root / part)
    archive = miniature.zipped(raw / "annotations", tmp_path / "annotations_trainval2014.zip")
    site.content = archive.read_bytes()
    described = miniature.described(archive, site.url.replace("data.zip", archive.name))
    monkeypatch.setitem(coco2014.ARCHIVES, "annotations", described)
    coco2014.main(root=tmp_path / "data", accept_licence=True)
    assert manifest.verify(root) == 19
    assert len(site.requests) == 1, "what was there is not fetched again"


def test_the_terms_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match="--accept-licence"):
        coco2014.main(root=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_all_problems_are_named_at_once(run, raw):
    (raw / "train2014/COCO_train2014_000000000008.jpg").unlink()
    Image.new("RGB", (7, 5)).save(raw / "val2014/COCO_val2014_000000000002.jpg")
    edit(raw, "val", lambda contents: contents["images"].pop())
    with pytest.raises(InputError) as error:
        run()
    for part in (
        "1 images of train are missing (COCO_train2014_000000000008)",
        "val has 2 images, 2 of them annotated, instead of 3 and 2",
        "1 images of val differ in size from the annotations (COCO_val2014_000000000002)",
    ):
        assert part in str(error.value)


def test_a_label_outside_of_the_classes_is_named(run, raw):
    edit(raw, "train", lambda contents: contents["annotations"][1].update(category_id=12))
    with pytest.raises(InputError, match="Annotation 1 is of category 12, which COCO does not have"):
        run()


def test_another_archive_is_refused(run, raw):
    (raw / "val2014").rename(raw / "val2017")
    (raw / "val2014").mkdir()
    (raw / "val2017").rename(raw / "val2014" / "nested")
    with pytest.raises(InputError, match=r"images of val are missing"):
        run()
