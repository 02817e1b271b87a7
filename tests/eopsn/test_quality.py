"""Open-set panoptic quality: what is known, what is not, and the two ways to see clutter."""

from __future__ import annotations

import numpy as np
import pytest

from cvpr21lib.eopsn.config import UNKNOWN
from cvpr21lib.eopsn.quality import OpenQuality, clutter, clutter_as_void
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation.panoptic import Category, Panoptic, Segment

PERSON, CAR, COW, TREE = 1, 3, 21, 184
CATEGORIES = {
    PERSON: Category("person", True),
    CAR: Category("car", True),
    COW: Category("cow", True),
    TREE: Category("tree", False),
}


def row(pixels: str, **categories: int) -> Panoptic:
    """An image one pixel high: a letter is a segment, a blank void."""
    ids = np.array([[0 if letter == " " else ord(letter) for letter in pixels]])
    return Panoptic(ids, tuple(Segment(ord(name), category) for name, category in categories.items()))


def numbers(*pairs: tuple[Panoptic, Panoptic], unknown: tuple[int, ...] = (CAR, COW)) -> dict[str, float]:
    quality = OpenQuality(CATEGORIES, unknown)
    for target, pred in pairs:
        quality.add(target, pred)
    return quality.numbers()


TARGET = row("aabbcctt", a=PERSON, b=CAR, c=COW, t=TREE)


def test_unknown_classes_are_one_category():
    made = numbers((TARGET, row("aauuvvtt", a=PERSON, u=UNKNOWN, v=UNKNOWN, t=TREE)))
    assert made["unknown/pq"] == made["known/pq"] == made["recall/car"] == made["recall/cow"] == 100
    # the closed rule has a class for cars and one for cows, and both are missed
    assert (made["closed/pq"], made["closed_things/pq"], made["stuff/pq"]) == (
        50,
        pytest.approx(100 / 3),
        100,
    )


def test_recall_and_precision_of_the_unknown():
    pred = row("xxuuyyzz", x=UNKNOWN, u=UNKNOWN, y=TREE, z=UNKNOWN)
    made = numbers((TARGET, pred))
    assert made["unknown/recall"] == 50
    assert made["unknown/precision"] == pytest.approx(100 / 3)
    assert made["unknown/rq"] == pytest.approx(100 * 1 / (1 + 2 / 2 + 1 / 2))
    assert (made["recall/car"], made["recall/cow"]) == (100, 0)


def test_an_unknown_object_taken_for_a_known_one_is_wrong_in_both():
    pred = row("aappvvtt", a=PERSON, p=PERSON, v=UNKNOWN, t=TREE)
    made = numbers((TARGET, pred))
    assert made["unknown/recall"] == 50
    assert made["pq/person"] == pytest.approx(100 / 1.5)


def test_a_known_object_taken_for_an_unknown_one_is_wrong_in_both():
    made = numbers((TARGET, row("wwuuvvtt", w=UNKNOWN, u=UNKNOWN, v=UNKNOWN, t=TREE)))
    assert made["pq/person"] == 0
    assert made["unknown/precision"] == pytest.approx(200 / 3)


def test_known_is_known_things_and_stuff_without_the_unknown():
    made = numbers((TARGET, row("aauuvv.t", a=PERSON, u=UNKNOWN, v=UNKNOWN, t=TREE, **{".": PERSON})))
    assert made["known/pq"] == pytest.approx((made["known_things/pq"] + made["stuff/pq"]) / 2)
    assert made["known/pq"] < 60
    assert made["unknown/pq"] == 100


def test_one_pass_gives_the_closed_scores_that_a_closed_evaluation_gives():
    with_unknown = row("aauuvvtt", a=PERSON, u=UNKNOWN, v=UNKNOWN, t=TREE)
    without = row("aa    tt", a=PERSON, t=TREE)
    opened, closed = numbers((TARGET, with_unknown)), numbers((TARGET, without), unknown=())
    for name in ("closed/pq", "closed/sq", "closed/rq", "closed_things/pq", "stuff/pq"):
        assert opened[name] == closed[name]
    assert not any(name.startswith(("known", "unknown", "recall")) for name in closed)


def test_clutter_counts_under_the_strict_rule_and_not_under_the_official_one():
    target = Panoptic(row("kkaabbtt").ids, (clutter(ord("k")), *TARGET.segments[:2], TARGET.segments[3]))
    pred = row("xxaabbtt", x=UNKNOWN, a=PERSON, b=UNKNOWN, t=TREE)
    strict, official = numbers((target, pred)), numbers((clutter_as_void(target), pred))
    assert (strict["unknown/precision"], official["unknown/precision"]) == (50, 100)
    assert strict["unknown/recall"] == official["unknown/recall"] == 100
    assert strict["known/pq"] == official["known/pq"] == 100


def test_clutter_is_never_missed_and_excuses_no_known_class_either():
    target = Panoptic(row("kkkktttt").ids, (clutter(ord("k")), Segment(ord("t"), TREE)))
    assert numbers((target, row("    tttt", t=TREE)))["known/pq"] == 100
    assert numbers((target, row("pppptttt", p=PERSON, t=TREE)))["pq/person"] == 0


def test_clutter_belongs_to_the_union_under_the_strict_rule():
    target = Panoptic(row("bbbkkttt").ids, (clutter(ord("k")), Segment(ord("b"), CAR), TARGET.segments[3]))
    pred = row("uuuuuttt", u=UNKNOWN, t=TREE)
    assert numbers((target, pred))["unknown/sq"] == pytest.approx(60)
    assert numbers((clutter_as_void(target), pred))["unknown/sq"] == 100


def test_clutter_as_void_leaves_the_rest_as_it_is():
    target = Panoptic(row("kkaa").ids, (clutter(ord("k")), TARGET.segments[0]))
    official = clutter_as_void(target)
    np.testing.assert_array_equal(official.ids, row("  aa").ids)
    assert official.segments == TARGET.segments[:1]
    assert (target.ids != 0).all()  # the original is untouched


def test_void_everywhere_and_no_images_give_no_number_and_no_division_by_zero():
    nothing = row("    ")
    assert numbers() == numbers((nothing, nothing)) == {}
    assert numbers((nothing, row("uuuu", u=UNKNOWN))) == {}


def test_no_void_at_all():
    made = numbers((TARGET, row("uuuuuuuu", u=UNKNOWN)))
    assert (made["unknown/pq"], made["unknown/recall"], made["unknown/precision"]) == (0, 0, 0)


def test_numbers_do_not_depend_on_how_images_are_cut_into_calls():
    pairs = [(TARGET, TARGET), (TARGET, row("aappp ut", a=PERSON, p=PERSON, u=TREE, t=TREE))]
    assert numbers(*pairs, unknown=()) == pytest.approx(numbers(*pairs[::-1], unknown=()))


@pytest.mark.parametrize("unknown", [(TREE,), (99,)])
def test_only_things_that_there_are_can_be_unknown(unknown):
    with pytest.raises(InputError, match=f"category {unknown[0]} cannot be unknown"):
        OpenQuality(CATEGORIES, unknown)


def test_a_prediction_that_names_an_unknown_class():
    with pytest.raises(InputError, match="no category 3 to be judged"):
        numbers((TARGET, row("aabb  tt", a=PERSON, b=CAR, t=TREE)))


def test_a_group_that_there_is_not():
    with pytest.raises(InputError, match="no group 'all' of classes; there are stuff"):
        OpenQuality(CATEGORIES).group("all")
