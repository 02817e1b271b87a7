"""Windows, and what they show."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image

from cvpr21lib.segmentation import crops


def windows(height: int, width: int, crop: int | None, number: int = 300) -> list[crops.Window]:
    return [crops.place(random.Random(seed), height, width, crop) for seed in range(number)]


def test_a_crop_lies_inside_a_larger_picture_and_reaches_all_of_it():
    seen = windows(10, 14, 8)
    assert all(window.target == (slice(0, 8), slice(0, 8)) for window in seen)
    assert {window.source[0].start for window in seen} == set(range(3))
    assert {window.source[1].start for window in seen} == set(range(7))


def test_a_smaller_picture_lies_inside_the_crop_and_anywhere_in_it():
    seen = windows(5, 20, 8)
    assert all(window.source[0] == slice(0, 5) for window in seen)
    assert {window.target[0].start for window in seen} == set(range(4))
    assert {window.source[1].start for window in seen} == set(range(13))


@pytest.mark.parametrize(("height", "width", "crop"), [(8, 8, 8), (9, 12, None)])
def test_a_crop_of_the_pictures_own_size_is_the_picture(height, width, crop):
    picture = torch.rand(2, height, width)
    for window in windows(height, width, crop, 5):
        torch.testing.assert_close(crops.cut(picture, window), picture, rtol=0, atol=0)


def test_around_the_picture_the_crop_is_filled():
    mask = torch.ones(1, 3, 4, dtype=torch.uint8)
    cut = crops.cut(mask, crops.place(random.Random(0), 3, 4, 6), fill=255)
    assert cut.dtype == torch.uint8
    assert (cut == 1).sum() == 12
    assert (cut == 255).sum() == 36 - 12


@pytest.mark.parametrize(
    ("size", "wanted"), [((500, 375), (64, 48)), ((375, 500), (48, 64)), ((300, 1), (64, 1))]
)
def test_the_longer_side_is_scaled_and_the_shorter_follows(size, wanted):
    assert crops.scale(Image.new("L", size), 64).size == wanted


def test_jitter_stays_within_its_ranges_and_reaches_them():
    # On a uniform grey, contrast, saturation and hue change nothing: what is left is the brightness.
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    values = [
        int(np.asarray(crops.change_colours(random.Random(seed), grey, 0.3, 0.3, 0.3, 0.1))[0, 0, 0])
        for seed in range(300)
    ]
    assert min(values) in (70, 71)
    assert max(values) in (129, 130)


def test_hue_turns_at_most_a_tenth_of_the_circle():
    red = Image.new("RGB", (4, 4), (200, 0, 0))
    hues = [
        int(np.asarray(crops.change_colours(random.Random(seed), red, 0, 0, 0, 0.1).convert("HSV"))[0, 0, 0])
        for seed in range(200)
    ]
    turned = [(hue + 128) % 256 - 128 for hue in hues]
    assert -26 <= min(turned) < -20
    assert 20 < max(turned) <= 26


def test_colours_change_alike_for_the_same_seed_and_in_any_order():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))

    def changed(seed: int) -> bytes:
        return crops.change_colours(random.Random(seed), image, 0.3, 0.3, 0.3, 0.1).tobytes()

    assert changed(3) == changed(3)
    assert len({changed(seed) for seed in range(20)}) == 20
