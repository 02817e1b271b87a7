"""A chapter's experiment: its arms live for one seed, and over several seeds from a record.

A paper's room says what is run in its module `demo`, or in `recipe` where that has room for both profiles:
`ARMS: Mapping[str, Knobs]`, `recipe(options, knobs)`, and `SEEDS` where they are not those below. The live
runs and the record are made by the same function here, and the record goes stale, visibly, when the code, the
data or the settings behind it change.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from cvpr21lib import record, runs
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.record import Record

SEEDS = tuple(range(8))
"""Reported seeds. Learning rates and the like were chosen on seeds from 100 on."""
FILE_NAME = "demo.json"


def module(slug: str, part: str = "demo") -> ModuleType:
    """Where a paper's arms are, see above, or those of another `part` of its room, e.g. "tuning"."""
    room = f"cvpr21lib.{slug}"
    if part != "demo":
        return importlib.import_module(f"{room}.{part}")
    return importlib.import_module(
        f"{room}.demo" if importlib.util.find_spec(f"{room}.demo") else f"{room}.recipe"
    )


def run_arms(recipe: ModuleType, options: Options, arms: Iterable[str]) -> dict[str, Record]:
    """Train each arm with one seed (or resume it, or find it finished), in a folder of its own.

    The records bear the arms' names. One thread is used on the CPU, so that the numbers do not depend on how
    many cores there are.
    """
    done: dict[str, Record] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for arm in arms:
            wanted = recipe.recipe(options, recipe.ARMS[arm])
            place = folder(recipe, options, arm)
            made = runs.run(wanted, replace(options, output_dir=place))
            done[arm] = replace(made, name=arm, settings=_placeless(made.settings))
            record.write(place / record.FILE_NAME, done[arm])
    finally:
        torch.set_num_threads(threads)
    return done


def _placeless(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without the folders of the machine that the run was made on: a record is read on others."""
    run = {**settings["run"], "output_dir": None, "data_root": None}
    return {**settings, "run": run}


def folder(recipe: ModuleType, options: Options, arm: str) -> Path:
    """Where an arm leaves its files: below `output_dir`, one folder for each version of the code."""
    wanted = recipe.recipe(options, recipe.ARMS[arm])
    root = options.output_dir or options.folder(wanted.paper, arm).parent
    return root / wanted.code_fingerprint()[:8] / f"{arm}-seed{options.seed}"


def make_record(
    slug: str, folder: str | Path, seeds: Sequence[int] | None = None, part: str = "demo"
) -> Path:
    """Run every arm of a paper's demo over the seeds and write `<folder>/<slug>/demo.json`.

    That of another part of its room goes to `<folder>/<slug>/<part>/`; the results page does not show it.

    Each seed is one process, as many at a time as there are cores. A call that was broken off continues
    where it stopped.
    """
    reported: Sequence[int] = getattr(module(slug, part), "SEEDS", SEEDS) if seeds is None else seeds
    workers = min(len(reported), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = pool.map(partial(_all_arms, slug, part), reported)
        made = [one for arms in tqdm(results, total=len(reported), unit="seed", desc=slug) for one in arms]
    path = Path(folder) / slug / ("" if part == "demo" else part) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    record.write_many(path, made)
    return path


def _all_arms(slug: str, part: str, seed: int) -> list[Record]:
    recipe = module(slug, part)
    return list(run_arms(recipe, Options(seed=seed, progress=False), recipe.ARMS).values())


@dataclass(frozen=True)
class Gain:
    """By how much an arm's number exceeds another's, paired over the seeds."""

    arm: str
    over: str
    number: str
    values: np.ndarray[Any, Any]
    """One for each seed."""

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Where the mean lies with 95 % confidence, by a paired t-test."""
        from scipy import stats

        reach = float(stats.sem(self.values) * stats.t.ppf(0.975, len(self.values) - 1))
        return self.mean - reach, self.mean + reach

    def signed(self, sign: int) -> bool:
        """Whether it has this sign, +1 or -1, in every seed."""
        return bool((np.sign(self.values) == sign).all())

    def __str__(self) -> str:
        low, high = self.interval
        alike = int((np.sign(self.values) == np.sign(self.mean)).sum())
        return (
            f"{self.number}: {self.arm} over {self.over} {self.mean:+.2f} [{low:+.2f}, {high:+.2f}], "
            f"{alike} of {len(self.values)} seeds"
        )


@dataclass(frozen=True)
class Experiment:
    """The recorded arms of a demo."""

    records: Sequence[Record]

    @classmethod
    def read(cls, path: str | Path) -> Experiment:
        """Read what `make_record` wrote."""
        return cls(record.read_many(path))

    @property
    def seeds(self) -> list[int]:
        """The recorded seeds, in order."""
        return sorted({one.seed for one in self.records})

    def values(self, arm: str, number: str) -> np.ndarray[Any, Any]:
        """One number of an arm, in the order of the seeds."""
        found = {one.seed: one.numbers[number] for one in self.records if one.name == arm}
        if sorted(found) != self.seeds:
            raise InputError(
                f"the record lacks {arm!r} for some of the seeds {self.seeds}; run `make records`"
            )
        return np.array([found[seed] for seed in self.seeds])

    def gain(self, arm: str, over: str, number: str) -> np.ndarray[Any, Any]:
        """By how much an arm's number exceeds another's, seed by seed."""
        return self.values(arm, number) - self.values(over, number)

    def compare(self, arm: str, over: str, number: str) -> Gain:
        """The same with what it takes to judge it."""
        return Gain(arm, over, number, self.gain(arm, over, number))

    def band(self, arm: str, number: str) -> tuple[float, float]:
        """Where one more run of the arm is expected: the mean give or take four standard deviations."""
        values = self.values(arm, number)
        reach = 4 * values.std(ddof=1)
        return float(values.mean() - reach), float(values.mean() + reach)

    def stale(self, recipe: ModuleType) -> list[str]:
        """Why the record no longer says what today's recipe does; [] when it does."""
        reasons: list[str] = []
        recorded = {one.name for one in self.records}
        if recorded != set(recipe.ARMS):
            reasons.append(f"arms: {sorted(recorded)} recorded, {sorted(recipe.ARMS)} in the recipe")
        for arm in sorted(recorded & set(recipe.ARMS)):
            wanted = recipe.recipe(Options(), recipe.ARMS[arm])
            settings = record.plain(wanted.settings())
            today = {"code": wanted.code_fingerprint(), "data": wanted.data().fingerprint()}
            for one in self.records:
                if one.name != arm:
                    continue
                then = {"settings": one.settings["recipe"], **one.fingerprints}
                apart = record.differences(then, {"settings": settings, **today})
                reasons += [f"{arm}, seed {one.seed}: {d.entry} {d.first!r}, now {d.second!r}" for d in apart]
        return reasons
