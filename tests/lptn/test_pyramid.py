from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cvpr21lib.errors import InputError
from cvpr21lib.lptn import pyramid

torch.set_num_threads(1)

KERNEL = torch.outer(k := torch.tensor([1.0, 4, 6, 4, 1], dtype=torch.float64) / 16, k)


def blurred(x: torch.Tensor, pads: str = "reflect") -> torch.Tensor:
    """The definition, written out: a 5x5 blur of every channel at full size."""
    channels = x.shape[1]
    weight = KERNEL.to(x).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode=pads), weight, groups=channels)


def up_by_definition(x: torch.Tensor, size: tuple[int, int], pads: str = "reflect") -> torch.Tensor:
    """The definition, written out: zeros in between, then four times the blur, then a crop."""
    n, c, h, w = x.shape
    grid = x.new_zeros(n, c, 2 * h, 2 * w)
    grid[:, :, ::2, ::2] = x
    return 4 * blurred(grid, pads)[..., : size[0], : size[1]]


SIZES = [(h, w) for h in range(3, 10) for w in (3, 4, 7, 8)] + [(37, 50), (64, 33), (129, 200)]


@pytest.mark.parametrize("size", SIZES)
def test_down_and_up_are_the_definition_on_every_path(size):
    x = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected_down = blurred(x)[..., ::2, ::2]
    expected_up = up_by_definition(expected_down, size)
    for dtype, tolerance in [(torch.float64, 1e-12), (torch.float32, 1e-6)]:
        for grad in (True, False):  # with and without gradients are two implementations in float32
            source, small = x.to(dtype).requires_grad_(grad), expected_down.to(dtype).requires_grad_(grad)
            torch.testing.assert_close(pyramid.down(source).double(), expected_down, rtol=0, atol=tolerance)
            torch.testing.assert_close(pyramid.up(small, size).double(), expected_up, rtol=0, atol=tolerance)


def test_float32_without_gradients_takes_opencv_and_agrees_with_torch(monkeypatch):
    x = torch.rand(3, 3, 41, 58)
    fast = pyramid.decompose(x, 3)
    monkeypatch.setattr(pyramid, "_opencv_applies", lambda x: False)
    plain = pyramid.decompose(x, 3)
    assert any(not torch.equal(a, b) for a, b in zip(fast, plain, strict=True)), "both took the same path"
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_mirroring_on_both_sides_would_fail():
    x = torch.rand(1, 1, 6, 7, dtype=torch.float64)
    n, c, h, w = x.shape
    grid = x.new_zeros(n, c, 2 * h + 4, 2 * w + 4)  # mirrored around the last *sample*, not the last zero
    grid[..., ::2, ::2] = F.pad(x, (1, 1, 1, 1), mode="reflect")
    wrong = 4 * F.conv2d(grid, KERNEL[None, None])[..., : 2 * h, : 2 * w]
    right = pyramid.up(x, (12, 14))
    torch.testing.assert_close(wrong[..., :10, :12], right[..., :10, :12])
    assert (wrong - right)[..., 10:, :].abs().max() > 1e-2
    assert (wrong - right)[..., :, 12:].abs().max() > 1e-2


@pytest.mark.parametrize("num_high", [1, 2, 3, 5])
@pytest.mark.parametrize("grad", [False, True])
def test_pyramid_reconstructs_any_size_exactly(num_high, grad):
    least = pyramid.minimum_size(num_high)
    for h in (least, least + 1, least + 7, 2 * least + 1, 61):
        for w in (least, least + 3, 50):
            if min(h, w) < least:
                continue
            x = torch.rand(2, 3, h, w).requires_grad_(grad)
            parts = pyramid.decompose(x, num_high)
            assert len(parts) == num_high + 1
            assert parts[-1].shape == (2, 3, -(-h // 2**num_high), -(-w // 2**num_high))
            torch.testing.assert_close(pyramid.reconstruct(parts), x, rtol=0, atol=5e-7)


def test_a_constant_image_has_empty_bands():
    *bands, low = pyramid.decompose(torch.full((1, 3, 45, 38), 0.7, dtype=torch.float64), 3)
    assert max(band.abs().max() for band in bands) < 1e-15
    torch.testing.assert_close(low, torch.full_like(low, 0.7))


def test_odd_sizes_above_3227_are_cropped():
    x = torch.rand(1, 1, 3, 3227, dtype=torch.float64)
    small = pyramid.down(x)
    torch.testing.assert_close(pyramid.up(small, (3, 3227)), up_by_definition(small, (3, 3227)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_in_its_type_and_close(dtype):
    x = torch.rand(1, 3, 33, 40)
    parts = pyramid.decompose(x.to(dtype), 2)
    assert all(part.dtype == dtype for part in parts)
    torch.testing.assert_close(pyramid.reconstruct(parts).float(), x, rtol=0, atol=3e-2)


def test_gradients_are_exact():
    x = torch.rand(1, 2, 7, 9, dtype=torch.float64, requires_grad=True)
    weights = [torch.rand_like(part) for part in pyramid.decompose(x.detach(), 2)]
    assert torch.autograd.gradcheck(lambda x: tuple(pyramid.decompose(x, 2)), x)
    assert torch.autograd.gradcheck(
        lambda x: pyramid.reconstruct([p * w for p, w in zip(pyramid.decompose(x, 2), weights, strict=True)]),
        x,
    )


def test_nothing_given_is_changed():
    x = torch.rand(1, 3, 32, 35)
    before = x.clone()
    parts = pyramid.decompose(x, 2)
    copies = [part.clone() for part in parts]
    pyramid.reconstruct(parts)
    assert torch.equal(x, before)
    assert all(torch.equal(a, b) for a, b in zip(parts, copies, strict=True))


def test_memory_layout_does_not_matter():
    x = torch.rand(2, 3, 30, 41)
    expected = pyramid.decompose(x, 2)
    for other in (
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        for a, b in zip(pyramid.decompose(other, 2), expected, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("num_high", [1, 2, 3, 4, 5])
def test_minimum_size_is_the_smallest_that_works(num_high):
    least = pyramid.minimum_size(num_high)
    pyramid.decompose(torch.rand(1, 3, least, least), num_high)
    with pytest.raises(InputError, match=f"{num_high} levels"):
        pyramid.decompose(torch.rand(1, 3, 100, least - 1), num_high)


def test_too_small_images_are_named_with_the_remedy():
    with pytest.raises(InputError, match=r"8 × 40 pixels is too small .* 3 levels.*9 × 9.*num_high <= 2"):
        pyramid.decompose(torch.rand(1, 3, 8, 40), 3)
    with pytest.raises(InputError, match=r"2 × 40 .* use a larger image"):
        pyramid.decompose(torch.rand(1, 3, 2, 40), 1)
    with pytest.raises(InputError, match="at least 1 level"):
        pyramid.decompose(torch.rand(1, 3, 8, 40), 0)
    with pytest.raises(InputError, match="2 × 5 pixels cannot be halved"):
        pyramid.down(torch.rand(1, 3, 2, 5))
    with pytest.raises(InputError, match="1 × 5 pixels cannot be doubled"):
        pyramid.up(torch.rand(1, 3, 1, 5), (2, 10))
    with pytest.raises(InputError, match="not to 9 × 10"):
        pyramid.up(torch.rand(1, 3, 4, 5), (9, 10))
