"""Chapter 5's experiment: equal arms from shipped starts, repeatable, and judged as the chapter says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cvpr21lib import runs
from cvpr21lib.ctrl_uda import cross_task, demo, small
from cvpr21lib.ctrl_uda.demo import ARMS, CLASSES, LIVE, START, STARTS, Settings
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.scenes import roads


@pytest.fixture(autouse=True)
def few_scenes(request, monkeypatch):
    """Worlds that are drawn in a moment."""
    if "whole_worlds" in request.fixturenames:
        return
    monkeypatch.setattr(demo, "TRAINING", 8)
    monkeypatch.setattr(demo, "JUDGED", 4)


@pytest.fixture
def whole_worlds():
    """For the tests of what is shipped."""


def run(folder: Path, settings: Settings, **options):
    how = Options(output_dir=folder, accelerator="cpu", progress=False, **options)
    return runs.run(demo.recipe(how, settings), how)


def fresh(arm: str, **changes) -> Settings:
    """An arm, shortened, that needs no shipped start."""
    return replace(ARMS[arm], start="fresh", quiet=1, ramp=1, **changes)


def weights(folder: Path, settings: Settings) -> dict[str, torch.Tensor]:
    return runs.weights(demo.recipe(Options(), settings), folder)["net"].state_dict()


def test_every_arm_has_the_same_steps_rates_and_batches():
    steps = ARMS["ctrl"].steps
    same = ("start", "batch_size", "lr", "lr_discriminator", "quiet", "ramp", "lambda_depth")
    for name, arm in ARMS.items():
        wanted = 0 if name == "source" else 2 * steps if name.endswith("-long") else steps
        assert arm.steps - arm.self_learning == wanted
        for field in same:
            assert getattr(arm, field) == getattr(ARMS["ctrl"], field), (name, field)
    assert set(LIVE) <= set(ARMS)


@pytest.mark.parametrize("arm", ["mtl", "advent", "mtl+advent", "ctrl-no-srh", "ctrl", "ctrl+isl"])
def test_an_arm_repeats_bit_for_bit_and_resumes(arm, tmp_path):
    settings = fresh(arm, steps=5, self_learning=2 if arm == "ctrl+isl" else 0)
    first = run(tmp_path / "first", settings)
    run(tmp_path / "second", settings, max_steps=4)
    second = run(tmp_path / "second", settings)
    assert first.numbers == second.numbers
    before, after = weights(tmp_path / "first", settings), weights(tmp_path / "second", settings)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_arm_source_is_the_start_itself(tmp_path):
    made = run(tmp_path, replace(ARMS["source"], start="fresh"))
    assert made.steps == 0
    assert 0 < made.numbers["miou"] < 60


def test_self_learning_learns_from_the_network_that_it_began_with(tmp_path):
    """Source, depth, refinement and adversary are out of it; the teacher is the network after adaptation."""
    settings = fresh("ctrl+isl", steps=4, self_learning=2)
    run(tmp_path / "two", settings, max_steps=2)
    adapted = torch.load(tmp_path / "two" / "checkpoints" / "step_00000002.pt", weights_only=True)[
        "networks"
    ]["net"]
    run(tmp_path / "four", settings)
    found = runs.weights(demo.recipe(Options(), settings), tmp_path / "four")
    teacher, net = found["teacher"].state_dict(), found["net"].state_dict()
    assert all(torch.equal(teacher[name], adapted[name]) for name in teacher)
    curve = run(tmp_path / "four", settings, log_every=1).curves
    assert "pseudo" in curve
    assert not torch.equal(net["semantic.branches.0.weight"], teacher["semantic.branches.0.weight"])


def test_the_adversary_waits_and_then_grows():
    weight = [demo.ramped(0.6, 2, 3, number) for number in range(7)]
    assert weight == pytest.approx([0, 0, 0.2, 0.4, 0.6, 0.6, 0.6])


def test_learning_rates_fall_to_zero_and_begin_anew_in_self_learning():
    made = demo.recipe(
        Options(), replace(ARMS["ctrl+isl"], steps=30, self_learning=10, lr_self_learning=1e-4)
    )
    rates = [made.chosen.lr * made._factor(number) for number in range(31)]
    assert rates[0] == made.chosen.lr
    assert rates[10] == pytest.approx(made.chosen.lr * 0.5**0.9)
    assert rates[19] < 0.1 * rates[0]
    assert rates[20] == pytest.approx(1e-4)
    assert rates[30] == 0


def test_both_domains_of_a_seed_are_its_own_and_the_judged_scenes_are_new(monkeypatch):
    first, second = demo.frames(0, "target", 0, 8), demo.frames(1, "target", 0, 8)
    assert not torch.equal(first.image, second.image)
    judged = demo.frames(0, "target", 8, 4)
    assert not any(torch.equal(one, other) for one in judged.image for other in first.image)
    assert demo.World(0).fingerprint() == demo.World(5).fingerprint()
    before = demo.World(0).fingerprint()
    monkeypatch.setitem(roads.LOOKS, "target", replace(roads.LOOKS["target"], gamma=2.0))
    assert demo.World(0).fingerprint() != before


class Oracle(torch.nn.Module):
    """Knows labels and depth of the scenes that it is shown."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.known = [demo.frames(seed, "target", *part) for part in ((8, 4), (0, 8))]

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = next(part for part in self.known if torch.equal(part.image[: len(image)], image))
        logits = 20 * torch.nn.functional.one_hot(found.label, 7).movedim(-1, 1).float()
        return logits, demo.inverse(found.metres)[:, None], logits


def test_the_truth_scores_perfectly():
    numbers = demo.evaluate(Oracle(0), 0)
    assert numbers["miou"] == 100
    assert {numbers[f"iou/{name}"] for name in CLASSES} == {100}
    assert numbers["abs_rel@80m"] == pytest.approx(0, abs=1e-5)
    assert (numbers["coverage"], numbers["sure_and_right"]) == (1, 1)


def test_what_the_discriminator_sees_of_a_scene_falls_into_its_three_parts():
    torch.manual_seed(0)
    net, scene, bins = small.SmallNet(7), roads.scene(0, "target", 0), demo.BINS["log"]
    found = demo.seen(net, scene)
    assert found.joint.shape == (29, 12, 24)
    np.testing.assert_array_equal(np.concatenate([found.semantic, found.bins, found.refined]), found.joint)
    np.testing.assert_allclose(found.share.sum(0), 1, rtol=1e-5)
    known = np.isfinite(found.depth) & (found.depth > bins.metres[0]) & (found.depth < bins.metres[-1])
    nearest = np.abs(np.log(found.depth)[None] - np.log(bins.metres)[:, None, None]).argmin(0)
    assert (found.share.argmax(0) == nearest)[known].mean() > 0.99


def test_enlarged_bins_are_the_official_ones_on_a_street_ten_times_as_large():
    metres = torch.tensor([3.0, 7.0, 20.0, 55.0]).view(1, 1, 1, 4)
    ours = cross_task.quantise(demo.inverse(metres), demo.BINS["SID-enlarged"])
    official = cross_task.quantise(demo.inverse(10 * metres), cross_task.bins("SID"))
    torch.testing.assert_close(ours, official, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "dann"}, "method is 'dann'; it can be source, mtl"),
        ({"bins": "linear"}, "bins is 'linear'; it can be log, SID"),
        ({"start": "imagenet"}, "start is 'imagenet'; it can be trained, fresh"),
        ({"self_learning": 999}, "self_learning is 999 of"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        demo.recipe(Options(), replace(ARMS["ctrl"], **changes))


def test_missing_and_foreign_starts_are_one_clear_error_each(tmp_path):
    with pytest.raises(InputError, match=r"no starts at .*python -m cvpr21lib\.ctrl_uda\.demo"):
        demo.start(0, tmp_path / "start.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "start.safetensors")
    with pytest.raises(InputError, match=r"holds no start 3"):
        demo.start(13, tmp_path / "start.safetensors")


def test_the_shipped_starts_are_small_and_fit():
    assert STARTS.stat().st_size < 2e6
    for seed in (0, 9, 100):
        small.SmallNet(len(CLASSES)).load_state_dict(demo.start(seed))
    assert all(
        torch.equal(one, other)
        for one, other in zip(demo.start(3).values(), demo.start(13).values(), strict=True)
    )


def test_a_start_that_is_made_again_is_as_good(whole_worlds):
    """On the machine that made it it is the same; elsewhere rounding leads it to other weights."""
    scores = []
    for state in (demo.start(0), demo.make_start(0)):
        net = small.SmallNet(len(CLASSES)).eval()
        net.load_state_dict(state)
        with torch.no_grad():
            scores.append(demo.evaluate(net, 0))
    assert scores[1]["miou"] == pytest.approx(scores[0]["miou"], abs=6)
    assert scores[1]["abs_rel@80m"] == pytest.approx(scores[0]["abs_rel@80m"], abs=0.1)
    assert START.steps == 600
