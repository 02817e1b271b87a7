"""The drawn scenes are what the EOPSN chapter says of them: known, unknown and clutter, all masks exact."""

from __future__ import annotations

import numpy as np
import pytest

from cvpr21lib.scenes import unknown_objects
from cvpr21lib.scenes.unknown_objects import KNOWN, OUTLINES, PATTERNS, STUFF, UNKNOWN, Scene


@pytest.fixture(scope="module")
def world() -> list[Scene]:
    return unknown_objects.scenes(0, 150)


def test_a_scene_is_a_function_of_its_arguments(world):
    again = unknown_objects.scene(0, 17)
    np.testing.assert_array_equal(again.image, world[17].image)
    np.testing.assert_array_equal(again.regions, world[17].regions)
    assert again.segments == world[17].segments
    others = (unknown_objects.scene(1, 17), unknown_objects.scene(0, 17, "test"))
    assert not any(np.array_equal(again.image, other.image) for other in others)
    assert len({scene.image.tobytes() for scene in world}) == 150


def test_every_outline_and_every_pattern_of_an_unknown_class_is_known_from_others():
    assert len(KNOWN) == 12
    assert not set(KNOWN) & set(UNKNOWN)
    for place, words in enumerate((OUTLINES, PATTERNS)):
        assert [sum(name.split("-")[place] == word for name in UNKNOWN) for word in words] == [1] * 4
        assert [sum(name.split("-")[place] == word for name in KNOWN) for word in words] == [3] * 4


def test_each_scene_holds_what_it_should(world):
    for scene in world:
        kinds = [segment.kind for segment in scene.segments]
        assert 2 <= kinds.count("known") <= 3
        assert 1 <= kinds.count("unknown") <= 2
        assert 1 <= kinds.count("clutter") <= 2
        assert 1 <= kinds.count("stuff") <= 2
        assert sorted(np.unique(scene.regions)) == list(range(1, len(scene.segments) + 1))
    for kind, names in (("known", KNOWN), ("unknown", UNKNOWN), ("stuff", STUFF)):
        seen = {category for scene in world for category in scene.categories(kind)}
        assert seen == set(range(len(names)))


def test_more_clutter_leaves_the_rest_as_many(world):
    crowded = unknown_objects.scenes(0, 20, clutter=(3, 4))
    assert {len(scene.of_kind("clutter")) for scene in crowded} == {3, 4}
    assert {len(scene.of_kind("known")) for scene in crowded} == {2, 3}


def test_masks_part_the_image_and_boxes_hold_them_tightly(world):
    for scene in world[:40]:
        assert (scene.masks("stuff", "known", "unknown", "clutter").sum(0) == 1).all()
        things = ("known", "unknown", "clutter")
        for mask, (x1, y1, x2, y2) in zip(
            scene.masks(*things), scene.boxes(*things).astype(int), strict=True
        ):
            rows, columns = mask.nonzero()
            assert (x1, y1) == (columns.min(), rows.min())
            assert (x2, y2) == (columns.max() + 1, rows.max() + 1)
            assert mask.sum() > 60


def test_training_labels_hide_unknown_things_and_clutter_alike(world):
    for scene in world:
        np.testing.assert_array_equal(scene.semantic == 5, scene.void)
        np.testing.assert_array_equal(scene.void, scene.masks("unknown", "clutter").any(0))
        np.testing.assert_array_equal(scene.semantic == 0, scene.masks("known").any(0))
        for mask, category in zip(scene.masks("stuff"), scene.categories("stuff"), strict=True):
            assert (scene.semantic[mask] == category + 1).all()


def test_void_holds_about_as_much_clutter_as_unknown_things(world):
    area = {
        kind: np.mean([scene.masks(kind).any(0).mean() for scene in world]) for kind in ("unknown", "clutter")
    }
    assert 0.5 < area["clutter"] / area["unknown"] < 2


def test_classes_come_in_any_colour(world):
    """So colour tells nothing: within each class the mean colours scatter as much as between all things."""
    colours: dict[tuple[str, int], list[np.ndarray]] = {}
    for scene in world:
        for kind in ("known", "unknown"):
            for mask, category in zip(scene.masks(kind), scene.categories(kind), strict=True):
                colours.setdefault((kind, int(category)), []).append(scene.image[mask].mean(0))
    everything = np.concatenate([np.array(each) for each in colours.values()])
    for each in colours.values():
        assert np.std(each, 0).mean() > 0.6 * np.std(everything, 0).mean()


def test_nothing_in_a_test_scene_was_cut_from_a_training_picture():
    """The halves that crops come from share no pixel."""
    for name in ("brick", *unknown_objects.PHOTOGRAPHS):
        picture = unknown_objects._picture(name)
        assert picture.shape[1] // 2 >= unknown_objects.SIDE
        rng = np.random.default_rng(0)
        for part, half in (
            ("train", picture[:, : picture.shape[1] // 2]),
            ("test", picture[:, -(picture.shape[1] // 2) :]),
        ):
            crop = unknown_objects._Pictures(rng, part).crop((name,), 96, 96)
            windows = np.lib.stride_tricks.sliding_window_view(half, (96, 96, 3))[..., 0, :, :, :]
            assert any(np.array_equal(window, crop) for row in windows for window in row)


def test_a_scene_without_things_of_a_kind_has_empty_arrays():
    plain = Scene(
        np.zeros((96, 96, 3), np.uint8), np.ones((96, 96), np.uint8), (unknown_objects.Segment("stuff", 0),)
    )
    assert plain.boxes("known").shape == (0, 4)
    assert plain.masks("unknown").shape == (0, 96, 96)
    assert not plain.void.any()
