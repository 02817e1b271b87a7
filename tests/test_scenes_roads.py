"""The drawn streets are what chapter 5 says: one geometry for both domains, two looks, exact truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.scenes import roads
from cvpr21lib.scenes.roads import CLASSES, FLAT, HUMAN, LOOKS, OBJECT, SKY, SKY_DEPTH, VEHICLE, Scene


@pytest.fixture(scope="module")
def worlds() -> dict[str, list[Scene]]:
    return {domain: roads.scenes(0, domain, 150) for domain in ("source", "target")}


def test_a_scene_is_a_function_of_world_domain_and_number(worlds):
    again = roads.scenes(0, "target", 1, first=17)[0]
    for part in ("image", "label", "depth"):
        np.testing.assert_array_equal(getattr(again, part), getattr(worlds["target"][17], part))
    others = [roads.scene(1, "target", 17), roads.scene(0, "source", 17), roads.scene(0, "target", 18)]
    assert not any(np.array_equal(again.label, other.label) for other in others)


def test_truth_is_whole_and_in_its_units(worlds):
    for scene in worlds["source"] + worlds["target"]:
        assert scene.image.shape == (48, 96, 3)
        assert (scene.image.dtype, scene.label.dtype, scene.depth.dtype) == (np.uint8, np.uint8, np.float32)
        assert scene.label.max() < len(CLASSES)
        sky = scene.label == SKY
        assert (scene.depth[sky] == SKY_DEPTH).all()
        assert scene.depth[~sky].min() > 1
        assert scene.depth[~sky].max() < SKY_DEPTH


def test_the_look_changes_no_label_and_no_depth():
    plain = roads.scene(3, "source", 5)
    dark = roads.scene(3, "source", 5, look=replace(LOOKS["source"], gamma=3.0, haze=5.0))
    np.testing.assert_array_equal(plain.label, dark.label)
    np.testing.assert_array_equal(plain.depth, dark.depth)
    assert not np.array_equal(plain.image, dark.image)


def test_both_domains_have_the_same_classes_at_the_same_depths(worlds):
    shares, depths = {}, {}
    for domain, scenes in worlds.items():
        label, depth = (np.stack([getattr(scene, part) for scene in scenes]) for part in ("label", "depth"))
        shares[domain] = np.bincount(label.ravel(), minlength=7) / label.size
        depths[domain] = [np.log(depth[label == kind]).mean() for kind in range(7)]
    np.testing.assert_allclose(shares["source"], shares["target"], rtol=0.3)
    np.testing.assert_allclose(depths["source"], depths["target"], atol=0.25)
    assert min(shares["source"]) > 0.01


def test_the_ground_is_a_plane_below_the_camera(worlds):
    """Its inverse depth grows by the same amount from row to row."""
    for scene in worlds["source"][:20]:
        columns = (scene.label[-6:] == FLAT).all(0)
        steps = np.diff(1 / scene.depth[-6:, columns].astype(float), axis=0)
        assert columns.any()
        np.testing.assert_allclose(steps, steps[0, 0], rtol=1e-3)
        assert steps[0, 0] > 0


def test_upright_things_have_one_depth_and_hide_what_is_behind(worlds):
    for scene in worlds["target"][:40]:
        for kind in (OBJECT, HUMAN, VEHICLE):
            assert len(np.unique(scene.depth[scene.label == kind])) <= 3, "one to three of each"


def test_the_target_has_lost_colour_and_gained_texture(worlds):
    """How far the classes' mean colours are apart, against how much a class varies within an image."""
    apart, within = {}, {}
    for domain, scenes in worlds.items():
        image, label = (np.stack([getattr(scene, part) for scene in scenes]) for part in ("image", "label"))
        apart[domain] = np.stack([image[label == kind].mean(0) for kind in range(7)]).std(0).mean()
        within[domain] = np.mean([s.image[s.label == FLAT].std(0).mean() for s in scenes])
    assert apart["target"] < 0.8 * apart["source"]
    assert within["target"] > 1.3 * within["source"]


def test_haze_tells_depth_in_both_domains(worlds):
    """What is far is as grey as the haze: contrast falls with depth whatever the thing is."""
    for scenes in worlds.values():
        image, depth, label = (
            np.stack([getattr(scene, part) for scene in scenes]) for part in ("image", "depth", "label")
        )
        near, far = ((depth < 8), (depth > 30) & (label != SKY))
        assert image[far].std(0).mean() < 0.6 * image[near].std(0).mean()


def test_an_unknown_domain_is_refused_by_name():
    with pytest.raises(InputError, match="the domain is 'night'; it can be source, target"):
        roads.scene(0, "night", 0)
