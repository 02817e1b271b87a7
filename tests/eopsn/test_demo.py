"""The demo: arms that differ in what becomes of void alone, judged on exact truth, resumed exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cvpr21lib import record, runs
from cvpr21lib.eopsn import demo, judge, quality, small, start
from cvpr21lib.eopsn.clustering import Selection
from cvpr21lib.eopsn.demo import ARMS, Demo, Knobs
from cvpr21lib.eopsn.judge import FIRST, SIZE
from cvpr21lib.eopsn.proposals import Proposals
from cvpr21lib.eopsn.pseudo_truth import Rows, relative
from cvpr21lib.eopsn.walk import walk
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.scenes import unknown_objects
from cvpr21lib.scenes.unknown_objects import UNKNOWN
from cvpr21lib.segmentation.panoptic import Panoptic, Segment

EVERYTHING = Selection(density=False, objectness=False, members=False, pairs=False)
DENSE = replace(EVERYTHING, density=True)


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TRAIN", 24)
    monkeypatch.setattr(demo, "TEST", 6)


def made(folder: Path, arm: str = "eopsn", max_steps: int = 5, **changes) -> tuple[Demo, record.Record]:
    """A short run: a clustering after every second step, in which dense clusters become classes."""
    usual = demo.recipe(Options(), ARMS[arm])
    quantiles = replace(usual.chosen.quantiles, clusters=6)
    brief = {"batch_size": 6, "steps": 5, "interval": 2, "selection": DENSE, "quantiles": quantiles}
    recipe = Demo(replace(usual.chosen, **(brief | changes)))
    options = Options(output_dir=folder, max_steps=max_steps, accelerator="cpu", progress=False)
    return recipe, runs.run(recipe, options)


def test_every_arm_starts_with_the_scores_of_the_same_network():
    base = small.load_base(0)
    pooled = torch.randn(7, 40, 7, 7, generator=torch.Generator().manual_seed(0))
    scores = base.box_head(pooled).logits
    for arm in ("suppression", "void-train", "eopsn"):
        recipe = demo.recipe(Options(), ARMS[arm])
        net = recipe.networks()["net"]
        made = net.box_head(pooled).logits
        torch.testing.assert_close(made[:, :12], scores[:, :12], rtol=0, atol=0)
        torch.testing.assert_close(made[:, recipe.config.background], scores[:, 12], rtol=0, atol=0)
        others = [k for k in range(12, made.shape[1]) if k != recipe.config.background]
        assert not made[:, others].any()
        assert net.class_weight.sum() == recipe.config.logits - recipe.config.unknown


@pytest.mark.parametrize("arm", ["suppression", "void-train", "eopsn"])
def test_training_changes_the_box_head_and_nothing_else(tmp_path, arm):
    recipe, _ = made(tmp_path, arm, max_steps=3)
    before, after = recipe.networks()["net"].state_dict(), runs.weights(recipe, tmp_path)["net"].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in changed - {"class_weight"}} == {"box_head"}
    assert ("class_weight" in changed) == (arm == "eopsn")


def test_the_arms_see_the_same_scenes_proposals_and_maps():
    recipes = [demo.recipe(Options(seed=3), knobs) for knobs in ARMS.values()]
    assert (
        len({id(recipe.training) for recipe in recipes}) == len({id(recipe.test) for recipe in recipes}) == 1
    )
    assert {recipe.seed for recipe in recipes} == {3}
    budgets = {(each.chosen.steps, each.chosen.batch_size, each.chosen.clutter) for each in recipes}
    assert len(budgets) == 1


def test_a_run_resumed_between_two_clusterings_finds_the_same_pseudo_truth(tmp_path):
    recipe, whole = made(tmp_path / "whole")
    made(tmp_path / "parts", max_steps=3)
    _, parts = made(tmp_path / "parts")
    first, second = (runs.weights(recipe, tmp_path / name) for name in ("whole", "parts"))
    assert len(first["search"].table) > 10
    for one, other in zip(first["search"].table.rows, second["search"].table.rows, strict=True):
        assert torch.equal(one, other)
    assert [each["step"] for each in first["search"].rounds] == [2, 4]
    assert torch.equal(first["search"].rounds[1]["features"], second["search"].rounds[1]["features"])
    assert whole.numbers == parts.numbers


def test_discovered_classes_become_active_in_the_step_after(tmp_path):
    recipe, _ = made(tmp_path, max_steps=3)
    trained = runs.weights(recipe, tmp_path)
    classes = trained["search"].table.classes
    assert 0 < classes <= 6
    assert trained["net"].class_weight.tolist() == [1.0] * (13 + classes) + [0.0] * (6 - classes)


def test_no_mining_leaves_the_exemplars_alone(tmp_path):
    _, without = made(tmp_path / "without", mining=False)
    recipe, _ = made(tmp_path / "with")
    search = runs.weights(recipe, tmp_path / "with")["search"]
    exemplars = sum(len(each["exemplars"]) for each in search.rounds)
    assert without.numbers["exemplars"] <= exemplars
    with_mining = walk(recipe, runs.weights(recipe, tmp_path / "with"))
    assert sum(map(len, with_mining.exemplars)) + sum(map(len, with_mining.mined)) == len(search.table)


def test_the_figure_is_shown_what_the_run_did(tmp_path):
    recipe, _ = made(tmp_path)
    networks = runs.weights(recipe, tmp_path)
    seen = walk(recipe, networks)
    assert len(seen.scenes) == len(seen.proposals) == len(seen.void) == len(seen.maps) == 24
    for scene, boxes, void in zip(seen.scenes, seen.proposals, seen.void, strict=True):
        assert boxes.shape == (len(void), 4)
        assert len(boxes) >= len(scene.of_kind("known"))
    points = seen.rounds[0]
    kept = networks["search"].rounds[0]
    assert points.plane.shape == (len(kept["image"]), 2)
    assert points.plane[:, 0].std() >= points.plane[:, 1].std() > 0
    assert set(points.hidden) <= {*UNKNOWN, "clutter"}
    assert all(seen.void[scene].any() for scene in points.scene)


# --- how it is judged ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene() -> unknown_objects.Scene:
    return next(each for each in unknown_objects.scenes(7, 50) if len(each.of_kind("unknown")) == 2)


def perfect(scene: unknown_objects.Scene) -> Panoptic:
    """What a network that knows everything would say."""
    ids = [i for i, segment in enumerate(scene.segments) if segment.kind != "clutter"]
    segments = [
        Segment(i + 1, quality.UNKNOWN if kind == "unknown" else FIRST[kind] + category)
        for i in ids
        for kind, category in [scene.segments[i]]
    ]
    return Panoptic(
        np.where(scene.masks("clutter").any(0), 0, scene.regions).astype(np.int32), tuple(segments)
    )


def test_a_perfect_map_is_perfect_under_both_scores(scene):
    numbers = judge.scores([scene], [perfect(scene)])
    for score in ("strict", "official"):
        for number in ("unknown/pq", "unknown/recall", "unknown/precision", "known/pq", "stuff/pq"):
            assert numbers[f"{score}/{number}"] == pytest.approx(100)


def test_an_unknown_on_clutter_is_wrong_under_the_strict_score_and_excused_under_the_official_one(scene):
    best = perfect(scene)
    clutter = scene.of_kind("clutter")[0]
    ids = np.where(scene.masks("clutter")[0], clutter + 1, best.ids)
    numbers = judge.scores([scene], [Panoptic(ids, (*best.segments, Segment(clutter + 1, quality.UNKNOWN)))])
    assert numbers["official/unknown/precision"] == 100
    assert numbers["strict/unknown/precision"] == pytest.approx(200 / 3)
    assert numbers["strict/unknown/recall"] == numbers["official/unknown/recall"] == 100


def test_purity_tells_unknown_things_from_clutter_label_by_label(scene):
    good, bad = (relative(torch.from_numpy(scene.boxes(kind)), SIZE) for kind in ("unknown", "clutter"))
    boxes = torch.cat([good, good[:1], bad[:1]])
    rows = Rows(torch.zeros(4, dtype=torch.long), torch.tensor([0, 1, 1, 1]), boxes)
    numbers = judge.purity([scene], rows)
    assert (numbers["exemplars"], numbers["labels"], numbers["purity"]) == (4, 2, 75)
    assert numbers["exemplars/clutter"] == 1
    assert sum(numbers[f"exemplars/{name}"] for name in UNKNOWN) == 3
    first, second = scene.categories("unknown").tolist()
    assert (numbers["purity/0"], numbers["class/0"]) == (100, first)
    assert numbers["purity/1"] == pytest.approx(100 * (2 if first == second else 1) / 3)


def test_without_exemplars_nothing_is_pure(scene):
    numbers = judge.purity([scene], Rows(torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, 4)))
    assert (numbers["exemplars"], numbers["labels"], numbers["classes"], numbers["purity"]) == (0, 0, 0, 0)


def test_no_arm_can_find_more_than_the_proposals_cover(scene):
    there = judge.seen(0, 6, "test", (1, 2))
    for kind, expected in (("unknown", 1.0), ("clutter", 0.0)):
        boxes = torch.from_numpy(scene.boxes(kind))
        only = replace(there, scenes=[scene], proposals=[Proposals(boxes, torch.zeros(len(boxes)))])
        assert judge.ceiling(only) == expected


# --- recipe and record --------------------------------------------------------------------------------------


def test_a_record_goes_stale_with_the_starts_but_not_with_the_seed(tmp_path, monkeypatch):
    prints = [demo.recipe(Options(seed=seed)).data().fingerprint() for seed in (0, 1)]
    assert prints[0] == prints[1]
    demo._fingerprint.cache_clear()
    torch.manual_seed(0)
    path = tmp_path / "base.safetensors"
    start.write(path, small.network())
    monkeypatch.setattr(small, "base_path", lambda seed: path)
    assert demo.recipe(Options()).data().fingerprint() != prints[0]
    demo._fingerprint.cache_clear()


def test_arms_take_one_rule_away_each():
    chosen = {arm: demo.recipe(Options(), knobs).chosen for arm, knobs in ARMS.items()}
    whole = chosen["eopsn"]
    assert whole.selection == Selection()
    assert whole.mining
    assert chosen["eopsn-no-mining"] == replace(whole, mining=False)
    for rule, fields in (
        ("density", ["density"]),
        ("objectness", ["objectness", "members"]),
        ("pairs", ["pairs"]),
    ):
        without = replace(Selection(), **dict.fromkeys(fields, False))
        assert chosen[f"eopsn-no-{rule}"] == replace(whole, selection=without)
    assert chosen["k-means"] == replace(whole, selection=EVERYTHING, mining=False)


def test_what_does_not_fit_the_demo_is_refused():
    with pytest.raises(InputError, match="method is 'background'; it can be suppression, train, eopsn"):
        demo.recipe(Options(), Knobs(method="background"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 devices; it runs on one"):
        demo.recipe(Options(devices=2))
