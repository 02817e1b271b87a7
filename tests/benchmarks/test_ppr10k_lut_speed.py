"""3-D LUTs beside what else applies them: grid_sample, Pillow, OpenColorIO, colour, the official algorithm.

All on a photograph, with a LUT of 33 points and in one process; `make benchmarks` prints the ratios. One
thread is measured in processor time, and there the promised ratios are asserted, with room for a busy
machine; two threads in wall time. All take turns, and the fastest round of each counts.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cvpr21lib.ppr10k import cube, lut
from cvpr21lib.scenes import photographs

SIZES = {"1080p": (1080, 1920), "4K": (2160, 3840)}
ROUNDS = {"1080p": 7, "4K": 4}
one_thread = pytest.mark.benchmark(timer=time.process_time)
threads = pytest.mark.parametrize(
    "threads", [pytest.param(1, id="one thread", marks=one_thread), pytest.param(2, id="two threads")]
)
ways = pytest.mark.parametrize("way", ["compiled", "without numba"], indirect=True)
sizes = pytest.mark.parametrize("size", SIZES)


@pytest.fixture(autouse=True)
def _threads(request) -> Iterator[None]:
    before, parameters = torch.get_num_threads(), getattr(request.node, "callspec", None)
    torch.set_num_threads(parameters.params.get("threads", 1) if parameters else 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def way(request, monkeypatch) -> str:
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(lut, "_compiled", lambda: None)
    return request.param


Race = Callable[..., dict[str, float]]


@pytest.fixture
def race(benchmark, capsys) -> Race:
    """Time `ours` and the `others` in turns; print, keep and return how many times faster ours is."""

    def run(label: str, ours: Callable, others: dict[str, Callable], rounds: int) -> dict[str, float]:
        timer = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        taken: dict[str, list[float]] = {name: [] for name in others}

        def others_first() -> None:
            for name, other in others.items():
                start = timer()
                other()
                taken[name].append(timer() - start)

        others_first()
        benchmark.pedantic(ours, setup=others_first, rounds=rounds, warmup_rounds=1)
        seconds = benchmark.stats.stats.min
        ratios = {name: min(values[1:]) / seconds for name, values in taken.items()}
        benchmark.extra_info.update({name: round(ratio, 2) for name, ratio in ratios.items()})
        listed = ", ".join(
            f"{ratio:.2f} × {name} ({min(taken[name]):.4f} s)" for name, ratio in ratios.items()
        )
        with capsys.disabled():
            print(f"\n{label}: {seconds:.4f} s; speed is {listed}")
        return ratios

    return run


def photograph(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8."""
    photo = (photographs.load("china") * 255).round().astype(np.uint8)
    return cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC)


def as_image(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(255).contiguous()


def look() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (lut.identity(33) + 0.1 * torch.randn(3, 33, 33, 33, generator=generator)).clamp(0, 1)


def grid_sample(table: Tensor, image: Tensor) -> Tensor:
    """What one writes with torch."""
    grid = (2 / lut.STRETCH * image - 1).permute(0, 2, 3, 1)[:, None]
    tables = table if table.ndim == 5 else table.expand(len(image), -1, -1, -1, -1)
    return F.grid_sample(tables, grid, padding_mode="border", align_corners=True)[:, :, 0]


@threads
@sizes
@ways
def test_forward(race, way, size, threads):
    table, image = look(), as_image(photograph(*SIZES[size]))
    others: dict[str, Callable] = {"grid_sample": lambda: grid_sample(table, image)}
    if way == "compiled":
        others["the official algorithm"] = official_algorithm(table, image)
    with torch.no_grad():
        ratios = race(f"{size}, {way}", lambda: lut.apply(table, image), others, ROUNDS[size])
    if threads == 1:
        assert ratios["grid_sample"] > (2 if way == "compiled" else 0.8)


@one_thread
def test_forward_against_opencolorio(race):
    pytest.importorskip("numba")
    ocio = pytest.importorskip("PyOpenColorIO")
    table, pixels = look(), photograph(*SIZES["1080p"])
    image, floats = as_image(pixels), np.float32(pixels) / 255
    transform = ocio.Lut3DTransform(33)
    transform.setInterpolation(ocio.INTERP_LINEAR)
    transform.setData(table.permute(3, 2, 1, 0).flatten().numpy())
    processor = ocio.Config.CreateRaw().getProcessor(transform).getDefaultCPUProcessor()
    rgba = np.dstack([floats, np.ones_like(floats[..., :1])])
    done = floats.copy()
    processor.applyRGB(done)
    torch.testing.assert_close(lut.apply(table, image), as_image(done * 255), rtol=0, atol=1e-4)
    others = {
        "OpenColorIO on RGB": lambda: processor.applyRGB(floats),
        "OpenColorIO on RGBA": lambda: processor.applyRGBA(rgba),
    }
    race("1080p, compiled", lambda: lut.apply(table, image), others, 7)


@one_thread
def test_forward_against_colour_science(race):
    colour = pytest.importorskip("colour")
    table, pixels = look(), photograph(*SIZES["1080p"])
    image, floats = as_image(pixels), np.float32(pixels) / 255
    theirs = colour.LUT3D(table.permute(3, 2, 1, 0).numpy())
    trilinear = colour.algebra.table_interpolation_trilinear
    others = {"colour-science": lambda: theirs.apply(floats, interpolator=trilinear)}
    race("1080p", lambda: lut.apply(table, image), others, 2)


@threads
@sizes
@ways
def test_eight_bits(race, way, size, threads):
    table, pixels = look(), photograph(*SIZES[size])
    theirs, filtered = Image.fromarray(pixels), cube.to_pillow(table)
    others = {
        "Pillow": lambda: theirs.filter(filtered),
        "Pillow from and to an array": lambda: np.asarray(Image.fromarray(pixels).filter(filtered)),
    }
    ratios = race(f"8 bits, {size}, {way}", lambda: lut.apply_8bit(table, pixels), others, ROUNDS[size])
    if threads == 1:
        assert ratios["Pillow"] > (1 if way == "compiled" else 1 / 1.5)


TRAINING = {
    "one image of 1080p": (1, 1080, 1920, 33),
    "16 crops of 448, a LUT each": (16, 448, 448, 33),
    "8 crops of 42, a LUT of 9 points each": (8, 42, 42, 9),
}


@one_thread
@ways
@pytest.mark.parametrize("case", TRAINING)
@pytest.mark.parametrize("for_image", [False, True], ids=["LUT", "LUT and image"])
def test_forward_and_backward(race, way, case, for_image):
    n, height, width, size = TRAINING[case]
    image = as_image(photograph(height, width)).repeat(n, 1, 1, 1).requires_grad_(for_image)
    tables = lut.identity(size).repeat(n, 1, 1, 1, 1).requires_grad_()

    def step(apply: Callable) -> None:
        out = apply(tables, image)
        torch.autograd.grad(out, (tables, image) if for_image else tables, torch.ones_like(out))

    label = f"forward and backward to {'LUT and image' if for_image else 'LUT'}, {case}, {way}"
    rounds = 30 if n * height * width < 2**16 else 3
    ratios = race(label, lambda: step(lut.apply), {"grid_sample": lambda: step(grid_sample)}, rounds)
    if not for_image:  # grid_sample's gradient of the image is cheaper, and wrong at 0 and 1
        assert ratios["grid_sample"] > (1.5 if way == "compiled" and rounds == 3 else 0.75)


MEMORY = """
import sys, torch
from cvpr21lib.ppr10k import lut

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e3

torch.set_num_threads(int(sys.argv[2]))
if sys.argv[1] == "without numba":
    lut._compiled = lambda: None
def step(image):
    table = lut.identity(33).requires_grad_(sys.argv[3] == "backward")
    out = lut.apply(table, image)
    if table.requires_grad:
        out.sum().backward()
step(torch.rand(1, 3, 256, 256))
image = torch.rand(1, 3, 1080, 1920)
before = status("VmRSS")
step(image)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("step", ["forward", "backward"])
@ways
def test_peak_memory_at_1080p(benchmark, capsys, way, step, threads):
    def peak() -> float:
        command = [sys.executable, "-c", MEMORY, way, str(threads), step]
        root = Path(__file__).parents[2]
        return float(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)

    extra = benchmark.pedantic(peak, rounds=1)
    benchmark.extra_info.update(extra_mb=round(extra))
    with capsys.disabled():
        print(f"\nmemory above the image at 1080p, {step}, {threads} threads, {way}: {extra:.0f} MB")
    assert extra < 150


def official_algorithm(table: Tensor, image: Tensor) -> Callable[[], Any]:
    """How the official operation computes, in compiled code as well: from three planes, by 24 reads.

    floor and fmod of a division place a pixel in its cell, and each channel gathers its own eight corners.
    """
    numba = pytest.importorskip("numba")
    size = table.shape[-1]
    planes, x = table.reshape(3, -1).numpy(), image.reshape(3, -1).numpy()
    step = np.float32(lut.STRETCH / (size - 1))

    @numba.njit(nogil=True)
    def run(planes: Any, x: Any, y: Any) -> None:
        one = np.float32(1)
        for p in range(x.shape[1]):
            r, g, b = x[0, p], x[1, p], x[2, p]
            i, j, k = int(np.floor(r / step)), int(np.floor(g / step)), int(np.floor(b / step))
            fr, fg, fb = np.fmod(r, step) / step, np.fmod(g, step) / step, np.fmod(b, step) / step
            at = i + size * (j + size * k)
            for c in range(3):
                y[c, p] = (
                    (one - fr) * (one - fg) * (one - fb) * planes[c, at]
                    + fr * (one - fg) * (one - fb) * planes[c, at + 1]
                    + (one - fr) * fg * (one - fb) * planes[c, at + size]
                    + fr * fg * (one - fb) * planes[c, at + size + 1]
                    + (one - fr) * (one - fg) * fb * planes[c, at + size * size]
                    + fr * (one - fg) * fb * planes[c, at + size * size + 1]
                    + (one - fr) * fg * fb * planes[c, at + size * size + size]
                    + fr * fg * fb * planes[c, at + size * size + size + 1]
                )

    def whole() -> Tensor:
        out = torch.empty_like(image)
        run(planes, x, out.view(3, -1).numpy())
        return out

    torch.testing.assert_close(whole(), lut.apply(table, image), rtol=0, atol=1e-5)
    return whole
