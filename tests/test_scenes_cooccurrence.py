"""The drawn scenes are what the EPS chapter says of them: things, their company, and what saliency misses."""

from __future__ import annotations

import numpy as np
import pytest

from cvpr21lib.scenes import cooccurrence
from cvpr21lib.scenes.cooccurrence import BALL, BOAT, CLASSES, CONTEXT, RAIL, SOFA, TRAIN, WATER, Scene


@pytest.fixture(scope="module")
def world() -> list[Scene]:
    return cooccurrence.scenes(0)


def having(world: list[Scene], value: int) -> list[Scene]:
    return [scene for scene in world if (scene.regions == value).any()]


def test_a_scene_is_a_function_of_world_and_number(world):
    again = cooccurrence.scene(0, 17)
    for name in ("image", "regions", "saliency"):
        np.testing.assert_array_equal(getattr(again, name), getattr(world[17], name))
    assert not np.array_equal(again.image, cooccurrence.scene(1, 17).image)
    assert len({scene.image.tobytes() for scene in world}) == len(world) == 300


def test_trains_are_always_on_rails_and_boats_always_on_water(world):
    for region, value in CONTEXT.values():
        images = having(world, value)
        assert 60 < len(images) < 110
        assert all((scene.regions == region).any() for scene in images)
        assert all((scene.regions == value).any() for scene in having(world, region))
    assert all((scene.regions[:, 0] == RAIL).any() for scene in having(world, RAIL)), "from edge to edge"
    assert not any((scene.regions == WATER).any() for scene in having(world, SOFA))


def test_context_is_background_and_labels_name_what_can_be_seen(world):
    for scene in world:
        assert scene.image.shape == (48, 48, 3)
        assert {scene.image.dtype, scene.mask.dtype, scene.saliency.dtype} == {np.dtype(np.uint8)}
        context = (scene.regions == RAIL) | (scene.regions == WATER)
        assert not scene.mask[context].any()
        np.testing.assert_array_equal(scene.mask[~context], scene.regions[~context])
        assert scene.label == tuple(c for c in range(len(CLASSES)) if (scene.mask == c + 1).any())
        assert scene.label


def test_saliency_misses_every_sofa_and_shows_the_rest_mostly(world):
    seen = {
        value: np.mean(
            [scene.saliency[scene.regions == value].mean() / 255 for scene in having(world, value)]
        )
        for value in range(1, 7)
    }
    assert seen[SOFA] < 0.02
    assert max(seen[RAIL], seen[WATER]) < 0.06
    assert all(0.75 < seen[value] < 0.95 for value in (TRAIN, BOAT, BALL))
    alone = [scene for scene in world if scene.label == (TRAIN - 1,)]
    assert all(scene.saliency[scene.regions == TRAIN].mean() > 180 for scene in alone), (
        "one alone is not missed"
    )


def test_balls_come_beside_few_sofas_and_many_trains(world):
    with_ball = {
        value: np.mean([(scene.regions == BALL).any() for scene in having(world, value)])
        for value in (TRAIN, BOAT, SOFA)
    }
    assert with_ball[SOFA] < 0.25 < 0.3 < min(with_ball[TRAIN], with_ball[BOAT])


def test_rails_look_more_alike_than_trains(world):
    """So the strip is the easier cue: mean colours vary three times as much among trains."""
    spread = {
        value: np.std([s.image[s.regions == value].mean(0) for s in having(world, value)], 0).mean()
        for value in (TRAIN, RAIL, BOAT, WATER)
    }
    assert spread[TRAIN] > 3 * spread[RAIL]
    assert spread[BOAT] > 3 * spread[WATER]
