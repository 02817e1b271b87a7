"""What the run loop costs beside a bare one: the same steps of LPTN, in one process and on one thread."""

from __future__ import annotations

import statistics
import time

import torch

from cvpr21lib import runs
from cvpr21lib.lptn import losses
from cvpr21lib.lptn import recipe as lptn
from cvpr21lib.options import Options

BLOCKS, STEPS = 40, 15


def test_a_step_costs_less_than_two_percent_more_than_a_bare_one(benchmark, tmp_path):
    torch.set_num_threads(1)
    options = Options(output_dir=tmp_path, accelerator="cpu", progress=False, log_every=10)
    recipe = lptn.recipe(options, lptn.Knobs(steps=10_000))
    data = recipe.data()
    fabric = runs.launch.fabric(options)
    running = runs._Running(fabric, recipe, options, runs.RunFolder(tmp_path))
    own = running.train(10_000, recipe.batch_size)
    bare = _bare_loop(recipe, data)
    next(own), next(bare)
    seconds: dict[str, list[float]] = {"bare": [], "own": []}

    def alternate():
        # in short blocks, so that both see the same state of the machine, and the first step of each only
        # drives the other's memory out of the caches
        for _ in range(BLOCKS):
            for name, loop in (("bare", bare), ("own", own)):
                next(loop)
                for _ in range(STEPS):
                    start = time.process_time()
                    next(loop)
                    seconds[name].append(time.process_time() - start)

    benchmark.pedantic(alternate, rounds=1)
    overhead = _fast(seconds["own"]) / _fast(seconds["bare"]) - 1
    print(f"\na step of the run loop costs {overhead:+.2%} (faster halves of {BLOCKS * STEPS} steps each)")
    benchmark.extra_info["overhead"] = overhead
    assert overhead < 0.02


def _fast(seconds):
    """The mean of the faster half: what other work on the machine slowed down is left out."""
    return statistics.mean(sorted(seconds)[: len(seconds) // 2])


def _bare_loop(recipe, data):
    """The training loop one would write by hand for this model: the recipe's schedule, but nothing checked,
    kept or logged."""
    network = lptn.generator(recipe.chosen)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.chosen.lr, betas=recipe.chosen.betas)
    schedule = recipe.schedulers({"generator": optimizer})["generator"]
    batches = runs.Batches(len(data), recipe.batch_size, seed=0, last=10_000, repeat=recipe.repeat)
    for batch in torch.utils.data.DataLoader(data, batch_sampler=batches):
        optimizer.zero_grad()
        loss = recipe.chosen.lambda_rec * losses.mse(network(batch["source"]), batch["target"])
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss
