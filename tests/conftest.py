"""What several test folders share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth coloured picture, uint8 (H, W, 3): like a photograph, JPEG changes it little."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def miniature_fivek(tmp_path: Path) -> Callable[..., Path]:
    """Makes a small FiveK in the official layout and returns the folder that holds train/ and test/.

    `train` sources (0001.jpg, ...) and as many other targets, `test` pairs, each `size` (height, width)
    pixels; a target is its photograph made brighter and warmer. `paired` training folders share their names.
    """

    def make(
        train: int = 6,
        test: int = 2,
        size: tuple[int, int] = (96, 128),
        paired: bool = False,
        root: Path | None = None,
    ) -> Path:
        root = root or tmp_path / "FiveK_480p"
        first = {"A": 1, "B": 1 if paired else train + 1}
        for domain in "AB":
            numbers = {"train": range(first[domain], first[domain] + train), "test": range(4501, 4501 + test)}
            for part, members in numbers.items():
                folder = root / part / domain
                folder.mkdir(parents=True)
                for number in members:
                    pixels = photograph(number, *size)
                    if domain == "B":
                        pixels = np.clip(pixels * [1.25, 1.15, 1.05] + 10, 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=95)
        return root

    return make
