"""A LUT sends every colour where its table says, and smoothly in between, whichever way it is computed."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from cvpr21lib import ppr10k
from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import lut

torch.set_num_threads(1)

NAN = float("nan")
LARGE = (301, 233)  # more than 2^16 pixels, an odd number of them


@pytest.fixture(params=["grid_sample", "compiled"])
def way(request, monkeypatch):
    """Both ways of computing, whatever the size of the image."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    monkeypatch.setattr(lut, "_is_large_on_cpu", lambda image: request.param == "compiled")
    return request.param


@pytest.fixture
def without_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "cvpr21lib.ppr10k.lut_compiled", raising=False)
    monkeypatch.delattr(ppr10k, "lut_compiled", raising=False)
    lut._compiled.cache_clear()
    assert lut._compiled() is None
    yield
    lut._compiled.cache_clear()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def random_lut(size, *batch, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*batch, 3, size, size, size, generator=generator, dtype=dtype)


def random_image(n, h, w, seed=1, dtype=torch.float32):
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def affine_lut(size, matrix, offset):
    """The LUT of the colour map c -> matrix c + offset."""
    return torch.einsum("ij,jbgr->ibgr", matrix, lut.identity(size)) + offset[:, None, None, None]


# --- what a LUT does ----------------------------------------------------------------------------------------


def test_the_identity_is_indexed_colour_blue_green_red_and_exact():
    table = lut.identity(33)
    assert table.shape == (3, 33, 33, 33)
    assert table[:, 4, 2, 1].tolist() == [1 / 32, 2 / 32, 4 / 32]
    assert table[:, -1, -1, -1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("size", [2, 3, 33, 64])
def test_the_identity_divides_by_1_000001(way, size):
    image = random_image(2, 7, 9)
    image[:, :, 0, 0], image[:, :, 0, 1] = 0, 1
    expected = image.double() / 1.000001
    torch.testing.assert_close(lut.apply(lut.identity(size), image).double(), expected, rtol=0, atol=2.5e-7)


@pytest.mark.parametrize("size", [2, 5, 17])
def test_a_colour_matrix_is_reproduced_exactly(way, size):
    matrix = torch.tensor([[0.5, 0.3, -0.2], [0.1, 0.9, 0.4], [-0.3, 0.2, 1.1]])
    offset = torch.tensor([0.1, -0.2, 0.3])
    image = random_image(1, 11, 13)
    expected = torch.einsum("ij,njhw->nihw", matrix, image / 1.000001) + offset[:, None, None]
    out = lut.apply(affine_lut(size, matrix, offset), image)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_the_points_of_the_table_are_met(way):
    table = random_lut(6)
    image = lut.identity(6).flatten(2)[None]  # every point is a pixel: (1, 3, 6, 36)
    torch.testing.assert_close(lut.apply(table, image).flatten(), table.flatten(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [33, 64])
def test_there_are_no_seams_between_cells(way, size):
    """Three neighbouring floats around every border of a cell: the result never jumps."""
    borders = (np.arange(1, size) * (1.000001 / (size - 1))).astype(np.float32)
    below, above = (np.nextafter(borders, np.float32(side)) for side in (0, 2))
    values = torch.from_numpy(np.stack([below, borders, above]))
    table = random_lut(size)
    for channel in range(3):
        image = torch.full((1, 3, *values.shape), 0.3)
        image[0, channel] = values
        jump = lut.apply(table, image).diff(dim=2).abs().max()
        assert jump < 5e-6 * size  # the steepest step of the table over one float's distance


def test_output_is_not_clamped(way):
    out = lut.apply(3 * lut.identity(3) - 1, torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2))
    torch.testing.assert_close(out[0, 0, 0], torch.tensor([-1.0, 2.0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [-0.01, -7.0, -float("inf"), 1.02, 7.0, float("inf")])
def test_values_outside_zero_to_one_count_as_the_nearest_end(way, value):
    table = random_lut(5)
    inside, outside = torch.full((1, 3, 2, 2), 0.4), torch.full((1, 3, 2, 2), 0.4)
    for channel in range(3):
        inside[:, channel], outside[:, channel] = float(value > 0), value
        torch.testing.assert_close(lut.apply(table, outside), lut.apply(table, inside), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channel", range(3))
def test_a_nan_stays_a_nan_and_stays_where_it_is(way, channel):
    image = random_image(2, 4, 5)
    expected = lut.apply(random_lut(5), image)
    image[1, channel, 2, 3] = NAN
    expected[1, :, 2, 3] = NAN
    torch.testing.assert_close(lut.apply(random_lut(5), image), expected, equal_nan=True)


def test_each_image_of_a_batch_has_its_own_lut(way):
    luts, images = random_lut(5, 3), random_image(3, 6, 7)
    alone = torch.cat([lut.apply(table, image[None]) for table, image in zip(luts, images, strict=True)])
    torch.testing.assert_close(lut.apply(luts, images), alone, rtol=0, atol=1e-6)


def test_a_shared_lut_is_the_same_one_for_each_image(way):
    table, images = random_lut(5), random_image(3, 6, 7)
    torch.testing.assert_close(lut.apply(table, images), lut.apply(table.expand(3, -1, -1, -1, -1), images))


def test_fused_luts_equal_the_unfused_mixture(way):
    luts, images = random_lut(9, 5), random_image(2, 8, 9)
    weights = torch.randn(2, 5, generator=torch.Generator().manual_seed(2))
    separate = torch.stack([lut.apply(table, images) for table in luts])
    mixture = torch.einsum("nk,knchw->nchw", weights, separate)
    torch.testing.assert_close(lut.apply(lut.fuse(luts, weights), images), mixture, rtol=0, atol=1e-5)


# --- gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (2,)], ids=["shared", "own"])
@pytest.mark.parametrize("size", [2, 5])
def test_gradients_are_those_of_finite_differences(way, size, batch):
    table = random_lut(size, *batch, dtype=torch.float64).requires_grad_()
    image = (random_image(2, 3, 4, dtype=torch.float64) * 1.2 - 0.1).requires_grad_()
    borders = image.detach() * (size - 1) / 1.000001
    assert (borders - borders.round()).abs().min() > 1e-4  # finite differences stay inside a cell
    assert torch.autograd.gradcheck(lut.apply, (table, image))


def test_at_zero_and_one_the_slope_is_that_of_the_inside_and_beyond_it_is_zero(way):
    image = torch.tensor([-0.5, 0.0, 1.0, 1.5]).expand(1, 3, 1, 4).clone().requires_grad_()
    lut.apply(lut.identity(5), image).sum().backward()
    expected = torch.tensor([0.0, 1.0, 1.0, 0.0]).expand(1, 3, 1, 4)
    torch.testing.assert_close(image.grad, expected, rtol=0, atol=1e-5)


def test_an_expanded_upstream_gradient_is_read_as_such(way):
    """`sum` hands one number for all pixels; the official code reads past it."""
    table = random_lut(3).requires_grad_()
    lut.apply(table, random_image(1, 5, 7)).sum().backward()
    assert table.grad.sum().item() == pytest.approx(3 * 5 * 7, rel=1e-5)


def test_gradients_pass_through_the_fused_lut_to_weights_and_basis(way):
    luts = random_lut(3, 2, dtype=torch.float64).requires_grad_()
    weights = torch.tensor([[0.7, -0.4], [0.2, 1.1]], dtype=torch.float64, requires_grad=True)
    image = random_image(2, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: lut.apply(lut.fuse(a, b), image), (luts, weights))


# --- any type, size, layout, number of threads --------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("n", [1, 3])
def test_threads_change_nothing(way, threads, n, shared, count):
    table = (random_lut(7) if shared else random_lut(7, n)).requires_grad_()
    image = random_image(n, *LARGE).requires_grad_()
    weight = random_image(n, *LARGE, seed=2)

    def computed(number):
        threads(number)
        out = lut.apply(table, image)
        return out.detach(), *torch.autograd.grad((out * weight).sum(), (table, image))

    for ours, one in zip(computed(count), computed(1), strict=True):
        torch.testing.assert_close(ours, one, rtol=1e-5, atol=1e-5)


def test_compiled_code_equals_grid_sample():
    compiled = pytest.importorskip("cvpr21lib.ppr10k.lut_compiled", exc_type=ImportError)
    table, image = random_lut(33), random_image(2, 60, 70)
    torch.testing.assert_close(
        compiled.apply(table[None], image), lut._sample(table[None], image), rtol=0, atol=1e-6
    )


def test_compiled_code_works_where_no_folder_can_keep_it(monkeypatch):
    compiled = pytest.importorskip("cvpr21lib.ppr10k.lut_compiled", exc_type=ImportError)
    njit = compiled.numba.njit

    def without_cache(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(compiled.numba, "njit", without_cache)
    cell = compiled._machine_code(compiled._cell.py_func)
    assert cell(0.5, 4.0, 5) == (2, 0.0)


def test_large_images_take_the_compiled_way_by_themselves(monkeypatch):
    compiled = pytest.importorskip("cvpr21lib.ppr10k.lut_compiled", exc_type=ImportError)
    taken = []
    monkeypatch.setattr(compiled, "apply", lambda luts, image: taken.append(image.shape) or image)
    lut.apply(lut.identity(3), random_image(1, 255, 256))
    assert not taken
    lut.apply(lut.identity(3), random_image(1, 256, 256))
    assert taken == [(1, 3, 256, 256)]


@pytest.mark.usefixtures("without_numba")
def test_without_numba_large_images_go_another_way_to_the_same_result(threads):
    table, image = random_lut(9), random_image(1, *LARGE)
    rows = [lut.apply(table, row) for row in image.split(20, 2)]
    for count in (1, 2):
        threads(count)
        torch.testing.assert_close(lut.apply(table, image), torch.cat(rows, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(way, dtype):
    table, image = random_lut(9).to(dtype), random_image(1, 8, 9).to(dtype)
    out = lut.apply(table, image)
    assert out.dtype == dtype
    assert torch.equal(out, lut.apply(table.float(), image.float()).to(dtype))


def test_the_finer_type_of_lut_and_image_is_kept(way):
    table, image = random_lut(5), random_image(1, 4, 4)
    assert lut.apply(table.double(), image).dtype == torch.float64
    assert lut.apply(table, image.double()).dtype == torch.float64
    assert lut.apply(table, image.half()).dtype == torch.float32


def test_autocast_does_not_make_a_lut_coarser(way):
    luts, weights, image = random_lut(9, 3), torch.tensor([[0.3, 0.5, 0.2]]), random_image(1, 8, 9)
    expected = lut.apply(lut.fuse(luts, weights), image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lut.apply(lut.fuse(luts, weights), image), expected)


def test_memory_layout_does_not_matter(way):
    table, image = random_lut(5), random_image(2, 6, 8)
    expected = lut.apply(table, image)
    assert torch.equal(lut.apply(table, image.contiguous(memory_format=torch.channels_last)), expected)
    assert torch.equal(lut.apply(table, image.repeat(1, 1, 1, 2)[..., :8]), expected)
    assert torch.equal(lut.apply(table.transpose(1, 3).contiguous().transpose(1, 3), image), expected)


def test_torch_compile_traces_it_whole():
    table, image = random_lut(5), random_image(1, *LARGE)
    traced = torch.compile(lut.apply, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(traced(table, image), lut.apply(table, image))


def test_many_threads_of_a_program_may_use_it_at_once(way):
    table, images = random_lut(9), [random_image(1, 90, 100, seed=i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda image: lut.apply(table, image), images))
    for ours, image in zip(at_once, images, strict=True):
        assert torch.equal(ours, lut.apply(table, image))


class Retouched(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return lut.apply(random_lut(5), random_image(1, *LARGE, seed=index))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_loader_may_use_it_after_its_parent(threads):
    threads(2)
    expected = [Retouched()[0], Retouched()[1]]
    threads(1)  # what a loader's processes do, and what torch asks of a parent that forks
    loader = DataLoader(
        Retouched(), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60
    )
    for ours, one in zip(loader, expected, strict=True):
        torch.testing.assert_close(ours, one, rtol=0, atol=1e-6)


# --- eight bits ---------------------------------------------------------------------------------------------


def exact_8bit(table, pixels):
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].double() / 255
    exact = (255 * lut.apply(table.double(), image)[0] + 0.5).clamp(0, 255).byte()
    return exact.permute(1, 2, 0).numpy()


def random_pixels(height, width):
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(params=["compiled", "without numba"])
def way_8bit(request):
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        request.getfixturevalue("without_numba")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("size", [2, 33, 65, 70])
def test_eight_bits_are_within_one_count_of_the_exact_result(way_8bit, threads, size, count):
    threads(count)
    table = 1.4 * random_lut(size) - 0.2  # colours on both sides of [0, 1]
    pixels = random_pixels(*LARGE)
    off = np.abs(lut.apply_8bit(table, pixels).astype(int) - exact_8bit(table, pixels))
    assert off.max() <= 1
    assert (off > 0).mean() < 0.05


def test_the_identity_changes_no_byte(way_8bit):
    pixels = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).astype(np.uint8)
    pixels = np.concatenate([pixels, pixels[..., :1] ^ 255], -1)
    assert np.array_equal(lut.apply_8bit(lut.identity(33), pixels), pixels)


@pytest.mark.parametrize("turn", [lambda x: x[:, ::-1], lambda x: x[..., ::-1], lambda x: x.swapaxes(0, 1)])
def test_eight_bits_of_any_memory_layout(way_8bit, turn):
    table, pixels = random_lut(5), turn(random_pixels(31, 17))
    kept = pixels.copy()
    assert np.array_equal(lut.apply_8bit(table, pixels), lut.apply_8bit(table, np.ascontiguousarray(pixels)))
    assert np.array_equal(pixels, kept)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 0, -3])
def test_an_identity_needs_two_points(size):
    with pytest.raises(InputError, match=f"size {size} .* size of 2 or more"):
        lut.identity(size)


BAD_LUTS = {
    "D=1": (torch.zeros(3, 1, 1, 1), r"\(3, 1, 1, 1\).*D = 2 or more"),
    "colours last": (torch.zeros(5, 5, 5, 3), r"\(5, 5, 5, 3\), colours last; .*permute\(3, 0, 1, 2\)"),
    "unequal sides": (torch.zeros(3, 5, 5, 4), r"\(3, 5, 5, 4\); expected \(3, D, D, D\)"),
    "four colours": (torch.zeros(4, 5, 5, 5), r"\(4, 5, 5, 5\); expected \(3, D, D, D\)"),
    "flat": (torch.zeros(3, 125), r"\(3, 125\); expected \(3, D, D, D\)"),
    "integers": (torch.zeros(3, 5, 5, 5, dtype=torch.uint8), r"type torch.uint8; convert it with .float\(\)"),
}


@pytest.mark.parametrize("name", BAD_LUTS)
def test_a_lut_of_another_shape_is_named_with_the_remedy(name):
    table, message = BAD_LUTS[name]
    with pytest.raises(InputError, match=message):
        lut.apply(table, random_image(1, 2, 2))
    with pytest.raises(InputError, match=message):
        lut.apply_8bit(table, random_pixels(2, 2))


def test_as_many_luts_as_images():
    with pytest.raises(InputError, match=r"2 LUTs .* do not fit 3 images; give one LUT an image"):
        lut.apply(random_lut(3, 2), random_image(3, 2, 2))


BAD_IMAGES = {
    "grey": (torch.rand(2, 1, 4, 5), r"\(2, 1, 4, 5\), which is grey; .*expand\(-1, 3, -1, -1\)"),
    "channels last": (torch.rand(2, 4, 5, 3), r"\(2, 4, 5, 3\), channels last; .*permute\(0, 3, 1, 2\)"),
    "no batch": (torch.rand(3, 4, 5), r"\(3, 4, 5\); add the batch axis with image\[None\]"),
    "alpha": (torch.rand(2, 4, 4, 5), r"\(2, 4, 4, 5\); expected \(N, 3, H, W\)"),
    "no pixels": (torch.rand(2, 3, 0, 5), r"no pixels in an image of shape \(2, 3, 0, 5\)"),
    "bytes": (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), r"type torch.uint8; .*image / 255"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_an_image_of_another_shape_is_named_with_the_remedy(name):
    image, message = BAD_IMAGES[name]
    with pytest.raises(InputError, match=message):
        lut.apply(lut.identity(3), image)


def test_lut_and_image_must_be_on_one_device():
    with pytest.raises(InputError, match=r"LUT is on meta and the image on cpu; move one to the other"):
        lut.apply(lut.identity(3, device="meta"), random_image(1, 2, 2))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (random_pixels(2, 2) / 255, "type float64; expected uint8"),
        (random_pixels(2, 2).astype(np.uint16), "type uint16; expected uint8"),
        (random_pixels(2, 2)[..., 0], r"\(2, 2\); expected \(H, W, 3\).*grey"),
        (np.zeros((2, 2, 4), np.uint8), r"\(2, 2, 4\); expected \(H, W, 3\).*without alpha"),
        (np.zeros((0, 2, 3), np.uint8), r"no pixels in an image of shape \(0, 2, 3\)"),
    ],
    ids=["floats", "16 bits", "grey", "alpha", "empty"],
)
def test_eight_bits_that_do_not_fit_are_named_with_the_remedy(pixels, message):
    with pytest.raises(InputError, match=message):
        lut.apply_8bit(lut.identity(3), pixels)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_diverged_lut_makes_no_bytes(value):
    table = lut.identity(3)
    table[0, 1, 1, 1] = value
    with pytest.raises(InputError, match="LUT holds NaN or infinite values"):
        lut.apply_8bit(table, random_pixels(2, 2))


@pytest.mark.parametrize(
    "shapes", [((3, 5, 5, 5), (2, 3)), ((4, 3, 5, 5, 5), (2, 3)), ((4, 3, 5, 5, 5), (4,))]
)
def test_what_cannot_be_mixed_is_named(shapes):
    luts, weights = map(torch.zeros, shapes)
    with pytest.raises(InputError, match=r"expected \(K, 3, D, D, D\) and \(N, K\) with the same K"):
        lut.fuse(luts, weights)
