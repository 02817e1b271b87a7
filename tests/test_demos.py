"""Experiments over seeds: the live arms, the record, and when it goes stale."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cvpr21lib import demos, launch, record, runs
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from tests.toy import Points, Toy


@dataclass(frozen=True)
class Sourced(Toy):
    sources = (launch,)


@pytest.fixture
def recipe():
    """A paper's recipe module with two arms."""
    return SimpleNamespace(
        ARMS={"slow": 0.01, "fast": 0.1}, recipe=lambda options, lr: Sourced(steps=6, lr=lr, name=f"lr {lr}")
    )


@pytest.fixture
def experiment(recipe, tmp_path):
    made = [
        one
        for seed in (3, 1, 2)
        for one in demos.run_arms(
            recipe, Options(seed=seed, output_dir=tmp_path, accelerator="cpu", progress=False), recipe.ARMS
        ).values()
    ]
    record.write_many(tmp_path / demos.FILE_NAME, made)
    return demos.Experiment.read(tmp_path / demos.FILE_NAME)


def test_arms_are_kept_apart_and_given_their_names(recipe, experiment, tmp_path):
    assert experiment.seeds == [1, 2, 3]
    assert {one.name for one in experiment.records} == {"slow", "fast"}
    fast, slow = experiment.values("fast", "error"), experiment.values("slow", "error")
    np.testing.assert_array_equal(experiment.gain("fast", "slow", "error"), fast - slow)
    where = demos.folder(recipe, Options(seed=2, output_dir=tmp_path), "fast")
    kept = record.read(where / record.FILE_NAME)
    assert (kept.name, kept.numbers["error"]) == ("fast", fast[1])


def test_the_band_holds_the_seeds_it_was_made_of(experiment):
    low, high = experiment.band("fast", "error")
    values = experiment.values("fast", "error")
    assert low < values.min()
    assert values.max() < high
    assert (low + high) / 2 == pytest.approx(values.mean())


def test_a_gain_is_judged_by_its_pairs():
    gain = demos.Gain("ours", "theirs", "psnr", np.array([1.0, 2.0, 3.0]))
    low, high = gain.interval
    # the mean 2, the standard error 1/√3, and Student's 4.303 for two degrees of freedom
    assert (gain.mean, (high - low) / 2) == pytest.approx((2, 4.303 / 3**0.5), abs=1e-3)
    assert str(gain) == "psnr: ours over theirs +2.00 [-0.48, +4.48], 3 of 3 seeds"
    assert gain.signed(1)
    assert not gain.signed(-1)
    assert not demos.Gain("ours", "theirs", "psnr", np.array([1.0, -2.0])).signed(-1)


def test_live_runs_use_one_thread_and_give_the_others_back(recipe, tmp_path):
    before = torch.get_num_threads()
    made = demos.run_arms(recipe, Options(output_dir=tmp_path, accelerator="cpu", progress=False), ["fast"])
    assert made["fast"].hardware["threads"] == 1
    assert torch.get_num_threads() == before


def test_a_fresh_record_is_not_stale(recipe, experiment):
    assert experiment.stale(recipe) == []


def test_other_settings_make_a_record_stale(recipe, experiment):
    recipe.ARMS["fast"] = 0.2
    assert sorted(experiment.stale(recipe)) == [
        f"fast, seed {seed}: settings.lr 0.1, now 0.2" for seed in (1, 2, 3)
    ]


def test_other_arms_make_a_record_stale(recipe, experiment):
    recipe.ARMS["third"] = 0.3
    assert experiment.stale(recipe) == [
        "arms: ['fast', 'slow'] recorded, ['fast', 'slow', 'third'] in the recipe"
    ]


def test_other_code_makes_a_record_stale(recipe, experiment, monkeypatch):
    monkeypatch.setattr(record, "code_fingerprint", lambda modules: "other")
    reasons = experiment.stale(recipe)
    assert len(reasons) == 6
    assert all("now 'other-" in reason for reason in reasons)


def test_a_loop_that_gives_other_numbers_makes_a_record_stale(recipe, experiment, monkeypatch):
    monkeypatch.setattr(runs, "LOOP", runs.LOOP + 1)
    assert len(experiment.stale(recipe)) == 6


def test_other_data_make_a_record_stale(recipe, experiment, monkeypatch):
    monkeypatch.setattr(Points, "fingerprint", lambda points: "others")
    reasons = experiment.stale(recipe)
    assert len(reasons) == 6
    assert all("data 'points', now 'others'" in reason for reason in reasons)


def test_a_missing_arm_is_named(experiment):
    with pytest.raises(InputError, match="lacks 'none'"):
        experiment.values("none", "error")
