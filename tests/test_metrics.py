"""What PSNR and SSIM mean, on images small enough to reason about."""

import numpy as np
import pytest
import torch
import torchmetrics.functional.image as peers

from cvpr21lib import metrics
from cvpr21lib.errors import InputError


def noisy_pair(height=37, width=29, seed=0):
    """Two uint8 images `(H, W, 3)` that differ by noise."""
    random = np.random.default_rng(seed)
    target = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    noise = random.integers(-20, 21, target.shape)
    return np.clip(target + noise, 0, 255).astype(np.uint8), target


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def test_one_grey_level_off_everywhere_is_48_13_db():
    image = np.full((8, 8, 3), 100, np.uint8)
    assert metrics.psnr(image, image + 1) == pytest.approx(20 * np.log10(255))


def test_all_channels_share_one_mean_squared_error():
    target = np.zeros((4, 4, 3), np.uint8)
    pred = target.copy()
    pred[..., 0] = 30
    assert metrics.psnr(pred, target) == pytest.approx(10 * np.log10(255**2 / (30**2 / 3)))


def test_identical_images_have_infinite_psnr_and_full_similarity():
    _, image = noisy_pair()
    assert metrics.psnr(image, image) == float("inf")
    assert metrics.ssim(image, image) == pytest.approx(1)


def test_a_tensor_scores_like_the_array_it_came_from():
    pred, target = noisy_pair()
    for metric in (metrics.psnr, metrics.ssim):
        assert metric(tensor(pred), tensor(target)) == metric(pred, target)
        assert metric(tensor(pred)[None], target) == metric(pred, target)


def test_values_are_rounded_to_8_bits_before_they_are_compared():
    target = torch.full((3, 12, 12), 0.5)
    assert metrics.psnr(target + 0.4 / 255, target) == float("inf")


def test_quantise_clamps_and_rounds_half_to_even():
    values = np.array([-1, 0.5 / 255, 1.5 / 255, 2.5 / 255, 1, 7], np.float64)
    assert metrics.quantise(values).tolist() == [0, 0, 2, 2, 255, 255]


def test_quantise_takes_half_precision():
    assert metrics.quantise(torch.tensor([0.0, 0.5, 1.0], dtype=torch.bfloat16)).tolist() == [0, 128, 255]


def test_crop_border_leaves_out_the_rim():
    _, target = noisy_pair()
    pred = target.copy()
    pred[:4] = pred[-4:] = 0
    pred[:, :4] = pred[:, -4:] = 0
    assert metrics.psnr(pred, target) < 20
    assert metrics.psnr(pred, target, crop_border=4) == float("inf")


@pytest.mark.parametrize(
    ("colour", "luma"),
    [((0, 0, 0), 16), ((255, 255, 255), 235), ((255, 0, 0), 81.481), ((0, 0, 255), 40.966)],
)
def test_luma_is_studio_swing(colour, luma):
    image = np.broadcast_to(np.array(colour, np.uint8), (4, 4, 3))
    black = np.zeros((4, 4, 3), np.uint8)
    difference = luma - 16
    expected = float("inf") if difference == 0 else 20 * np.log10(255 / difference)
    assert metrics.psnr(image, black, y_channel=True) == pytest.approx(expected)


def test_psnr_agrees_with_torchmetrics():
    pred, target = noisy_pair()
    peer = peers.peak_signal_noise_ratio(
        tensor(pred).double() * 255, tensor(target).double() * 255, data_range=255.0
    )
    assert metrics.psnr(pred, target) == pytest.approx(peer.item(), abs=1e-5)


def test_ssim_agrees_with_torchmetrics_inside_the_rim():
    # torchmetrics averages over reflected borders too; away from them its map is the same.
    pred, target = noisy_pair()
    as_double = [torch.from_numpy(image).permute(2, 0, 1)[None].double() for image in (pred, target)]
    _, similarity = peers.structural_similarity_index_measure(
        *as_double, data_range=255.0, return_full_image=True
    )
    assert metrics.ssim(pred, target) == pytest.approx(similarity[..., 5:-5, 5:-5].mean().item(), abs=1e-9)


@pytest.mark.parametrize(
    ("pred", "target", "complaint"),
    [
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8), r"\(8, 8, 3\) and \(8, 9, 3\)"),
        (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8), r"\(H, W, 3\).*\(8, 8\)"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), r"one RGB image.*\(2, 3, 8, 8\)"),
        (np.zeros((8, 8, 3), np.uint16), np.zeros((8, 8, 3), np.uint16), "uint16"),
        (torch.full((3, 8, 8), torch.nan), torch.zeros(3, 8, 8), "NaN"),
    ],
)
def test_what_cannot_be_compared_is_named(pred, target, complaint):
    with pytest.raises(InputError, match=complaint):
        metrics.psnr(pred, target)


def test_a_border_that_leaves_nothing_is_named():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="crop_border=4 leaves nothing of an image of 8×8"):
        metrics.psnr(image, image, crop_border=4)


def test_ssim_of_an_image_smaller_than_its_window_is_named():
    image = np.zeros((18, 40, 3), np.uint8)
    with pytest.raises(InputError, match="at least 11×11 pixels, but 10×32 are left"):
        metrics.ssim(image, image, crop_border=4)
