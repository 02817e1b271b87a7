"""COCO 2017 with panoptic annotations from its archives, in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import coco2017, panoptic, stored
from cvpr21lib.segmentation.coco2017 import COCO2017
from data_scripts import coco_panoptic, manifest
from tests.eopsn import miniature

FILES = 38


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(coco_panoptic, "COUNTS", miniature.counts())


@pytest.fixture
def raw(tmp_path) -> Path:
    """What the four archives hold."""
    return miniature.coco_2017(tmp_path / "raw")


@pytest.fixture
def run(raw, tmp_path, monkeypatch):
    """Packs what is there now, and runs the script on the archives."""

    def call(**options: object) -> Path:
        packed = miniature.archives(raw, tmp_path / "archives")
        for path in (tmp_path / "data").glob("*.sha256"):
            path.unlink()
        monkeypatch.setattr(coco_panoptic, "ARCHIVES", packed)
        given = {"archives": tmp_path / "archives", "workers": 2, **options}
        coco_panoptic.main(root=tmp_path / "data", accept_licence=True, **given)
        return tmp_path / "data" / COCO2017.folder

    return call


def edit(path: Path, change) -> None:
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


def test_what_must_arrive_is_what_the_sheet_says(monkeypatch):
    monkeypatch.undo()
    assert {archive.name: round(archive.size / 2**20) for archive in coco_panoptic.ARCHIVES} == {
        "train2017.zip": 18_441,
        "val2017.zip": 778,
        "annotations_trainval2017.zip": 241,
        "panoptic_annotations_trainval2017.zip": 821,
    }
    assert all(len(archive.sha256) == 64 for archive in coco_panoptic.ARCHIVES)
    assert {split: count.images for split, count in coco_panoptic.COUNTS.items()} == {
        "train": 118_287,
        "val": 5_000,
    }


def test_four_archives_become_a_data_set_with_a_folder_for_each_k(run, tmp_path, capsys):
    folder = run()
    assert manifest.verify(folder) == FILES
    assert not list(folder.rglob(".*"))
    assert {path.name for path in folder.iterdir()} == {
        *("train2017", "val2017", "annotations", "splits", "manifest.json")
    }
    assert {path.name for path in (folder / "splits").iterdir()} == {"K5", "K10", "K20"}
    shown = capsys.readouterr()
    assert "Terms of Use" in shown.err
    assert "CC BY 4.0" in shown.err
    assert "is ready" in shown.out


def test_an_archive_that_counts_too_few_files_is_unpacked_whole(run, raw):
    """As COCO's own, whose count has 16 bits for 118,287 files."""
    pngs = "annotations/panoptic_train2017"
    inner = miniature.zipped(raw / pngs, raw / "inner.zip", "panoptic_train2017")
    assert inner.read_bytes()[-12:-10] == b"\x01\x00"
    inner.unlink()
    names = {path.name for path in (raw / pngs).iterdir()}
    assert len(names) == 5
    assert {path.name for path in (run() / pngs).iterdir()} == names


def test_semantic_labels_depend_on_k(run):
    folder = run()
    data = COCO2017(folder)
    annotations = panoptic.read_json(data.panoptic("train"))
    stuff = {number: label for label, number in enumerate(coco2017.STUFF, 1)}
    unknown = {5: {miniature.CAR, miniature.COW}, 10: {miniature.CAR, miniature.COW, miniature.BOAT}}
    unknown[20] = {*unknown[10], miniature.BANANA}
    for k, hidden in unknown.items():
        for annotation in annotations.images.values():
            image = panoptic.load(annotation, folder / "annotations/panoptic_train2017")
            expected = np.full(image.ids.shape, 255)
            for segment in image.segments:
                if segment.category not in hidden:
                    expected[image.ids == segment.id] = stuff.get(segment.category, 0)
            found = stored.read_grey(data.semantic(k) / annotation.file_name)
            np.testing.assert_array_equal(found, expected)


def test_instances_lack_crowds_and_unknown_things_but_no_image(run):
    data = COCO2017(run())
    whole = json.loads(data.instances("train").read_text())
    for k, hidden in ((5, {3, 21}), (10, {3, 21, 9}), (20, {3, 21, 9, 52})):
        found = json.loads(data.known_instances(k).read_text())
        assert found["images"] == whole["images"]
        assert found["annotations"] == [
            one for one in whole["annotations"] if one["category_id"] not in hidden and not one["iscrowd"]
        ]
        assert len(found["categories"]) == {5: 76, 10: 72, 20: 64}[k]


def test_an_interrupted_preparation_goes_on_where_it_stopped(run, raw, tmp_path):
    victim = raw / "annotations/panoptic_train2017/000000000022.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"000000000022\.png is damaged or cut short"):
        run(workers=1)
    folder = tmp_path / "data/COCO2017"
    assert not list(folder.rglob(".*")), "nothing half-done is left"
    with pytest.raises(InputError, match=r"not prepared for K = 20: .*instances\.json is missing"):
        COCO2017.find(tmp_path / "data", 20)
    made = folder / "splits/K5/semantic/000000000001.png"
    before = made.stat().st_mtime_ns
    (folder / "annotations/panoptic_train2017/000000000022.png").write_bytes(whole)
    run(archives=tmp_path / "not needed again")
    assert made.stat().st_mtime_ns == before, "what was made is not made again"
    assert manifest.verify(folder) == FILES
    assert COCO2017.find(tmp_path / "data", 20).root == folder


def test_a_finished_data_set_is_left_alone_and_verified(run, capsys):
    folder = run()
    run(archives=None)
    assert "note: it was prepared before" in capsys.readouterr().err
    run(verify_only=True)
    assert f"{FILES} files, all as they were prepared" in capsys.readouterr().out
    (folder / "splits/K5/instances.json").write_text("{}")
    with pytest.raises(InputError, match=r"1 changed \(splits/K5/instances\.json\)"):
        run(verify_only=True)


def test_an_archive_is_fetched_where_none_is_given(raw, tmp_path, site, monkeypatch):
    *others, last = miniature.archives(raw, tmp_path / "archives")
    root = tmp_path / "data/COCO2017"
    root.parent.mkdir()
    raw.rename(root)
    for part in last.holds[:2]:
        for path in (root / part).iterdir():
            path.unlink()
        (root / part).rmdir()
    site.content = (tmp_path / "archives" / last.name).read_bytes()
    here = last._replace(url=site.url.replace("data.zip", last.name))
    monkeypatch.setattr(coco_panoptic, "ARCHIVES", (*others, here))
    coco_panoptic.main(root=tmp_path / "data", accept_licence=True)
    assert manifest.verify(root) == FILES
    assert len(site.requests) == 1, "what was there is not fetched again"


def test_another_archive_is_refused(run, raw, tmp_path, monkeypatch):
    packed = miniature.archives(raw, tmp_path / "archives")
    monkeypatch.setattr(coco_panoptic, "ARCHIVES", packed)
    with (tmp_path / "archives/val2017.zip").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"val2017\.zip has the SHA-256 .* instead of"):
        coco_panoptic.main(root=tmp_path / "data", archives=tmp_path / "archives", accept_licence=True)
    (raw / "val2017").rename(raw / "val2014")
    with pytest.raises(InputError, match=r"val2017\.zip holds no val2017; is it another archive\?"):
        run()


def test_the_terms_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match="--accept-licence"):
        coco_panoptic.main(root=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_all_problems_are_named_at_once(run, raw):
    (raw / "train2017/000000000015.jpg").unlink()
    (raw / "annotations/panoptic_train2017/veranda_at-noon.png").unlink()
    Image.new("RGB", (7, 5)).save(raw / "val2017/000000000002.jpg")
    edit(raw / "annotations/instances_val2017.json", lambda contents: contents["images"].pop())
    edit(raw / "annotations/panoptic_train2017.json", lambda contents: contents["annotations"].pop(0))
    with pytest.raises(InputError) as error:
        run()
    for part in (
        "1 images of train are missing (000000000015.jpg)",
        "1 panoptic PNGs of train are missing (veranda_at-noon.png): some programs unpack only a part",
        "1 images of train are without panoptic annotation (1)",
        "val has 2 images and 9 instances, instead of 3 and 9",
        "1 images of val are in the panoptic annotations alone (16)",
        "1 images of val differ in size from the annotations (000000000002.jpg)",
    ):
        assert part in str(error.value)


def test_other_categories_than_cocos_are_refused(run, raw):
    edit(
        raw / "annotations/panoptic_val2017.json",
        lambda contents: contents["categories"][0].update(isthing=0),
    )
    with pytest.raises(InputError, match="the panoptic categories of val are not COCO's 133"):
        run()


def test_two_images_with_the_same_id_are_named(run, raw):
    edit(
        raw / "annotations/instances_train2017.json",
        lambda contents: contents["images"][2].update(id=contents["images"][0]["id"]),
    )
    with pytest.raises(InputError, match=r"instances_train2017\.json has two images with the same id: 1;"):
        run()


def test_a_panoptic_png_whose_ids_are_not_in_its_json_is_named(run, raw):
    path = raw / "annotations/panoptic_train2017/000000000015.png"
    ids = panoptic.read_png(path)
    ids[0, 0] = 5
    panoptic.write_png(path, ids)
    with pytest.raises(InputError, match=r"000000000015\.png: it has pixels of segments .* lacks: 5;"):
        run()
