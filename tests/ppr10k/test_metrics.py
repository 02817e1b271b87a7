"""What PPR10K's measures mean, on images small enough to reason about."""

import numpy as np
import pytest
import torch
from skimage.color import deltaE_cie76, rgb2lab

from cvpr21lib import metrics as house
from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import metrics
from cvpr21lib.ppr10k.metrics import Measures
from tests.conftest import photograph


def pair(height=37, width=29):
    """A photograph and one like it, uint8 (H, W, 3), and a mask with some people."""
    target = photograph(0, height, width)
    noise = np.random.default_rng(1).integers(-20, 21, target.shape)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 :, width // 3 : width // 2] = 255
    return np.clip(target + noise, 0, 255).astype(np.uint8), target, mask


def flat(colour, height=4, width=4):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))


# --- PSNR -------------------------------------------------------------------------------------------------


def test_psnr_is_the_house_s_own():
    pred, target, _ = pair()
    assert metrics.psnr(pred, target) == pytest.approx(house.psnr(pred, target), abs=1e-12)


def test_identical_images_have_infinite_psnr_and_no_colour_difference():
    _, target, mask = pair()
    measures = metrics.measure(target, target, mask)
    assert measures.psnr == measures.psnr_hc == float("inf")
    assert measures.delta_e == measures.delta_e_hc == 0


def test_the_background_counts_a_quarter_in_squared_error_and_half_in_colour():
    target = flat((100, 100, 100))
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    on_people, behind = target.copy(), target.copy()
    on_people[:2] += 10
    behind[2:] += 10
    assert metrics.psnr(on_people, target) == metrics.psnr(behind, target)
    lost = metrics.psnr_hc(behind, target, mask) - metrics.psnr_hc(on_people, target, mask)
    assert lost == pytest.approx(10 * np.log10(4))
    ratio = metrics.delta_e_hc(on_people, target, mask) / metrics.delta_e_hc(behind, target, mask)
    assert ratio == pytest.approx(2)


def test_an_image_of_people_only_scores_the_same_with_and_without_the_mask():
    pred, target, mask = pair()
    measures = metrics.measure(pred, target, np.ones_like(mask))
    assert measures.psnr_hc == pytest.approx(measures.psnr, abs=1e-12)
    assert measures.delta_e_hc == pytest.approx(measures.delta_e, abs=1e-12)


def test_an_empty_mask_is_the_upper_bound_of_psnr_hc_and_half_the_colour_difference():
    pred, target, mask = pair()
    measures = metrics.measure(pred, target, np.zeros_like(mask))
    assert measures.psnr_hc == pytest.approx(measures.psnr + 20 * np.log10(2), abs=1e-12)
    assert measures.delta_e_hc == pytest.approx(measures.delta_e / 2, abs=1e-12)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16, np.float32])
def test_any_value_but_zero_is_human(kind):
    pred, target, mask = pair()
    expected = metrics.psnr_hc(pred, target, mask)
    assert metrics.psnr_hc(pred, target, (mask != 0).astype(kind)) == expected


def test_people_and_background_are_measured_apart():
    target = flat((100, 100, 100))
    pred, mask = target.copy(), np.zeros((4, 4), bool)
    mask[0] = True
    pred[0] += 10
    pred[1:] += 1
    assert metrics.human_psnr(pred, target, mask) == pytest.approx(20 * np.log10(255 / 10))
    assert metrics.background_psnr(pred, target, mask) == pytest.approx(20 * np.log10(255))


@pytest.mark.parametrize(
    ("measure", "fill", "complaint"),
    [(metrics.human_psnr, 0, "no human pixel"), (metrics.background_psnr, 1, "no background pixel")],
)
def test_a_region_without_pixels_is_named(measure, fill, complaint):
    pred, target, mask = pair()
    with pytest.raises(InputError, match=complaint):
        measure(pred, target, np.full_like(mask, fill))


# --- colours ----------------------------------------------------------------------------------------------


def test_lab_agrees_with_scikit_image_but_for_its_rounded_matrix():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_allclose(metrics.lab(image), rgb2lab(image), rtol=0, atol=0.006)


def test_greys_have_no_colour_and_black_to_white_is_0_to_100():
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    lightness, *colour = np.moveaxis(metrics.lab(greys), -1, 0)
    np.testing.assert_allclose(colour, 0, atol=1e-12)
    assert lightness[0] == pytest.approx(0, abs=1e-12)
    assert lightness[-1] == pytest.approx(100)
    assert (np.diff(lightness[:, 0]) > 0).all()


def test_delta_e_is_the_colour_difference_of_1976():
    pred, target, _ = pair()
    assert metrics.delta_e(pred, target) == pytest.approx(
        deltaE_cie76(metrics.lab(pred), metrics.lab(target)).mean(), abs=1e-12
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (700, 60), (3, 40)])
def test_an_image_of_any_size_is_measured_in_bands_as_if_at_once(size):
    pred, target = (photograph(seed, *size) for seed in (0, 1))
    first, second = metrics.lab(pred), metrics.lab(target)
    assert metrics.delta_e(pred, target) == pytest.approx(np.linalg.norm(first - second, axis=-1).mean())
    np.testing.assert_allclose(metrics.mean_lab(pred), first.mean((0, 1)), atol=1e-11)
    measures = metrics.measure(pred, target)
    np.testing.assert_allclose(measures.mean_ab, first.mean((0, 1))[1:], atol=1e-11)
    np.testing.assert_allclose(measures.target_mean_ab, second.mean((0, 1))[1:], atol=1e-11)


def test_mean_colour_is_of_the_whole_frame():
    image = flat((255, 0, 0)).copy()
    image[:2] = (0, 0, 255)
    expected = (metrics.lab(flat((255, 0, 0))) + metrics.lab(flat((0, 0, 255))))[0, 0] / 2
    np.testing.assert_allclose(metrics.mean_ab(image), expected[1:])


# --- groups -----------------------------------------------------------------------------------------------


def test_mglc_is_the_unbiased_variance_within_each_group_averaged_over_groups():
    means = [(0.0, 0.0), (2.0, 4.0), (5.0, 5.0), (6.0, 5.0), (7.0, 5.0)]
    groups = ["a", "a", "b", "b", "b"]
    assert metrics.group_variances(means, groups) == {"a": (2 + 8) / 2, "b": (1 + 0) / 2}
    assert metrics.mglc(means, groups) == pytest.approx((5 + 0.5) / 2)


def test_a_group_of_one_photograph_counts_as_zero():
    assert metrics.mglc([(0, 0), (2, 4), (9, 9)], ["a", "a", "b"]) == pytest.approx(5 / 2)
    assert metrics.mglc([(9, 9)], ["b"]) == 0


def test_groups_are_told_apart_by_their_ids_and_not_by_their_order():
    means, groups = [(0, 0), (9, 9), (2, 4)], ["a", "b", "a"]
    assert metrics.mglc(means, groups) == metrics.mglc(means[::2] + means[1:2], ["a", "a", "b"])


def test_a_grey_result_has_a_perfect_mglc():
    greys = [flat((level, level, level)) for level in (20, 120, 250)]
    means = [metrics.mean_ab(image) for image in greys]
    assert metrics.mglc(np.array(means), ["a"] * 3) == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize(
    ("name", "group"), [("1356_0", "1356"), ("7_12_3", "7"), ("portrait", "portrait"), ("_0", "")]
)
def test_a_group_is_the_name_up_to_the_first_underscore(name, group):
    assert metrics.group_id(name) == group


@pytest.mark.parametrize(
    ("means", "groups"), [([], []), ([(1, 2)], []), ([(1, 2, 3)], ["a"]), ([(1, 2)], ["a", "b"])]
)
def test_means_that_do_not_fit_their_groups_are_named(means, groups):
    with pytest.raises(InputError, match=r"\(P, 2\), and P group ids"):
        metrics.mglc(means, groups)


# --- summary ----------------------------------------------------------------------------------------------


def test_the_summary_averages_decibels_and_shows_the_target_s_own_mglc():
    photographs = {
        "1_0": Measures(20.0, 5.0, 23.0, 3.0, (0.0, 0.0), (0.0, 0.0)),
        "1_1": Measures(30.0, 7.0, 33.0, 4.0, (2.0, 4.0), (0.0, 2.0)),
    }
    assert metrics.summary(photographs) == {
        "psnr": 25.0,
        "delta_e": 6.0,
        "psnr_hc": 28.0,
        "delta_e_hc": 3.5,
        "mglc": 5.0,
        "target_mglc": 1.0,
        "mglc_gap": 4.0,
    }


def test_without_masks_there_are_no_human_centred_columns():
    pred, target, _ = pair()
    numbers = metrics.summary({"1_0": metrics.measure(pred, target)})
    assert list(numbers) == ["psnr", "delta_e", "mglc", "target_mglc", "mglc_gap"]


def test_nothing_to_summarise_is_named():
    with pytest.raises(InputError, match="no photograph"):
        metrics.summary({})


# --- 8 bits -----------------------------------------------------------------------------------------------


def test_quantise_rounds_half_up_as_the_official_code_saves():
    values = np.random.default_rng(0).uniform(-0.1, 1.1, 10000).astype(np.float32)
    official = torch.from_numpy(values).mul(255).add(0.5).clamp(0, 255).to(torch.uint8)
    np.testing.assert_array_equal(metrics.quantise(values), official.numpy())


def test_quantise_differs_from_the_house_s_rule_only_halfway_above_an_even_number():
    halves = (np.arange(255) + 0.5) / 255
    up, even = metrics.quantise(halves).astype(int), house.quantise(halves).astype(int)
    exact = halves * 255 % 1 == 0.5  # the others are rounding away from a half already
    np.testing.assert_array_equal((up - even)[exact], (np.arange(255) % 2 == 0)[exact])
    assert exact.sum() > 200


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_eight_bit_values_survive_the_way_through_floats(kind):
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(metrics.quantise(levels.astype(kind) / kind(255)), levels)


def test_a_sixteen_bit_photograph_scores_like_its_eight_bit_file():
    pred, target, _ = pair()
    deep = pred.astype(np.float32) / 255 + np.float32(100 / 65535)
    assert metrics.psnr(deep, target) == metrics.psnr(pred, target)


# --- masks of another size --------------------------------------------------------------------------------


def test_a_mask_of_its_own_size_is_not_changed():
    mask = pair()[2]
    np.testing.assert_array_equal(metrics.resize_mask(mask, mask.shape), mask != 0)


def test_a_shrunk_mask_keeps_every_pixel_that_touches_a_person():
    mask = np.zeros((40, 60), np.uint8)
    mask[8:24, 12:40] = 1
    shrunk = metrics.resize_mask(mask, (10, 15))
    assert shrunk.dtype == bool
    assert shrunk[2:6, 3:10].all()
    assert not shrunk[:1].any()
    assert not shrunk[8:].any()


def test_an_enlarged_mask_covers_the_people_and_at_most_two_of_its_pixels_more():
    mask = np.zeros((10, 15), bool)
    mask[3:6, 4:9] = True
    large = metrics.resize_mask(mask, (40, 60))
    assert large[12:24, 16:36].all()
    rows, columns = (np.flatnonzero(large.any(axis)) for axis in (1, 0))
    assert rows.min() >= 4 * (3 - 2)
    assert rows.max() < 4 * (6 + 2)
    assert columns.min() >= 4 * (4 - 2)
    assert columns.max() < 4 * (9 + 2)


def imresize(image: np.ndarray, size: int) -> np.ndarray:
    """One pass of MATLAB's `imresize` (bicubic, antialiased, 8 bits) over the rows, but for its borders."""
    scale = size / len(image)
    centres = (np.arange(size) + 0.5) / scale - 0.5
    x = np.abs(centres[:, None] - np.arange(len(image))) * min(1, scale)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x <= 1, near, np.where(x <= 2, far, 0))
    return np.clip(np.round(weights / weights.sum(1, keepdims=True) @ image), 0, 255)


@pytest.mark.parametrize("size", [(20, 26), (26, 20), (64, 84), (40, 122), (73, 31), (13, 50)])
def test_a_mask_is_resized_as_imresize_does_away_from_the_border(size):
    mask = np.zeros((40, 52), np.uint8)
    mask[15:24, 14:33] = 255
    mask[[12, 20, 24, 25], [20, 35, 14, 33]] = 255
    if size[0] / 40 <= size[1] / 52:
        expected = imresize(imresize(mask, size[0]).T, size[1]).T
    else:
        expected = imresize(imresize(mask.T, size[1]).T, size[0])
    np.testing.assert_array_equal(metrics.resize_mask(mask, size), expected != 0)


@pytest.mark.parametrize("fill", [0, 1])
def test_empty_and_full_masks_stay_so_at_any_size(fill):
    resized = metrics.resize_mask(np.full((9, 14), fill), (23, 5))
    assert resized.shape == (23, 5)
    assert (resized == fill).all()


# --- bad input --------------------------------------------------------------------------------------------


def test_a_mask_of_another_size_is_named_with_the_remedy():
    pred, target, mask = pair()
    with pytest.raises(InputError, match=r"mask has 36×29 pixels and the photograph 37×29.*resize_mask"):
        metrics.psnr_hc(pred, target, mask[1:])
    with pytest.raises(InputError, match="mask has 37×29×1 pixels"):
        metrics.delta_e_hc(pred, target, mask[..., None])


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((37, 29), np.uint8), r"\(H, W, 3\).*\(37, 29\)"),
        (np.zeros((3, 37, 29), np.float32), r"\(H, W, 3\).*\(3, 37, 29\)"),
        (np.zeros((0, 29, 3), np.uint8), r"\(0, 29, 3\)"),
        (np.zeros((37, 29, 3), np.uint16), "uint16"),
        (np.full((37, 29, 3), np.nan), "NaN"),
        (np.full((37, 29, 3), np.inf), "infinite"),
        (np.zeros((37, 30, 3), np.uint8), "result has 37×30 pixels and the target 37×29"),
    ],
)
def test_what_cannot_be_measured_is_named(image, complaint):
    _, target, mask = pair()
    with pytest.raises(InputError, match=complaint):
        metrics.measure(image, target, mask)
