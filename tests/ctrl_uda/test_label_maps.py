"""Which ids become which classes."""

from __future__ import annotations

import numpy as np
import pytest

from cvpr21lib.ctrl_uda.label_maps import (
    CLASSES,
    CLASSES_7,
    CLASSES_16,
    PALETTES,
    THIRTEEN,
    VOID,
    LabelMap,
    label_map,
)
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import cityscapes, synthia

ALIKE = {
    "light": "traffic light",
    "sign": "traffic sign",
    "person": "pedestrian",
}
"""SYNTHIA's and Cityscapes' longer names for some of the 16 classes."""


def members(table: LabelMap, number: int, names: tuple[str, ...]) -> set[str]:
    return {names[each] for each, found in enumerate(table.classes) if found == number}


@pytest.mark.parametrize(
    ("dataset", "names"), [("synthia", synthia.CLASSES), ("cityscapes", cityscapes.CLASSES)]
)
def test_each_of_the_16_classes_is_one_id_of_the_same_name(dataset, names):
    table = label_map(dataset, 16)
    for number, name in enumerate(CLASSES_16):
        (found,) = members(table, number, names)
        assert found in (name, ALIKE.get(name))
    assert table.num_classes == 16
    assert set(table.classes) == {*range(16), VOID}


def test_the_official_seven_of_synthia_ignore_what_cityscapes_counts():
    source, target = label_map("synthia", 7), label_map("cityscapes", 7)
    ignored = members(source, VOID, synthia.CLASSES)
    counted = {name for number in range(7) for name in members(target, number, cityscapes.CLASSES)}
    assert ignored & counted == {"wall", "rider", "bus", "motorcycle", "terrain", "truck", "train"}


def test_the_corrected_seven_put_every_class_where_cityscapes_has_it():
    source, target = label_map("synthia", 7, corrected=True), label_map("cityscapes", 7)
    shared = {*synthia.CLASSES} & {*cityscapes.CLASSES}
    assert len(shared) > 14
    for name in shared:
        assert source.classes[synthia.CLASSES.index(name)] == target.classes[cityscapes.CLASSES.index(name)]
    official = label_map("synthia", 7)
    for before, after in zip(official.classes, source.classes, strict=True):
        assert before in (after, VOID), "it only adds"


def test_mapillary_has_seven_classes_in_66_ids():
    table = label_map("mapillary", 7)
    assert len(table.classes) == 66
    assert set(table.classes) == {*range(7), VOID}
    assert table.classes[2] == CLASSES_7.index("construction"), "curb"
    assert table.classes[29] == CLASSES_7.index("flat"), "terrain"
    assert table.classes[43] == CLASSES_7.index("object"), "pothole"


def test_thirteen_are_the_sixteen_without_wall_fence_and_pole():
    assert [name for number, name in enumerate(CLASSES_16) if number not in THIRTEEN] == [
        "wall",
        "fence",
        "pole",
    ]
    assert len(THIRTEEN) == 13


def test_each_class_has_a_colour_of_its_own():
    for number, names in CLASSES.items():
        assert PALETTES[number].shape == (len(names), 3) == (number, 3)
        assert len(np.unique(PALETTES[number], axis=0)) == number
    np.testing.assert_array_equal(
        PALETTES[7][CLASSES_7.index("human")], PALETTES[16][CLASSES_16.index("person")]
    )


@pytest.mark.parametrize("strange", [23, 255])
def test_an_id_outside_of_the_table_is_named(strange):
    ids = np.array([[3, strange]], np.uint8)
    with pytest.raises(InputError, match=rf"the id {strange}; the table has 0 to 22"):
        label_map("synthia", 16)(ids)


def test_a_negative_id_does_not_wrap_around():
    with pytest.raises(InputError, match="the id -1"):
        label_map("cityscapes", 16)(np.array([7, -1]))


def test_labels_of_no_pixels_are_classes_of_no_pixels():
    assert label_map("synthia", 7)(np.zeros((0, 4), np.uint8)).shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mapillary", 16), "num_classes is 16; with mapillary it can be 7"),
        (("cityscapes", 19), "num_classes is 19; with cityscapes it can be 16 or 7"),
        (("gta5", 16), "dataset is 'gta5'; it can be synthia, cityscapes, mapillary"),
        (("synthia", 16, True), "for the 7 classes of SYNTHIA; synthia with 16 has none"),
        (("cityscapes", 7, True), "for the 7 classes of SYNTHIA; cityscapes with 7 has none"),
    ],
)
def test_what_is_not_used_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        label_map(*arguments)
