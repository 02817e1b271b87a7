"""Any number of devices and workers sees the same samples, and a run can start anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvpr21lib.sampling import Batches, mix, order


def draws(*, first=0, last=12, rank=0, world=1, size=4, seed=7, length=10, repeat=1):
    return list(
        Batches(length, size, seed=seed, first=first, last=last, rank=rank, world=world, repeat=repeat)
    )


def test_official_order_of_an_enlarged_epoch():
    fixture = np.load(Path(__file__).parent / "parity" / "lptn" / "crop_augment.npz")
    np.testing.assert_array_equal(order(7, repeat=3, seed=2).numpy(), fixture["out/sampler_n7_r3_e2"])


def test_two_processes_see_what_one_sees():
    whole = draws(size=4)
    halves = [draws(size=2, rank=rank, world=2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert set(batch) == set(first) | set(second)
        assert len(set(batch)) == 4


def test_a_run_that_starts_later_sees_the_rest():
    assert draws(first=5) == draws()[5:]


@pytest.mark.parametrize("repeat", [1, 3])
def test_every_epoch_shows_every_item_equally_often(repeat):
    batches = draws(length=10, size=5, last=2 * 2 * repeat, repeat=repeat)
    items = [draw.index for batch in batches for draw in batch]
    first, second = items[: len(items) // 2], items[len(items) // 2 :]
    assert sorted(first) == sorted(second) == sorted(list(range(10)) * repeat)
    assert first != second


def test_no_two_samples_share_their_random_choices():
    seeds = [draw.seed for seed in (7, 8) for batch in draws(seed=seed, last=50) for draw in batch]
    assert len(set(seeds)) == len(seeds)


def test_mixed_seeds_depend_on_every_part_and_are_known_forever():
    assert mix(1, "step", 2) == mix(1, "step", 2)
    assert len({mix(1, "step", 2), mix(2, "step", 1), mix(1, "epoch", 2), mix(1, "step", 2, 0)}) == 4
    assert mix(10, "step", 3) == 7315711815305283207  # a change would change every run


def test_the_length_is_the_number_of_batches():
    assert len(Batches(10, 4, seed=0, first=3, last=9)) == len(draws(first=3, last=9)) == 6
