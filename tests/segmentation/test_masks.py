"""Label masks: what is one, what only looks like one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import masks


@pytest.fixture
def mask() -> np.ndarray:
    values = np.zeros((6, 9), np.uint8)
    values[1:4, 2:5], values[4:, 6:], values[0] = 15, 20, masks.VOID
    return values


def test_a_written_mask_is_read_back_and_shows_vocs_colours(mask, tmp_path):
    masks.write(tmp_path / "mask.png", mask)
    np.testing.assert_array_equal(masks.read(tmp_path / "mask.png", 21), mask)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        colours = np.asarray(image.convert("RGB"))
    # published with the development kit: person, tvmonitor, void
    assert colours[2, 3].tolist() == [192, 128, 128]
    assert colours[5, 8].tolist() == [0, 64, 128]
    assert colours[0, 0].tolist() == [224, 224, 192]
    assert colours[3, 0].tolist() == [0, 0, 0]


def test_a_grey_file_of_class_numbers_is_a_mask_too(mask, tmp_path):
    Image.fromarray(mask).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(masks.read(tmp_path / "mask.png", 21), mask)


def test_a_mask_saved_as_rgb_is_refused(mask, tmp_path):
    masks.write(tmp_path / "mask.png", mask)
    Image.open(tmp_path / "mask.png").convert("RGB").save(tmp_path / "coloured.png")
    with pytest.raises(InputError, match=r"coloured\.png has pixels of mode 'RGB'.*not one made RGB"):
        masks.read(tmp_path / "coloured.png", 21)


def test_a_mask_whose_colours_became_grey_values_is_refused(mask, tmp_path):
    masks.write(tmp_path / "mask.png", mask)
    Image.open(tmp_path / "mask.png").convert("RGB").convert("L").save(tmp_path / "grey.png")
    with pytest.raises(InputError, match=r"grey\.png holds .*expected the classes 0 to 20, and 255"):
        masks.read(tmp_path / "grey.png", 21)


def test_a_class_outside_of_the_data_set_is_refused(mask, tmp_path):
    masks.write(tmp_path / "mask.png", mask)
    with pytest.raises(InputError, match="holds 20; expected the classes 0 to 19"):
        masks.read(tmp_path / "mask.png", 20)


def test_void_everywhere_is_a_mask_that_shows_no_class(tmp_path):
    masks.write(tmp_path / "void.png", np.full((4, 5), masks.VOID, np.uint8))
    assert masks.classes(masks.read(tmp_path / "void.png", 21)) == ()


def test_the_classes_of_a_mask_leave_out_background_and_void(mask):
    assert masks.classes(mask) == (14, 19)


@pytest.mark.parametrize("content", [b"", b"<html>login</html>", b"\x89PNG\r\n\x1a\n\0\0"])
def test_a_damaged_mask_gives_its_name(content, tmp_path):
    (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(InputError, match=r"mask\.png is damaged or cut short"):
        masks.read(tmp_path / "mask.png", 21)
