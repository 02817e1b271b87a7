"""Annotations of VOC and COCO as labels and masks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import coco, voc
from tests.eps import miniature
from tests.eps.miniature import annotation


def square(top: int, left: int, side: int) -> list[list[int]]:
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


def test_the_classes_are_the_official_ones_in_the_official_order():
    assert len(voc.CLASSES) == 20
    assert list(voc.CLASSES) == sorted(voc.CLASSES)
    assert len(coco.CLASSES) == 80
    assert sorted(set(range(1, 91)) - set(coco.CATEGORIES)) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert (coco.CONTIGUOUS[1], coco.CONTIGUOUS[90]) == (0, 79)
    assert coco.CLASSES[coco.CONTIGUOUS[72]] == "tv"


def test_every_object_of_an_annotation_counts_and_its_parts_do_not(tmp_path):
    (tmp_path / "a.xml").write_text(
        "<annotation><object><name>person</name><part><name>head</name></part></object>"
        "<object><name>boat</name><difficult>1</difficult></object>"
        "<object><name>person</name></object></annotation>"
    )
    assert voc.labels_from_xml(tmp_path / "a.xml") == (3, 14)
    (tmp_path / "none.xml").write_text("<annotation></annotation>")
    assert voc.labels_from_xml(tmp_path / "none.xml") == ()


def test_an_object_outside_of_the_classes_and_a_damaged_annotation_are_named(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation><object><name>dragon</name></object></annotation>")
    with pytest.raises(InputError, match=r"a\.xml names an object 'dragon'"):
        voc.labels_from_xml(tmp_path / "a.xml")
    (tmp_path / "b.xml").write_text("<annotation><object>")
    with pytest.raises(InputError, match=r"b\.xml is damaged"):
        voc.labels_from_xml(tmp_path / "b.xml")


def test_a_polygon_is_drawn_as_pycocotools_draws_it(tmp_path):
    instances = coco.read_instances(
        miniature.coco_2014(tmp_path / "c") / "annotations/instances_train2014.json"
    )
    for number, image in instances.imgs.items():
        found = [one for one in instances.imgToAnns[number] if not one["iscrowd"]]
        if found:
            mask = coco.semantic_mask(found, image["height"], image["width"])
            drawn = instances.annToMask(found[0]).astype(bool)
            np.testing.assert_array_equal(mask > 0, drawn)
            assert set(mask[drawn]) == {coco.CONTIGUOUS[found[0]["category_id"]] + 1}


def test_the_smaller_object_is_on_top_in_whatever_order_they_come():
    table, cup = annotation(0, 1, 67, square(0, 0, 20)), annotation(1, 1, 47, square(5, 5, 4))
    for order in ([table, cup], [cup, table]):
        mask = coco.semantic_mask(order, 24, 24)
        assert coco.CLASSES[mask[6, 6] - 1] == "cup"
        assert coco.CLASSES[mask[1, 1] - 1] == "dining table"
        assert mask[22, 22] == 0
    assert coco.labels([table, cup]) == (coco.CONTIGUOUS[47], coco.CONTIGUOUS[67])


def test_a_crowd_lies_below_everything_and_still_counts():
    crowd = annotation(0, 1, 1, {"size": [24, 24], "counts": [0, 24 * 3, 24 * 21]}, crowd=1)
    train = annotation(1, 1, 7, square(0, 0, 20))
    mask = coco.semantic_mask([train, crowd], 24, 24)
    assert mask[1, 1] == coco.CONTIGUOUS[7] + 1
    assert mask[22, 1] == coco.CONTIGUOUS[1] + 1
    assert coco.labels([crowd]) == (0,)


def test_compressed_run_lengths_are_read_too():
    from pycocotools import mask as run_lengths

    shape = run_lengths.encode(np.asfortranarray(np.eye(8, dtype=np.uint8)))
    mask = coco.semantic_mask([annotation(0, 1, 1, shape)], 8, 8)
    np.testing.assert_array_equal(mask, np.eye(8))


def test_no_annotation_is_background_everywhere():
    assert not coco.semantic_mask([], 4, 6).any()
    assert coco.labels([]) == ()


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [9, 8], "counts": [0, 72]}, r"drawn on \[9, 8\] instead of \[8, 8\]"),
        ({"size": [8, 8]}, "counts"),
        (None, "not subscriptable"),
    ],
)
def test_a_shape_that_cannot_be_drawn_is_named(segmentation, reason):
    with pytest.raises(InputError, match=f"Annotation 17.*{reason}"):
        coco.semantic_mask([annotation(17, 1, 1, segmentation)], 8, 8)


@pytest.mark.parametrize("segmentation", [[], [[1, 2]], [[1, 1, 6, 6]]])
def test_fewer_than_three_points_enclose_nothing(segmentation):
    assert not coco.semantic_mask([annotation(0, 1, 1, segmentation)], 8, 8).any()


def test_a_label_outside_of_the_classes_is_named():
    with pytest.raises(InputError, match="Annotation 17 is of category 12, which COCO does not have"):
        coco.labels([annotation(17, 1, 12, square(0, 0, 4))])


@pytest.mark.parametrize("content", ["", "<html>", "[]", "{}", '{"images": [], "annotations": []}'])
def test_other_files_are_not_taken_for_instance_annotations(content, tmp_path):
    (tmp_path / "instances.json").write_text(content)
    with pytest.raises(InputError, match=r"instances\.json is damaged, or not COCO's instance annotations"):
        coco.read_instances(tmp_path / "instances.json")


def test_missing_annotations_and_other_categories_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json do not exist"):
        coco.read_instances(tmp_path / "nowhere.json")
    contents = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "one.json").write_text(json.dumps(contents))
    with pytest.raises(InputError, match=r"one\.json has 1 categories that are not COCO's 80"):
        coco.read_instances(tmp_path / "one.json")


def test_reading_annotations_says_nothing_on_the_standard_output(tmp_path, capsys):
    coco.read_instances(miniature.coco_2014(tmp_path / "c") / "annotations/instances_val2014.json")
    assert capsys.readouterr().out == ""
