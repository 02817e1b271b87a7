"""The colour cube shows where a LUT takes colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cvpr21lib.ppr10k import lut, picture


def centre(image: np.ndarray) -> np.ndarray:
    """Mean (x, y) of what is painted in colour: the outline and the dots' rims are grey."""
    coloured = np.ptp(image.astype(int), axis=2) > 8
    return np.argwhere(coloured).mean(0)[::-1]


def test_a_cube_shows_every_colour_of_the_identity():
    image = picture.colour_cube(lut.identity(5), points=3, size=300)
    assert image.shape == (300, 300, 3)
    for colour in np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255]]):
        assert (np.abs(image.astype(int) - colour).max(2) <= 2).sum() > 20, colour


def test_a_darker_look_sinks_towards_the_black_corner():
    identity = lut.identity(9)
    bright, dark = (centre(picture.colour_cube(scale * identity)) for scale in (1.0, 0.5))
    assert dark[1] > bright[1] + 20


@pytest.mark.parametrize("reach", [-0.1, 1.1])
def test_colours_outside_the_cube_stay_in_the_picture(reach):
    image = picture.colour_cube(torch.full((3, 2, 2, 2), reach), points=2, size=200)
    assert (image[[0, -1]] == 255).all()
    assert (image[:, [0, -1]] == 255).all()
    assert (image < 255).any()


def test_the_size_of_the_table_does_not_matter_for_a_smooth_look():
    first, second = (picture.colour_cube(lut.identity(size) * 0.8) for size in (5, 33))
    np.testing.assert_allclose(first.astype(int), second, atol=1)
