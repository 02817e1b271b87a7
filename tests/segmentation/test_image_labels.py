"""The file of image labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import image_labels

CLASSES = ("cat", "dog", "potted plant")


def test_labels_are_read_as_they_were_written(tmp_path):
    labels = {"b": (0, 2), "a": (1,), "none": ()}
    image_labels.write(tmp_path / "labels.json", labels, CLASSES)
    assert image_labels.read(tmp_path / "labels.json", CLASSES) == labels
    text = (tmp_path / "labels.json").read_text()
    assert '  "b": ["cat", "potted plant"],' in text.splitlines(), "one readable line an image"


def test_a_label_is_a_vector_of_zeros_and_ones():
    np.testing.assert_array_equal(image_labels.vector((0, 2), 3), np.float32([1, 0, 1]))
    np.testing.assert_array_equal(image_labels.vector((), 3), np.zeros(3, np.float32))
    assert image_labels.vector((), 3).dtype == np.float32


def test_a_label_outside_of_the_classes_is_named_with_its_image(tmp_path):
    contents = {"classes": CLASSES, "images": {"a": ["dog"], "b": ["dog", "dragon"]}}
    (tmp_path / "labels.json").write_text(json.dumps(contents))
    with pytest.raises(InputError, match="labels b with 'dragon', which is none of the 3 classes"):
        image_labels.read(tmp_path / "labels.json", CLASSES)


def test_labels_of_another_data_set_are_refused(tmp_path):
    image_labels.write(tmp_path / "labels.json", {"a": (0,)}, ("bird",))
    with pytest.raises(InputError, match=r"about 1 classes .*expected 3 from 'cat' on"):
        image_labels.read(tmp_path / "labels.json", CLASSES)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"classes": ["cat"]}', '{"classes": 3, "images": {}}'])
def test_a_damaged_file_is_named(content, tmp_path):
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(InputError, match=r"labels\.json is damaged .*prepare the data set again"):
        image_labels.read(tmp_path / "labels.json", CLASSES)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"labels\.json do not exist; prepare"):
        image_labels.read(tmp_path / "labels.json", CLASSES)
