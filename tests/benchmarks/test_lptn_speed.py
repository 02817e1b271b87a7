"""LPTN beside the official way of computing it: same weights, same process, same results to 1e-5.

`make benchmarks` prints the ratios. One thread is measured in processor time, two threads in wall time; the
two ways take turns, and the fastest round of each counts.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cvpr21lib.lptn.model import LPTN
from cvpr21lib.lptn.pyramid import decompose, reconstruct
from tests.benchmarks import official_way

SIZES = {"480p": (480, 720), "1080p": (1080, 1920), "4K": (2160, 3840)}
ROUNDS = {"480p": 5, "1080p": 3, "4K": 2, "8K": 1}
one_thread = pytest.mark.benchmark(timer=time.process_time)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def photograph(size: tuple[int, int]) -> torch.Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


def network(arch: str) -> LPTN:
    torch.manual_seed(0)
    return LPTN(arch=arch).eval()


@one_thread
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("arch", ["released", "paper"])
def test_forward_on_one_thread(against, arch, size):
    ours, image = network(arch), photograph(SIZES[size])
    reference = official_way.OfficialWay(ours)
    torch.testing.assert_close(ours(image), reference(image), rtol=0, atol=1e-5)
    against(
        f"forward, {arch}, {size}",
        lambda: ours(image),
        lambda: reference(image),
        ROUNDS[size],
        time.process_time,
    )


@pytest.mark.parametrize("size", SIZES)
def test_forward_on_two_threads(against, size):
    torch.set_num_threads(2)
    ours, image = network("released"), photograph(SIZES[size])
    reference = official_way.OfficialWay(ours)
    against(
        f"forward, two threads, {size}",
        lambda: ours(image),
        lambda: reference(image),
        ROUNDS[size],
        time.perf_counter,
    )


@one_thread
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", ["decompose", "reconstruct"])
def test_pyramid(against, step, size):
    image = photograph(SIZES[size])
    parts = decompose(image, 3)
    for ours, reference in zip(parts, official_way.decompose(image, 3), strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5)
    pairs = {
        "decompose": (lambda: decompose(image, 3), lambda: official_way.decompose(image, 3)),
        "reconstruct": (lambda: reconstruct(parts), lambda: official_way.reconstruct(parts)),
    }
    against(f"{step}, {size}", *pairs[step], 3, time.process_time)


@one_thread
@pytest.mark.parametrize("arch", ["released", "paper"])
def test_training_step(against, arch):
    """Forward and backward on eight crops of 256 pixels, the sizes of a real training."""
    ours, image = network(arch), photograph((256, 256)).repeat(8, 1, 1, 1)
    reference = official_way.OfficialWay(ours)

    def step(module: torch.nn.Module) -> None:
        with torch.enable_grad():
            module.zero_grad()
            module(image).square().mean().backward()

    against(f"training step, {arch}", lambda: step(ours), lambda: step(reference), 3, time.process_time)


@one_thread
def test_seconds_per_megapixel_stay_flat(benchmark, capsys):
    model, cost = network("released"), {}
    for name, size in {**SIZES, "8K": (4320, 7680)}.items():
        image = photograph(size)
        rounds = []
        for _ in range(ROUNDS[name]):
            start = time.process_time()
            model(image)
            rounds.append(time.process_time() - start)
        cost[name] = min(rounds) / (size[0] * size[1] / 1e6)
    image = photograph(SIZES["480p"])
    benchmark.pedantic(model, args=(image,), rounds=1)
    benchmark.extra_info.update({name: round(value, 3) for name, value in cost.items()})
    with capsys.disabled():
        spread = max(cost.values()) / min(cost.values()) - 1
        listed = ", ".join(f"{name} {value:.2f}" for name, value in cost.items())
        print(f"\nseconds per megapixel: {listed} (spread {spread:.0%})")


MEMORY = """
import sys, torch
from cvpr21lib.lptn.model import LPTN
from tests.benchmarks.official_way import OfficialWay

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e6

torch.set_num_threads(1)
arch, way, height, width = sys.argv[1:]
model = LPTN(arch=arch).eval()
if way == "official":
    model = OfficialWay(model)
with torch.inference_mode():
    model(torch.rand(1, 3, 64, 64))
    image = torch.rand(1, 3, int(height), int(width))
    before = status("VmRSS")
    model(image)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("arch", ["released", "paper"])
def test_peak_memory_at_4k(benchmark, capsys, arch):
    def peak(way: str) -> float:
        command = [sys.executable, "-c", MEMORY, arch, way, *map(str, SIZES["4K"])]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        return float(done.stdout)

    official = peak("official")
    ours = benchmark.pedantic(peak, args=("ours",), rounds=1)
    benchmark.extra_info.update(ours_gb=round(ours, 2), official_gb=round(official, 2))
    with capsys.disabled():
        print(f"\npeak memory at 4K above the input, {arch}: {ours:.2f} GB against {official:.2f} GB")
    assert ours < official
