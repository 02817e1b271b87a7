"""The panoptic merge: its order, its thresholds, and what it is equal to."""

from __future__ import annotations

import numpy as np
import pytest

from cvpr21lib.eopsn.config import UNKNOWN
from cvpr21lib.eopsn.merge import Instance, Merged, Rule, merge
from cvpr21lib.errors import InputError
from tests.eopsn import literal_panoptic

STUFF = {label: 100 + label for label in (1, 2, 3)}
SMALL = Rule(stuff_area=1)


def instance(columns: str, score: float = 0.9, category: int = 7) -> Instance:
    """A mask one pixel high: x where it is."""
    return Instance(np.array([[letter == "x" for letter in columns]]), 0, 0, score, category)


def merged(*instances: Instance, semantic: str = "00000000", rule: Rule = SMALL) -> Merged:
    return merge(instances, np.array([[int(label) for label in semantic]]), STUFF, rule)


def drawn(result: Merged) -> str:
    return "".join(map(str, result.panoptic.ids[0]))


def random_scene(seed: int, count: int = 30, height: int = 90, width: int = 120) -> tuple:
    """Ellipses with their boxes, scores with ties, and a semantic map of things, three stuffs and void."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    masks = np.stack(
        [
            ((y - rng.integers(height)) / rng.integers(1, 20)) ** 2
            + ((x - rng.integers(width)) / rng.integers(1, 20)) ** 2
            < 1
            for _ in range(count)
        ]
    )
    masks[:2] = False
    scores = np.round(rng.uniform(0, 1, count), 1).tolist()
    categories = rng.choice([UNKNOWN, 4, 9], count).tolist()
    semantic = np.kron(rng.integers(0, 5, (3, 4)), np.ones((30, 30), int))
    return masks, scores, categories, semantic


@pytest.mark.parametrize("seed", range(6))
def test_boxes_give_what_whole_masks_give(seed):
    masks, scores, categories, semantic = random_scene(seed)
    rule = Rule(stuff_area=300)
    result = merge(
        [Instance.from_full(*one) for one in zip(masks, scores, categories, strict=True)],
        semantic,
        STUFF,
        rule,
    )
    ids, pasted = literal_panoptic.merge(masks, scores, categories, semantic, STUFF, rule)
    np.testing.assert_array_equal(result.panoptic.ids, ids)
    assert [segment.category for segment in result.panoptic.segments] == pasted
    assert [segment.area for segment in result.panoptic.segments] == np.bincount(ids.ravel())[1:].tolist()


def test_the_higher_score_lies_on_top():
    result = merged(instance("xxxxxx", 0.6), instance("    xxxx", 0.8))
    assert drawn(result) == "22221111"
    assert result.instances == (1, 0)


def test_of_equal_scores_the_first_is_pasted_first():
    assert merged(instance("xxx", 0.8), instance(" xxxx", 0.8), semantic="00000").instances == (0, 1)


def test_more_than_half_taken_is_dropped_and_one_half_is_not():
    assert drawn(merged(instance("xxx", 0.9), instance(" xxxx", 0.8), semantic="00000")) == "11122"
    assert drawn(merged(instance("xxx", 0.9), instance("xxxxx", 0.8), semantic="00000")) == "11100"


def test_nothing_below_its_threshold_is_pasted():
    known = [instance("x  ", 0.5), instance(" x ", 0.499)]
    unknown = [instance("  x", 0.1, UNKNOWN), instance(" x ", 0.099, UNKNOWN)]
    assert drawn(merged(*known, *unknown, semantic="000")) == "102"


def test_a_score_that_is_no_number_is_not_pasted():
    assert drawn(merged(instance("x", float("nan")), semantic="0")) == "0"


def test_unknown_things_get_only_what_known_things_and_stuff_left():
    unknown, known = instance("xxxxxxxx", 1.0, UNKNOWN), instance("xx", 0.5)
    assert drawn(merged(unknown, known, semantic="00000000")) == "11222222"
    assert drawn(merged(unknown, known, semantic="00110000")) == "11223333"
    assert drawn(merged(unknown, known, semantic="00111000")) == "11222000"  # 5 of its 8 pixels are taken


def test_stuff_comes_by_label_and_only_where_enough_is_free():
    thing = instance("xxx")
    assert drawn(merged(thing, semantic="22221111")) == "11132222"
    assert drawn(merged(thing, semantic="22221111", rule=Rule(stuff_area=2))) == "11102222"
    result = merged(thing, semantic="22221111")
    assert [segment.category for segment in result.panoptic.segments] == [7, 101, 102]
    assert result.instances == (0, None, None)


def test_labels_that_are_no_stuff_stay_void():
    assert drawn(merged(semantic="00449931")) == "00000021"


def test_the_official_rule_wants_64_by_64_pixels_of_stuff():
    semantic = np.zeros((100, 100), int)
    semantic[:64, :64], semantic[70:, :] = 1, 2
    result = merge([], semantic, STUFF)
    assert [segment.category for segment in result.panoptic.segments] == [101]


def test_an_empty_mask_is_skipped_and_no_instances_are_no_trouble():
    empty = Instance.from_full(np.zeros((1, 8), bool), 0.9, 7)
    assert drawn(merged(empty, instance("        "), semantic="00000000")) == "00000000"
    assert merged().panoptic.segments == ()


def test_no_void_and_void_everywhere():
    assert "0" not in drawn(merged(semantic="11223311"))
    assert drawn(merged(instance("x", 0.1), instance("x", 0.05, UNKNOWN), semantic="44444444")) == "00000000"


@pytest.mark.parametrize(("top", "left"), [(-1, 0), (0, -1), (1, 0), (0, 6)])
def test_a_window_outside_the_image(top, left):
    with pytest.raises(InputError, match=r"window of instance 0, .* leaves the image of 1×8"):
        merged(Instance(np.ones((1, 3), bool), top, left, 0.9, 7))


def test_probabilities_are_no_mask():
    with pytest.raises(InputError, match=r"mask of instance 1 is float32 .* compare the probabilities"):
        merged(instance("x"), Instance(np.ones((1, 3), np.float32), 0, 0, 0.9, 7))


@pytest.mark.parametrize("semantic", [np.zeros((2, 2)), np.zeros(4, int), np.full((2, 2), -1)])
def test_a_semantic_map_that_is_none(semantic):
    with pytest.raises(InputError, match=r"expected labels from 0, \(H, W\)"):
        merge([], semantic, STUFF)
