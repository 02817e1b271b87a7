"""Small benchmarks for hashing: prepared ones for the library, and raw ones and lists for the scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cvpr21lib.prosgan import splits
from cvpr21lib.prosgan.data import BENCHMARKS, BenchmarkName
from cvpr21lib.prosgan.splits import NAMES, Part, Splits
from tests.conftest import photograph

COUNTS = 8, 4, 16
"""Images of train, test and database."""


def prepared(
    root: Path,
    name: BenchmarkName = "FLICKR-25K",
    counts: tuple[int, int, int] = COUNTS,
    size: tuple[int, int] = (40, 56),
) -> Path:
    """Lay out a benchmark as `data_scripts` would; returns `root`, which `data.find` takes.

    Every image shows one of the first three classes, and every third one the fourth, too; its brightness goes
    with the first. `size` is (height, width) in pixels.
    """
    benchmark = BENCHMARKS[name]
    train, test, database = counts
    labels = np.zeros((test + database, benchmark.classes), np.uint8)
    rows = np.arange(len(labels))
    labels[rows, rows % 3] = 1
    labels[::4, 3] = 1
    images = tuple(f"{FOLDERS[name]}/im{row + 1}.jpg" for row in rows)
    for row, image in enumerate(images):
        picture(root / benchmark.images / image, row, size, brightness=0.4 + 0.3 * (row % 3))
    parts = dict(zip(NAMES, (slice(test, test + train), slice(test), slice(test, None)), strict=True))
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    splits.write(
        folder / splits.FILE,
        Splits(
            tuple(f"class {c}" for c in range(benchmark.classes)),
            "a miniature",
            {part: Part(images[chosen], labels[chosen]) for part, chosen in parts.items()},
        ),
    )
    return root


FOLDERS = {"FLICKR-25K": "mirflickr", "NUS-WIDE": "images", "MS-COCO": "train2014"}
"""Where below the folder of the images they lie."""


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 56), brightness: float = 1.0) -> Path:
    """A small photograph on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (photograph(seed, *size) * brightness).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def lists(folder: Path, images: Sequence[str], labels: np.ndarray, rows: dict[str, Sequence[int]]) -> Path:
    """The six official lists in `folder`: of `images` with `labels`, the `rows` of each part."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in rows.items():
        (folder / f"{name}_img.txt").write_text("".join(f"{images[row]}\n" for row in chosen))
        # NUS-WIDE's lines end with a space
        lines = (" ".join(map(str, labels[row].tolist())) + " \n" for row in chosen)
        (folder / f"{name}_label.txt").write_text("".join(lines))
    return folder
