"""The lattice filters as its paper says, and the CRF does what it is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import crf
from cvpr21lib.segmentation.crf import CRF, DEEPLAB, PSA
from cvpr21lib.segmentation.permutohedral import Lattice

SMALL = CRF(near_weight=2, near_xy=2, alike_weight=5, alike_xy=15, alike_rgb=20, iterations=5)


@pytest.fixture
def halves() -> tuple[np.ndarray, np.ndarray]:
    """Two colours side by side with noise, and three labels: which half (unsure), and none."""
    rng = np.random.default_rng(0)
    image = np.full((30, 40, 3), (200, 60, 40), np.uint8)
    image[:, 18:] = (40, 80, 190)
    image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    left = np.where(np.arange(40) < 18, 0.58, 0.38) + rng.normal(0, 0.12, (30, 40))
    left = left.clip(0.05, 0.9)
    third = np.full_like(left, 0.02)
    return image, np.stack([left, 0.98 - left, third]).astype(np.float32)


def literal_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Adams et al., one point and one vertex after the other, in float64."""
    d = features.shape[1]
    basis = np.triu(np.ones((d + 1, d))) - np.diag(np.arange(1.0, d + 1), -1)[:, :d]
    positions = features @ (basis / np.linalg.norm(basis, axis=0)).T * (d + 1) * np.sqrt(2 / 3)
    vertices: dict[tuple[int, ...], np.ndarray] = {}
    corners: list[list[tuple[tuple[int, ...], float]]] = []
    for position, value in zip(positions, values, strict=True):
        zero = np.round(position / (d + 1)).astype(int) * (d + 1)
        by_height = np.argsort(zero - position)
        surplus = zero.sum() // (d + 1)  # the nearest multiples need not add up to 0: move the worst rounded
        zero[by_height[len(zero) - max(surplus, 0) :]] -= d + 1
        zero[by_height[: max(-surplus, 0)]] += d + 1
        by_height = np.argsort(zero - position)
        simplex = np.array([zero + k - (d + 1) * (np.argsort(by_height) > d - k) for k in range(d + 1)])
        weights = np.linalg.lstsq(np.vstack([simplex.T, np.ones(d + 1)]), np.append(position, 1))[0]
        corners.append([(tuple(map(int, corner)), w) for corner, w in zip(simplex, weights, strict=True)])
        for corner, weight in corners[-1]:
            vertices[corner] = vertices.get(corner, 0) + weight * value
    for axis in range(d + 1):
        step = np.ones(d + 1, int) - (d + 1) * (np.arange(d + 1) == axis)
        vertices = {
            key: value + sum(vertices.get(tuple(map(int, key + sign * step)), 0) for sign in (1, -1)) / 2
            for key, value in vertices.items()
        }
    return np.array([sum(weight * vertices[corner] for corner, weight in point) for point in corners])


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_the_filter_is_that_of_the_paper(d):
    rng = np.random.default_rng(d)
    features, values = rng.normal(0, 1.5, (150, d)).astype(np.float32), rng.random((150, 2), np.float32)
    np.testing.assert_allclose(Lattice(features).filter(values), literal_filter(features, values), rtol=2e-5)


def test_the_filter_has_the_shape_and_width_of_the_gaussian():
    rng = np.random.default_rng(0)
    features, values = rng.normal(0, 2, (1500, 2)).astype(np.float32), rng.random((1500, 1), np.float32)
    lattice, ones = Lattice(features), np.ones((1500, 1), np.float32)
    ours = lattice.filter(values) / lattice.filter(ones)
    squares = ((features[:, None] - features) ** 2).sum(-1)
    error = {}
    for width in (0.8, 1, 1.25):
        kernel = np.exp(-squares / (2 * width**2))
        error[width] = np.abs(ours - kernel @ values / (kernel @ ones)).mean() / ours.std()
    assert error[1] < 0.1
    assert min(error[0.8], error[1.25]) > 2 * error[1]


def test_a_point_gives_its_value_away_completely():
    lattice = Lattice(np.random.default_rng(0).normal(0, 3, (400, 5)).astype(np.float32))
    assert lattice.splat.data.min() >= -1e-6
    np.testing.assert_allclose(lattice.splat.sum(1), 1, atol=1e-5)


def test_too_small_deviations_are_refused():
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="take larger standard deviations"):
        replace(PSA, alike_rgb=1e-2)(image, np.full((2, 20, 20), 0.5))


def test_a_noisy_mask_becomes_the_two_halves(halves):
    image, p = halves
    truth = np.broadcast_to(np.arange(40) >= 18, (30, 40))
    assert (p.argmax(0) != truth).mean() > 0.1
    assert (SMALL(image, p).argmax(0) == truth).all()


def test_beliefs_are_close_to_those_of_all_pairs_of_pixels(halves):
    """Exact sums instead of the lattice; at 40 x 56 the two differ by 0.007 on average (paper sheet)."""
    image, p = halves
    y, x = np.mgrid[:30, :40]
    places, colours = np.stack([x, y], -1).reshape(-1, 2), image.reshape(-1, 3).astype(float)
    kernel = np.zeros((1200, 1200))
    alike = np.concatenate([places / DEEPLAB.alike_xy, colours / DEEPLAB.alike_rgb], 1)
    for weight, features in ((DEEPLAB.near_weight, places / DEEPLAB.near_xy), (DEEPLAB.alike_weight, alike)):
        gaussian = np.exp(-((features[:, None] - features) ** 2).sum(-1) / 2)
        norm = 1 / np.sqrt(gaussian.sum(1))
        kernel += weight * norm[:, None] * gaussian * norm
    energy = crf.unary(p).reshape(3, -1).T
    q = np.exp(-energy) / np.exp(-energy).sum(1, keepdims=True)
    for _ in range(DEEPLAB.iterations):
        message = np.exp(kernel @ q - energy)
        q = message / message.sum(1, keepdims=True)
    exact, ours = q.T.reshape(3, 30, 40), DEEPLAB(image, p)
    assert np.abs(exact - ours).mean() < 0.03
    assert (exact.argmax(0) == ours.argmax(0)).mean() > 0.97


def test_labels_may_come_in_any_order(halves):
    image, p = halves
    order = [2, 0, 1]
    np.testing.assert_allclose(SMALL(image, p[order]), SMALL(image, p)[order], atol=1e-5)


def test_a_label_that_is_not_there_may_be_left_out(halves):
    image, p = halves
    with_it = SMALL(image, np.concatenate([p, np.zeros_like(p[:1])]))
    np.testing.assert_allclose(with_it[:3], SMALL(image, p), atol=1e-3)


def test_beliefs_add_up_to_one(halves):
    image, p = halves
    np.testing.assert_allclose(PSA(image, p).sum(0), 1, atol=1e-5)


def test_without_kernels_p_is_only_normalised(halves):
    image, p = halves
    alone = replace(SMALL, near_weight=0, alike_weight=0)
    np.testing.assert_allclose(alone(image, p * 0.5), p / p.sum(0), atol=1e-5)


def test_one_label_is_everywhere(halves):
    np.testing.assert_array_equal(SMALL(halves[0], halves[1][2:]), 1)


def test_huge_weights_do_not_overflow(halves):
    """Where exp would, the largest exponent is taken off first; both ways agree where both work."""
    image, p = halves
    q = replace(SMALL, alike_weight=5000)(image, p)
    assert np.isfinite(q).all()
    np.testing.assert_allclose(q.sum(0), 1, atol=1e-5)


def test_taking_off_the_maximum_changes_nothing(halves, monkeypatch):
    image, p = halves
    usual = SMALL(image, p)
    monkeypatch.setattr(crf, "LARGEST_EXPONENT", 0)
    np.testing.assert_allclose(SMALL(image, p), usual, atol=1e-5)


def test_the_second_image_of_a_size_reuses_the_kernel_of_place_unchanged(halves):
    image, p = halves
    crf._near.cache_clear()
    first, second = SMALL(image, p), SMALL(image, p)
    assert crf._near.cache_info().hits == 1
    np.testing.assert_array_equal(first, second)


def test_views_and_read_only_images_will_do(halves):
    image, p = halves
    view = np.flip(np.flip(image, 1).copy(), 1)
    view.setflags(write=False)
    np.testing.assert_array_equal(SMALL(view, p), SMALL(image, p))


def test_the_background_is_what_no_class_claims():
    maps = np.array([[[0.2, 0.9]], [[0.5, 0.0]]], np.float32)
    np.testing.assert_allclose(crf.class_scores(maps, 4)[0], [[0.5**4, 0.1**4]], rtol=1e-5)
    np.testing.assert_array_equal(crf.class_scores(maps, 4)[1:], maps)
    np.testing.assert_array_equal(crf.class_scores(np.zeros((0, 1, 2)), 4), [[[1, 1]]])


@pytest.mark.parametrize(
    ("image", "p", "message"),
    [
        (np.zeros((8, 9, 3), np.uint8), np.ones((2, 9, 8)), "8 x 9 pixels, its label maps have 9 x 8"),
        (np.zeros((8, 9, 3)), np.ones((2, 8, 9)), "float64"),
        (np.zeros((8, 9), np.uint8), np.ones((2, 8, 9)), "RGB"),
        (np.zeros((8, 9, 3), np.uint8), np.ones((8, 9)), r"expected \(L, H, W\)"),
        (np.zeros((8, 9, 3), np.uint8), np.ones((0, 8, 9)), r"expected \(L, H, W\)"),
        (np.zeros((8, 9, 3), np.uint8), np.full((2, 8, 9), np.nan), "diverged"),
    ],
)
def test_what_does_not_fit_is_said(image, p, message):
    with pytest.raises(InputError, match=message):
        SMALL(image, p)
