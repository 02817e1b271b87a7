"""Resizing and cutting against the official code of EPS (fixture `augment`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cvpr21lib.eps.resnet38 import normalise
from cvpr21lib.segmentation import crops

FIXTURE = Path(__file__).parent / "eps" / "augment.npz"


@pytest.fixture(scope="module")
def official() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as file:
        return {key: file[key] for key in file.files}


def window(case: dict[str, int], height: int, width: int) -> crops.Window:
    """The window that the official code drew."""

    def span(side: int, inside: int, outside: int) -> tuple[slice, slice]:
        length = min(side, case["crop"])
        return slice(inside, inside + length), slice(outside, outside + length)

    rows, top = span(height, case["img_top"], case["cont_top"])
    columns, left = span(width, case["img_left"], case["cont_left"])
    return crops.Window((rows, columns), (top, left), (case["crop"], case["crop"]))


@pytest.mark.parametrize("number", [0, 1])
def test_resized_images_and_saliency_are_the_official_ones(official, number):
    case = json.loads(str(official["meta"]))["cases"][number]
    for kind in ("img", "sal"):
        resized = crops.scale(Image.fromarray(official[f"in/{number}/{kind}"]), case["target_long"])
        np.testing.assert_array_equal(resized, official[f"out/{number}/{kind}_resized"])


@pytest.mark.parametrize("number", [0, 1])
def test_crops_of_images_and_saliency_are_the_official_ones(official, number):
    case = json.loads(str(official["meta"]))["cases"][number]
    image, saliency = (official[f"out/{number}/{kind}_resized"] for kind in ("img", "sal"))
    place = window(case, *saliency.shape)
    cut = crops.cut(normalise(image), place)
    np.testing.assert_allclose(cut, official[f"out/{number}/img_crop"], atol=1e-6)
    cut = crops.cut(torch.from_numpy(saliency)[None] / 255, place)
    np.testing.assert_allclose(cut, official[f"out/{number}/sal_crop"], atol=1e-6)
