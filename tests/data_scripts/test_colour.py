"""ProPhoto RGB to sRGB against published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageCms

from cvpr21lib.errors import InputError
from cvpr21lib.images import Photo
from data_scripts import colour


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear ROMM RGB to its encoded values."""
    return np.where(linear < 1 / 512, 16 * linear, linear ** (1 / 1.8)).astype(np.float32)


def test_greys_stay_grey_and_keep_their_luminance():
    light = np.linspace(0, 1, 101)
    grey = np.repeat(encode(light)[:, None], 3, axis=1)
    converted = colour.prophoto_to_srgb(grey)
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(converted, np.repeat(expected[:, None], 3, axis=1), atol=1e-4)


def test_the_primaries_of_srgb_come_back():
    """Their linear ROMM values, from the CSS Color 4 matrices (sRGB to XYZ D65, Bradford, to ROMM)."""
    primaries = np.array([[0.5293, 0.0984, 0.0169], [0.3301, 0.8734, 0.1176], [0.1406, 0.0282, 0.8655]])
    np.testing.assert_allclose(colour.prophoto_to_srgb(encode(primaries)), np.eye(3), atol=0.02)


def test_colours_outside_of_srgb_are_clipped():
    converted = colour.prophoto_to_srgb(np.eye(3, dtype=np.float32))
    assert converted.min() == 0
    np.testing.assert_allclose(converted.max(axis=1), 1, atol=1e-6)


def test_srgb_and_unmarked_photographs_stay_as_they_are():
    pixels = np.random.default_rng(0).random((4, 5, 3), np.float32)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert colour.to_srgb(Photo(pixels), "photo") is pixels
    assert colour.to_srgb(Photo(pixels, icc=srgb), "photo") is pixels


def test_other_and_damaged_profiles_are_named():
    pixels = np.zeros((4, 5, 3), np.float32)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with pytest.raises(InputError, match=r"photo\.tif is in the colour space .*export it as sRGB"):
        colour.to_srgb(Photo(pixels, icc=lab), "photo.tif")
    with pytest.raises(InputError, match=r"photo\.tif carries a damaged colour profile"):
        colour.to_srgb(Photo(pixels, icc=b"nonsense"), "photo.tif")


def test_a_prophoto_profile_is_recognised_by_its_description(monkeypatch):
    monkeypatch.setattr(ImageCms, "getProfileDescription", lambda profile: "ProPhoto RGB\n")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.full((2, 2, 3), 0.5, np.float32)
    converted = colour.to_srgb(Photo(pixels, icc=srgb), "photo")
    assert (converted > pixels).all(), "a gamma of 1.8 looks darker than sRGB's at the same values"
