"""COCO's panoptic format, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import panoptic
from cvpr21lib.segmentation.panoptic import MAX_ID, Annotation, Category, Segment
from cvpr21lib.segmentation.stored import DamagedFile

CATEGORIES = {1: Category("person", True), 184: Category("tree-merged", False)}
IDS = np.array([[0, 1, 255], [256, 65536, MAX_ID]])


def write_and_read(folder: Path, content: object) -> panoptic.Annotations:
    path = folder / "panoptic.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return panoptic.read_json(path)


def entry(image_id: object, **other: object) -> dict[str, object]:
    return {"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": []} | other


def info(**other: object) -> dict[str, object]:
    return {"id": 7, "category_id": 1} | other


def test_an_id_is_red_plus_256_green_plus_65536_blue(tmp_path):
    path = tmp_path / "one.png"
    Image.fromarray(np.array([[[3, 2, 1]]], np.uint8)).save(path)
    assert panoptic.read_png(path).tolist() == [[3 + 256 * 2 + 65536 * 1]]


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.dtype(">i4")])
def test_ids_come_back_as_they_were_written(tmp_path, dtype):
    panoptic.write_png(tmp_path / "one.png", IDS.astype(dtype))
    ids = panoptic.read_png(tmp_path / "one.png")
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, IDS)


def test_an_opaque_layer_changes_no_id(tmp_path):
    panoptic.write_png(tmp_path / "one.png", IDS)
    Image.open(tmp_path / "one.png").convert("RGBA").save(tmp_path / "two.png")
    np.testing.assert_array_equal(panoptic.read_png(tmp_path / "two.png"), IDS)


@pytest.mark.parametrize("ids", [[[-1]], [[MAX_ID + 1]], [[0.5]], [1, 2]])
def test_ids_that_no_png_holds_are_not_written(tmp_path, ids):
    with pytest.raises(InputError, match=r"one\.png"):
        panoptic.write_png(tmp_path / "one.png", np.array(ids))
    assert not any(tmp_path.iterdir())


def test_a_grey_png_is_no_panoptic_one(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(InputError, match=r"grey\.png has pixels of mode 'L'"):
        panoptic.read_png(tmp_path / "grey.png")


def test_a_png_cut_short_is_named(tmp_path):
    panoptic.write_png(tmp_path / "one.png", np.random.default_rng(0).integers(0, MAX_ID, (40, 40)))
    whole = (tmp_path / "one.png").read_bytes()
    (tmp_path / "one.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFile, match=r"one\.png is damaged"):
        panoptic.read_png(tmp_path / "one.png")


@pytest.mark.parametrize("image_ids", [(139, 285), ("aachen_000", "0139")])
@pytest.mark.parametrize("categories", [None, CATEGORIES])
def test_annotations_come_back_as_they_were_written(tmp_path, image_ids, categories):
    segments = (Segment(7, 1, area=3), Segment(MAX_ID, 184), Segment(8, 1, crowd=True, area=1))
    size = None if categories is None else (2, 3)
    images = {
        image_ids[0]: Annotation("a.png", segments, size),
        image_ids[1]: Annotation("b.png", (), size),
    }
    panoptic.write_json(tmp_path / "all.json", images, categories)
    read = panoptic.read_json(tmp_path / "all.json")
    assert read.images == images
    assert list(read.images) == list(image_ids)
    assert read.categories == (categories or {})


def test_ground_truth_is_not_written_without_sizes(tmp_path):
    with pytest.raises(InputError, match="no size is given for the images 139"):
        panoptic.write_json(tmp_path / "all.json", {139: Annotation("a.png", ())}, CATEGORIES)
    assert not any(tmp_path.iterdir())


def test_missing_annotations_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json do not exist"):
        panoptic.read_json(tmp_path / "none.json")


@pytest.mark.parametrize("text", ['{"annotations": [{"image_id": 1', "\udcff"])
def test_annotations_that_are_no_json_are_named(tmp_path, text):
    (tmp_path / "cut.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"cut\.json is damaged"):
        panoptic.read_json(tmp_path / "cut.json")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"annotations": [{"image_id": 1}]},
        {"annotations": [entry(None)]},
        {"annotations": [entry(1, segments_info=[{"id": 3}])]},
        {"annotations": [entry(1, segments_info=[info(id="x")])]},
        {"annotations": [], "categories": [{"id": 1}]},
        {"annotations": [], "images": [{"id": [], "height": 1, "width": 1}]},
    ],
)
def test_json_of_another_kind_is_named(tmp_path, content):
    with pytest.raises(InputError, match=r"panoptic\.json is not in COCO's panoptic format"):
        write_and_read(tmp_path, content)


def test_two_images_with_one_id(tmp_path):
    with pytest.raises(InputError, match="annotations of image 139 twice"):
        write_and_read(tmp_path, {"annotations": [entry(139), entry(285), entry(139, file_name="b.png")]})
    listed = [{"id": 139, "height": 1, "width": 1}] * 2
    with pytest.raises(InputError, match="image 139 twice"):
        write_and_read(tmp_path, {"annotations": [entry(139)], "images": listed})


def test_two_segments_of_an_image_with_one_id(tmp_path):
    with pytest.raises(InputError, match="image 139: segment 7 twice"):
        write_and_read(tmp_path, {"annotations": [entry(139, segments_info=[info(), info(category_id=3)])]})


def test_two_images_may_have_segments_of_one_id(tmp_path):
    content = {"annotations": [entry(image_id, segments_info=[info()]) for image_id in (1, 2)]}
    assert len(write_and_read(tmp_path, content).images) == 2


@pytest.mark.parametrize("segment_id", [0, -1, MAX_ID + 1])
def test_an_id_that_no_pixel_can_have(tmp_path, segment_id):
    with pytest.raises(InputError, match=f"segment {segment_id}: expected an id from 1"):
        write_and_read(tmp_path, {"annotations": [entry(139, segments_info=[info(id=segment_id)])]})


def test_a_segment_without_area(tmp_path):
    with pytest.raises(InputError, match="area of 0"):
        write_and_read(tmp_path, {"annotations": [entry(139, segments_info=[info(area=0)])]})


def test_a_category_that_the_file_does_not_list(tmp_path):
    listed = [{"id": 2, "name": "bicycle", "isthing": 1}]
    content = {"annotations": [entry(139, segments_info=[info()])]}
    with pytest.raises(InputError, match="image 139: segment 7 is of category 1, which it does not list"):
        write_and_read(tmp_path, content | {"categories": listed})
    assert write_and_read(tmp_path, content).categories == {}  # predictions list none


@pytest.mark.parametrize(
    "name", ["../secret.png", "/elsewhere/a.png", "sub/a.png", "..\\a.png", "..", "", "a.jpg", 5]
)
def test_a_png_outside_the_folder(tmp_path, name):
    with pytest.raises(InputError, match="expected the name of a PNG without folder"):
        write_and_read(tmp_path, {"annotations": [entry(139, file_name=name)]})


def test_a_png_of_another_size_than_its_json(tmp_path):
    panoptic.write_png(tmp_path / "a.png", IDS)
    whole = Annotation("a.png", (), (2, 3))
    np.testing.assert_array_equal(panoptic.load(whole, tmp_path).ids, IDS)
    with pytest.raises(InputError, match=r"a\.png has 2×3 pixels and its JSON says 4×6"):
        panoptic.load(whole._replace(size=(4, 6)), tmp_path)


def test_categories_are_found_by_name():
    assert panoptic.numbers_of(["tree-merged", "person"], CATEGORIES) == (184, 1)
    with pytest.raises(InputError, match="no category unicorn; there are person, tree-merged"):
        panoptic.numbers_of(["unicorn"], CATEGORIES)
