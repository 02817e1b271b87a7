from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import metrics
from tests.eps import literal

VOID = 255


def masks(seed: int = 0, size: tuple[int, int] = (40, 50), classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, size).astype(np.uint8)
    target[rng.random(size) < 0.1] = VOID
    return target, rng.integers(0, classes, size).astype(np.uint8)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.int32])
def test_confusion_counts_valid_pixels_by_class(kind):
    target, pred = masks()
    counted = metrics.confusion(target.astype(kind), pred.astype(kind), 6)
    assert counted.dtype == np.int64
    np.testing.assert_array_equal(counted, literal.confusion(target, pred, 6))


def test_values_outside_the_classes_do_not_count():
    target = np.array([[0, 1, 2, -1, 1, 300]])
    pred = np.array([[0, 1, 0, 0, 255, 0]])
    np.testing.assert_array_equal(metrics.confusion(target, pred, 2), [[1, 0], [0, 1]])


def test_large_images_are_counted_exactly():
    ones = np.ones((4099, 4099), np.uint8)  # an odd number beyond 2^24, where float32 has even ones only
    assert metrics.confusion(ones, ones, 2)[1, 1] == 4099**2


def test_predictions_are_cropped_from_the_top_left_and_must_cover_the_target():
    target, pred = masks()
    larger = np.pad(pred, ((0, 3), (0, 5)), constant_values=1)
    np.testing.assert_array_equal(metrics.confusion(target, larger, 6), metrics.confusion(target, pred, 6))
    with pytest.raises(InputError, match="39×50 pixels and the target 40×50"):
        metrics.confusion(target, pred[1:], 6)
    with pytest.raises(InputError, match="float32; expected integers"):
        metrics.confusion(target, pred.astype(np.float32), 6)
    with pytest.raises(InputError, match="256 values"):
        metrics.confusion(target, pred, 256)


def test_miou_of_sums_is_torchmetrics_over_all_images():
    pairs = [masks(seed) for seed in range(3)]
    scores = metrics.scores(sum(metrics.confusion(*pair, 6) for pair in pairs))
    target, pred = (torch.from_numpy(np.stack(side)).long() for side in zip(*pairs, strict=True))
    expected = multiclass_jaccard_index(pred, target, 6, average=None, ignore_index=VOID)
    np.testing.assert_allclose(scores.iou, expected, rtol=1e-6)
    assert scores.miou == pytest.approx(expected.mean().item(), rel=1e-6)
    valid = target != VOID
    assert scores.accuracy == pytest.approx((pred == target)[valid].float().mean().item())


def test_absent_classes_have_no_iou():
    counts = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    scores = metrics.scores(counts)
    np.testing.assert_allclose(scores.iou, [3 / 4, 4 / 5, np.nan])
    np.testing.assert_allclose(scores.precision, [1, 4 / 5, np.nan])
    np.testing.assert_allclose(scores.recall, [3 / 4, 1, np.nan])
    assert scores.miou == pytest.approx((3 / 4 + 4 / 5) / 2)
    counts[0, 2] = 1  # a class that is only predicted has an IoU of 0
    assert metrics.scores(counts).iou[2] == 0


def test_void_everywhere_adds_nothing_and_alone_is_an_error():
    void = np.full((4, 5), VOID, np.uint8)
    assert not metrics.confusion(void, np.zeros_like(void), 6).any()
    with pytest.raises(InputError, match=r"void \(255\) everywhere"):
        metrics.scores(metrics.confusion(void, np.zeros_like(void), 6))


def square(top: int = 30, left: int = 30, side: int = 40, label: int = 3) -> np.ndarray:
    mask = np.zeros((100, 100), np.uint8)
    mask[top : top + side, left : left + side] = label
    return mask


def test_boundaries_of_equal_masks_agree():
    counts = metrics.boundary_counts(square(), square())
    assert counts.tolist() == [156, 156, 156, 156]  # 4 * 40 - 4
    assert metrics.boundary_scores(counts) == (1, 1, 1)


@pytest.mark.parametrize(("shift", "found"), [(2, 1.0), (3, None)])
def test_boundaries_are_found_within_the_tolerance(shift, found):
    counts = metrics.boundary_counts(square(), square(30 + shift, 30 + shift))  # the radius is 2.83 pixels
    scores = metrics.boundary_scores(counts)
    if found:
        assert scores == (found, found, found)
    else:
        assert 0 < scores.recall < 0.2
        assert scores.recall == scores.precision == scores.f1
    wider = metrics.boundary_counts(square(), square(30 + shift, 30 + shift), tolerance=0.05)
    assert metrics.boundary_scores(wider).f1 == 1


def test_recall_and_precision_are_not_mixed_up():
    two = np.maximum(square(5, 5, 20), square(60, 60, 20))
    scores = metrics.boundary_scores(metrics.boundary_counts(two, square(5, 5, 20)))
    assert scores == pytest.approx((0.5, 1, 2 / 3))
    scores = metrics.boundary_scores(metrics.boundary_counts(square(5, 5, 20), two))
    assert scores == pytest.approx((1, 0.5, 2 / 3))


def test_boundaries_beside_void_do_not_count():
    target = square()
    target[:, 60:] = VOID  # hides the square's right side
    counts = metrics.boundary_counts(target, square())
    right, found, met, actual = counts
    assert right == found == met == actual
    assert 0 < actual < 156 / 2 + 40
    assert metrics.boundary_counts(np.full_like(target, VOID), square()).tolist() == [0, 0, 0, 0]


def test_nothing_predicted_and_nothing_to_predict():
    assert metrics.boundary_scores(metrics.boundary_counts(square(), np.zeros_like(square()))) == (0, 0, 0)
    with pytest.raises(InputError, match="no boundaries in the targets"):
        metrics.boundary_scores(metrics.boundary_counts(np.zeros_like(square()), square()))


def test_context_taken_for_the_object_is_counted_against_its_true_positives():
    target = np.array([[1, 1, 1, 0, 0, 0, 0]])
    rails = np.array([[0, 0, 0, 1, 1, 1, 0]], bool)
    pred = np.array([[1, 1, 0, 1, 0, 2, 1]])
    counts = metrics.context_counts(target, pred, rails, label=1)
    assert counts.tolist() == [1, 2, 3]
    scores = metrics.context_scores(counts + counts)
    assert scores == pytest.approx((1 / 2, 1 / 3))


def test_images_without_the_object_do_not_count():
    nothing = metrics.context_counts(np.zeros((2, 2)), np.ones((2, 2)), np.ones((2, 2), bool), label=1)
    assert nothing.tolist() == [0, 0, 0]
    assert np.isnan(metrics.context_scores(nothing)).all()
    assert metrics.context_scores(np.array([2, 0, 4])) == (np.inf, 0.5)
