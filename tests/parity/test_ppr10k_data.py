"""How training photographs are resized, against the official code (fixture `train_resize`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cvpr21lib.ppr10k import views
from cvpr21lib.ppr10k.views import Window

FIXTURE = Path(__file__).parent / "ppr10k" / "train_resize.npz"


@pytest.fixture(scope="module")
def official() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize(
    ("given", "expected", "role"),
    [
        ("in/src_uint16", "out/src_uint16", 0),
        ("in/target_uint8", "out/target_uint8", 1),
        ("in/mask_uint8", "out/mask_uint8", 1),
    ],
)
def test_the_official_resize_is_the_official_codes(official, given, expected, role):
    meta = json.loads(str(official["meta"]))
    window = Window(*meta["crop_top_left_h_w"])
    resized = views.RESIZE["official"][role](views.cut(official[given], window), meta["size_hw"][0])
    assert resized.dtype == official[expected].dtype
    difference = np.abs(resized.astype(int) - official[expected])
    assert difference.max() <= 1


def test_sixteen_bits_become_the_official_floats(official):
    ours = views.tensor(official["out/src_uint16"]).numpy()
    np.testing.assert_allclose(ours, official["out/src_float"], rtol=0, atol=6e-8)


def test_the_quirk_matters(official):
    """Bicubic and bilinear sources differ by far more than the tolerance: mixing them up would show."""
    meta = json.loads(str(official["meta"]))
    cut = views.cut(official["in/src_uint16"], Window(*meta["crop_top_left_h_w"]))
    difference = np.abs(views.bilinear(cut, 56).astype(int) - official["out/src_uint16"])
    assert difference.max() > 100
