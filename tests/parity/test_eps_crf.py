"""The dense CRF against numbers of pydensecrf2 1.1, which the official code calls."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvpr21lib.segmentation import crf
from cvpr21lib.segmentation.crf import DEEPLAB, PSA

with np.load(Path(__file__).parent / "eps" / "crf.npz") as file:
    FIXTURE = {key: file[key] for key in file.files}
META = json.loads(str(FIXTURE["meta"]))


def test_unary_energies():
    np.testing.assert_array_equal(crf.unary(FIXTURE["in/prob"]), FIXTURE["out/unary"])


@pytest.mark.parametrize(("name", "setting"), [("psa", PSA), ("deeplab", DEEPLAB)])
def test_the_two_sets_of_parameters(name, setting):
    names = {
        "gauss_w": "near_weight",
        "gauss_sxy": "near_xy",
        "bil_w": "alike_weight",
        "bil_sxy": "alike_xy",
        "bil_srgb": "alike_rgb",
    }
    assert {key: getattr(setting, ours) for key, ours in names.items()} == META[name]
    assert setting.iterations == 10


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("gauss_only_t1", replace(PSA, iterations=1, alike_weight=0)),
        ("bilateral_only_t1", replace(PSA, iterations=1, near_weight=0)),
        ("psa_t1", replace(PSA, iterations=1)),
        ("psa_t10", PSA),
        ("deeplab_t10", DEEPLAB),
    ],
)
def test_beliefs_are_those_of_the_library_to_the_last_vertex(key, setting):
    """The sheet allows another lattice 0.002; the same one, with the same rounding, leaves 1e-5."""
    q, expected = setting(FIXTURE["in/img"], FIXTURE["in/prob"]), FIXTURE[f"out/{key}"]
    np.testing.assert_allclose(q, expected, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(q.argmax(0), expected.argmax(0))


@pytest.mark.parametrize("alpha", [4, 32])
def test_class_maps_with_a_background_made_by_alpha(alpha):
    scores = crf.class_scores(FIXTURE["in/cam"], alpha)
    q, expected = PSA(FIXTURE["in/img"], scores), FIXTURE[f"out/alpha{alpha}"]
    np.testing.assert_allclose(q, expected, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(q.argmax(0), expected.argmax(0))
