"""Pictures as they are stored."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import stored
from tests.conftest import photograph


def test_an_exif_orientation_is_left_alone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photograph(0, 20, 30)).save(tmp_path / "turned.jpg", exif=exif)
    assert stored.read_rgb(tmp_path / "turned.jpg").shape == (20, 30, 3)
    assert stored.size(tmp_path / "turned.jpg") == (20, 30)


def test_a_grey_jpeg_becomes_rgb(tmp_path):
    Image.new("L", (4, 3), 77).save(tmp_path / "grey.jpg")
    assert (stored.read_rgb(tmp_path / "grey.jpg") == 77).all()
    assert stored.read_rgb(tmp_path / "grey.jpg").shape == (3, 4, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_grey_values_are_read_however_they_are_stored(mode, tmp_path):
    values = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
    Image.fromarray(values).convert(mode).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(stored.read_grey(tmp_path / "grey.png"), values)


def test_black_and_white_is_0_and_255(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(stored.read_grey(tmp_path / "bits.png"), 255 * np.eye(4))


def test_a_heat_map_is_not_grey(tmp_path):
    Image.fromarray(photograph(0, 8, 8)).save(tmp_path / "heat.png")
    with pytest.raises(InputError, match=r"heat\.png is a coloured picture .*not a heat map"):
        stored.read_grey(tmp_path / "heat.png")


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png has pixels of mode 'I;16'; expected 8-bit grey"):
        stored.read_grey(tmp_path / "deep.png")


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_a_file_cut_short_is_damage_and_has_a_name(keep, tmp_path):
    Image.fromarray(photograph(0, 40, 60)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:keep])
    with pytest.raises(stored.DamagedFile, match=r"cut\.jpg is damaged or cut short"):
        stored.read_rgb(tmp_path / "cut.jpg")


def test_a_missing_file_is_not_taken_for_a_damaged_one(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.jpg does not exist") as error:
        stored.read_rgb(tmp_path / "nowhere.jpg")
    assert not isinstance(error.value, stored.DamagedFile)
