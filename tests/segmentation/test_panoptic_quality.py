"""Panoptic quality: its rules one by one, and what it is equal to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.detection import PanopticQuality

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import panoptic
from cvpr21lib.segmentation.panoptic import VOID, Annotation, Panoptic, Segment
from cvpr21lib.segmentation.panoptic_quality import count, match, match_files, overlaps, quality
from tests.eopsn import literal_panoptic

PERSON, CAR, TREE = 1, 3, 184
CATEGORIES = (PERSON, CAR, TREE)


def row(pixels: str, **categories: int) -> Panoptic:
    """An image one pixel high: a letter is a segment, a blank void, and a capital stands for a crowd."""
    ids = np.array([[VOID if letter == " " else ord(letter) for letter in pixels]])
    segments = [Segment(ord(name), category, name.isupper()) for name, category in categories.items()]
    return Panoptic(ids, tuple(segments))


def tp_fp_fn(target: Panoptic, pred: Panoptic, category: int = PERSON) -> tuple[float, ...]:
    return tuple(count(match(target, pred), CATEGORIES)[CATEGORIES.index(category)][1:].tolist())


def world(seed: int, height: int = 60, width: int = 80, void: float = 0.2) -> Panoptic:
    """Rectangles over each other, some of them crowds, some void; two worlds of nearby seeds are alike."""
    shared, own = np.random.default_rng(seed // 2), np.random.default_rng((seed, 1))
    ids, numbers = np.zeros((height, width), int), own.choice(2**24 - 1, 30, replace=False) + 1
    kept = {0: Segment(0, 0)}
    for number in numbers:
        top, left = (int(shared.integers(0, size)) for size in (height, width))
        tall, wide = (int(shared.integers(4, size // 2)) for size in (height, width))
        category, crowd, hole = int(shared.choice(CATEGORIES)), shared.random() < 0.2, shared.random() < void
        top, left = max(0, top + int(own.integers(-3, 4))), max(0, left + int(own.integers(-3, 4)))
        ids[top : top + tall, left : left + wide] = 0 if hole else number
        kept[int(number)] = Segment(int(number), category, crowd and seed % 2 == 0)
    return Panoptic(ids, tuple(kept[one] for one in kept if one and (ids == one).any()))


@pytest.mark.parametrize("seed", range(0, 20, 2))
def test_counts_are_panopticapis(seed):
    target, pred = world(seed), world(seed + 1)
    made = count(match(target, pred), CATEGORIES)
    assert made[:, 1].sum() > 0
    np.testing.assert_allclose(made, literal_panoptic.counts(target, pred, CATEGORIES), rtol=0, atol=1e-12)


def test_iou_of_one_half_is_no_match():
    assert tp_fp_fn(row("aaaa", a=PERSON), row("xx..", x=PERSON, **{".": CAR})) == (0, 1, 1)
    assert tp_fp_fn(row("aaaa", a=PERSON), row("xxx.", x=PERSON, **{".": CAR})) == (1, 0, 0)


def test_another_category_is_a_miss_and_an_error():
    pair = row("aaaa", a=PERSON), row("xxxx", x=CAR)
    assert tp_fp_fn(*pair) == (0, 0, 1)
    assert tp_fp_fn(*pair, category=CAR) == (0, 1, 0)


def test_void_of_the_ground_truth_is_left_out_of_the_union():
    target, pred = row("aaa   ", a=PERSON), row("xxxxxx", x=PERSON)
    assert match(target, pred).pairs[0][1] == 1


def test_void_of_the_prediction_stays_in_the_union():
    target, pred = row("aaaa", a=PERSON), row("xxx ", x=PERSON)
    assert match(target, pred).pairs[0][1] == 0.75


def test_a_prediction_more_than_half_on_void_is_excused():
    assert tp_fp_fn(row("b    bbb", b=CAR), row("bxxxxxxx", b=CAR, x=PERSON)) == (0, 0, 0)
    assert tp_fp_fn(row("b   bbbb", b=CAR), row("bxxxxxxb", b=CAR, x=PERSON)) == (0, 1, 0)  # one half is not


def test_a_crowd_is_neither_matched_nor_missed():
    assert tp_fp_fn(row("AAAA", A=PERSON), row("....", **{".": CAR})) == (0, 0, 0)
    assert tp_fp_fn(row("AAAA", A=PERSON), row("xxxx", x=PERSON)) == (0, 0, 0)


def test_a_crowd_excuses_its_own_category_only():
    assert tp_fp_fn(row("AAAA", A=PERSON), row("xxyy", x=CAR, y=PERSON), CAR) == (0, 1, 0)


def test_void_and_crowd_excuse_together():
    assert tp_fp_fn(row("A  bb", A=PERSON, b=CAR), row("xxxxx", x=PERSON)) == (0, 0, 0)


def test_of_two_crowds_of_a_category_the_last_one_counts():
    assert tp_fp_fn(row("AABB", A=PERSON, B=PERSON), row("xxxy", x=PERSON, y=PERSON)) == (0, 1, 0)


def test_areas_of_the_ground_truth_are_those_of_its_json():
    target = row("aaaa", a=PERSON)
    halved = Panoptic(target.ids, (target.segments[0]._replace(area=8),))
    assert match(target, row("xxxx", x=PERSON)).pairs[0][1] == 1
    assert match(halved, row("xxxx", x=PERSON)).missed == halved.segments  # 4 of 8 pixels


def test_no_void_pixels_at_all():
    assert tp_fp_fn(row("aabb", a=PERSON, b=CAR), row("xxyy", x=PERSON, y=CAR)) == (1, 0, 0)


def test_void_everywhere():
    nothing, something = row("    "), row("xxxx", x=PERSON)
    assert tp_fp_fn(nothing, nothing) == (0, 0, 0)
    assert tp_fp_fn(nothing, something) == (0, 0, 0)
    assert tp_fp_fn(something, nothing) == (0, 0, 1)


def test_where_no_class_occurs_nothing_is_divided_by_zero():
    for counts in (np.zeros((0, 4)), np.zeros((3, 4))):
        scores = quality(counts)
        assert scores.classes == 0
        assert all(math.isnan(value) for value in scores[:3])


def test_classes_that_do_not_occur_are_left_out_of_the_mean():
    assert quality(np.array([[0.8, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2]])) == (0.4, 0.4, 0.5, 2)


def test_scores_are_of_the_sums_and_not_means_of_the_images():
    pairs = [(world(seed), world(seed + 1)) for seed in (0, 2)]
    each = [count(match(*pair), CATEGORIES) for pair in pairs]
    assert quality(sum(each)).pq != pytest.approx(np.mean([quality(one).pq for one in each]))


def test_pixels_whose_id_the_json_does_not_list():
    whole, listed = row("aab", a=PERSON, b=CAR), row("aab", a=PERSON)
    with pytest.raises(InputError, match="prediction has pixels of segments that its list lacks: 98"):
        match(whole, listed)
    with pytest.raises(InputError, match="ground truth has pixels of segments that its list lacks: 98"):
        match(listed, whole)


def test_segments_of_the_json_without_pixels():
    whole, more = row("aa", a=PERSON), row("aa", a=PERSON, b=CAR)
    with pytest.raises(InputError, match="prediction lists segments that have no pixel: 98"):
        match(whole, more)
    with pytest.raises(InputError, match="ground truth lists segments that have no pixel: 98"):
        match(more, whole)


def test_two_sizes():
    with pytest.raises(InputError, match="prediction has 1×3 pixels and the ground truth 1×4"):
        match(row("aaaa", a=PERSON), row("aaa", a=PERSON))


def test_a_category_that_is_not_judged():
    with pytest.raises(InputError, match="no category 3, 184"):
        count(match(row("aabb", a=CAR, b=PERSON), row("xxxx", x=TREE)), (PERSON,))


def test_errors_name_the_files(tmp_path):
    target, pred = row("aa", a=PERSON), row("bb", b=PERSON)
    for name, one in (("true", target), ("pred", pred)):
        panoptic.write_png(tmp_path / f"{name}.png", one.ids)
    true = Annotation("true.png", target.segments)
    assert match_files(true, tmp_path, Annotation("pred.png", pred.segments), tmp_path) == match(target, pred)
    with pytest.raises(InputError, match=r"true\.png and .*pred\.png cannot be compared: the prediction"):
        match_files(true, tmp_path, Annotation("pred.png", ()), tmp_path)


def test_overlaps_of_noise_equal_counting():
    rng = np.random.default_rng(0)
    first, second = (rng.choice([0, 5, 2**24 - 1], (9, 11)) for _ in range(2))
    expected = {
        (t, p): int(((first == t) & (second == p)).sum())
        for t in (0, 5, 2**24 - 1)
        for p in (0, 5, 2**24 - 1)
    }
    assert overlaps(first, second) == expected


@pytest.mark.parametrize("wrong", [-1, 2**24])
def test_ids_beyond_three_bytes_are_refused(wrong):
    with pytest.raises(InputError, match="expected 0 to 16777215"):
        overlaps(np.array([[wrong]]), np.array([[0]]))


def torchmetrics_pq(target: Panoptic, pred: Panoptic) -> float:
    """Void is a category that it does not know."""

    def pairs(image: Panoptic) -> torch.Tensor:
        category = {one.id: one.category for one in image.segments} | {VOID: 0}
        return torch.tensor([[[category[int(one)], int(one)] for one in line] for line in image.ids])

    metric = PanopticQuality(things={PERSON, CAR}, stuffs={TREE}, allow_unknown_preds_category=True)
    return metric(pairs(pred)[None], pairs(target)[None]).item()


def test_torchmetrics_agrees_only_where_there_are_no_crowds_and_predictions_have_no_void():
    target, whole, half = row("aaaa    ", a=PERSON), row("xxxxxxxx", x=PERSON), row("xx      ", x=PERSON)
    assert torchmetrics_pq(target, whole) == quality(count(match(target, whole), CATEGORIES)).pq == 1
    assert quality(count(match(target, half), CATEGORIES)).pq == 0
    assert torchmetrics_pq(target, half) == 1
