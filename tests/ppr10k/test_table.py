"""A table of all 8-bit colours gives what interpolating each pixel gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cvpr21lib.ppr10k import lut, table


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wild(size: int, seed: int = 0) -> torch.Tensor:
    """A LUT far from smooth, with values below 0 and above 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, size, size, size, generator=generator) * 1.4 - 0.2


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def exact(one: torch.Tensor, image: np.ndarray) -> np.ndarray:
    """255 times the result of floats, not rounded, saturated."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    return 255 * lut.apply(one.double(), pixels)[0].clamp(0, 1).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [2, 3, 17, 33, 64])
def test_the_result_is_the_float_one_rounded(size):
    image = noise(97, 113)
    out = table.apply(wild(size), image)
    assert out.dtype == np.uint8
    assert np.abs(out - exact(wild(size), image)).max() <= 0.501  # half a count, and float32's rounding


def test_the_identity_changes_no_colour():
    image = noise(97, 113)
    assert np.array_equal(table.apply(lut.identity(33), image), image)


def test_the_table_lists_red_first():
    colours = table.colours(lut.identity(5)).view(np.uint8).reshape(-1, 4)
    for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0), (1, 2, 3), (200, 7, 90)):
        red, green, blue = colour
        assert tuple(colours[red + 256 * green + 65536 * blue, :3]) == colour


def test_values_outside_the_range_saturate():
    image = noise(5, 6)
    assert (table.apply(torch.full((3, 2, 2, 2), 7.0), image) == 255).all()
    assert (table.apply(torch.full((3, 2, 2, 2), -7.0), image) == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300_000), (300_000, 1), (700, 401)])
def test_any_shape_comes_out_whole(shape):
    image = noise(*shape)
    out = table.apply(wild(3), image)
    small = image.reshape(-1, 3)[:: max(image.size // 3000, 1)][None]
    assert np.array_equal(
        out.reshape(-1, 3)[:: max(image.size // 3000, 1)][None], table.apply(wild(3), small)
    )


def test_a_view_of_a_photograph_is_not_changed_and_not_mistaken():
    image = noise(64, 80)
    before = image.copy()
    mirrored = table.apply(wild(5), image[:, ::-1])
    assert np.array_equal(mirrored, table.apply(wild(5), image)[:, ::-1])
    assert np.array_equal(image, before)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_the_result(threads):
    image = noise(700, 401)
    one = table.apply(wild(9), image)
    torch.set_num_threads(threads)
    assert np.array_equal(table.apply(wild(9), image), one)
