"""Retouching a whole photograph beside decoding its JPEG: one process, one thread, processor time, in turns.

Retouching is all that lies between the decoded and the finished pixels: the thumbnail, the network, the LUT.
The JPEGs are made like a camera's fine setting (about half a byte a pixel). "Decoding" is what `images.read`
does; the ratio to Pillow's bare decoder, without the conversion to the house's floats, is printed too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from cvpr21lib import images
from cvpr21lib.ppr10k import lut, table
from cvpr21lib.ppr10k.model import LightPredictor, ResNet18Predictor, Retoucher
from cvpr21lib.ppr10k.retouch import retouch
from cvpr21lib.scenes import photographs

SIZES = {"12 megapixels": (3000, 4000), "24 megapixels": (4000, 6000)}
PREDICTORS = {"light": lambda: LightPredictor(3), "ResNet-18": lambda: ResNet18Predictor(5)}
ROUNDS = 7


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(threads)
    cv2.setNumThreads(cv2_threads)


def camera_jpeg(folder: Path, height: int, width: int) -> Path:
    """A bundled photograph and its mirror images side by side, at its own sharpness."""
    photo = (photographs.load("china") * 255).round().astype(np.uint8)
    row = np.concatenate([photo, photo[:, ::-1]], 1)
    tile = np.concatenate([row, row[::-1]])
    times = (-(-height // tile.shape[0]), -(-width // tile.shape[1]), 1)
    path = folder / f"{height}x{width}.jpg"
    Image.fromarray(np.tile(tile, times)[:height, :width]).save(path, quality=93)
    return path


def network(kind: str) -> Retoucher:
    torch.manual_seed(0)
    ours = Retoucher(PREDICTORS[kind](), identity_start=True)
    ours.luts.data += 0.02 * torch.randn(ours.luts.shape)
    return ours.eval()


def bare_decode(path: Path) -> Image.Image:
    image = Image.open(path)
    image.load()
    return image


def taken(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", PREDICTORS)
def test_retouching_takes_less_than_decoding(benchmark, capsys, tmp_path, kind, size):
    ours, path = network(kind), camera_jpeg(tmp_path, *SIZES[size])
    pixels = np.asarray(bare_decode(path))
    read, bare = [], []

    def decode_first() -> None:
        read.append(taken(lambda: images.read(path)))
        bare.append(taken(lambda: bare_decode(path)))

    benchmark.pedantic(retouch, args=(pixels, ours), setup=decode_first, rounds=ROUNDS, warmup_rounds=1)
    seconds = benchmark.stats.stats.min
    ratios = {"read": seconds / min(read), "bare": seconds / min(bare)}
    benchmark.extra_info.update({name: round(ratio, 2) for name, ratio in ratios.items()})
    with capsys.disabled():
        print(
            f"\nretouching, {kind}, {size} ({path.stat().st_size / 1e6:.1f} MB): {seconds:.3f} s, "
            f"{ratios['read']:.2f} of images.read, {ratios['bare']:.2f} of the bare decoder"
        )
    assert ratios["read"] < 1


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("size", SIZES)
def test_the_table_against_interpolating_every_pixel(benchmark, capsys, tmp_path, size):
    """Where `retouch` takes the table of all 8-bit colours, it is the faster way."""
    pixels = np.asarray(bare_decode(camera_jpeg(tmp_path, *SIZES[size])))
    look = lut.identity(33) + 0.02 * torch.randn(3, 33, 33, 33)
    other = []

    def pixel_by_pixel() -> None:
        other.append(taken(lambda: lut.apply_8bit(look, pixels)))

    benchmark.pedantic(table.apply, args=(look, pixels), setup=pixel_by_pixel, rounds=5, warmup_rounds=1)
    ratio = min(other) / benchmark.stats.stats.min
    benchmark.extra_info.update(ratio=round(ratio, 2))
    with capsys.disabled():
        print(
            f"\ntable, {size}: {benchmark.stats.stats.min:.3f} s, {ratio:.1f} times as fast as lut.apply_8bit"
        )
    assert ratio > 1
