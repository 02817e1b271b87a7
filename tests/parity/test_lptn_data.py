"""Crops and augmentation against the official code's (fixture `crop_augment`)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from cvpr21lib.lptn import data

FIXTURE = Path(__file__).parent / "lptn" / "crop_augment.npz"


@pytest.fixture(scope="module")
def official() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as file:
        return {key: file[key] for key in file.files}


class OfficialRandom(random.Random):
    """The official code draws places from `random`, the ratios of a free size from numpy, seeded alike."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.numpy = np.random.RandomState(seed)

    def uniform(self, a: float, b: float) -> float:
        return float(self.numpy.uniform(a, b))


@pytest.mark.parametrize(("patch", "name"), [(12, "crop"), (None, "free")])
def test_crops_are_the_official_ones(official, patch, name):
    rng = OfficialRandom(json.loads(str(official["meta"]))["seed"])
    source, target = official["in/A"], official["in/B"]
    size = data.crop_size(rng, source, target, patch)
    for image, key in ((source, "A"), (target, "B")):
        window = data.crop(image, *data.position(rng, image, *size), *size)
        np.testing.assert_array_equal(window, official[f"out/{name}_{key}"])


def test_augmentation_is_the_official_one_in_the_official_order_of_draws(official):
    meta = json.loads(str(official["meta"]))
    rng = random.Random(meta["seed"])
    for image in (official["in/A"], official["in/B"]):
        data.position(rng, image, meta["patch"], meta["patch"])
    for i in range(4):
        flags = data.flips(rng)
        assert flags == tuple(meta[f"aug{i}"].values())
        for key in "AB":
            np.testing.assert_array_equal(
                data.augment(official[f"out/crop_{key}"], *flags), official[f"out/aug{i}_{key}"]
            )
