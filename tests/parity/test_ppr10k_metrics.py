"""PPR10K's measures against its MATLAB script, re-stated in NumPy; sidecars against the official script."""

import json
from pathlib import Path

import numpy as np
import pytest

from cvpr21lib.ppr10k import metrics, xmp

FIXTURES = Path(__file__).parent / "ppr10k"
METRICS = np.load(FIXTURES / "metrics.npz")
SIDECARS = np.load(FIXTURES / "xmp_rewrite.npz")
META = json.loads(str(METRICS["meta"]))
NAMES = [name.removesuffix(".png") for name in META["names"]]
OFFICIAL = {"psnr": "psnr", "delta_e": "eab", "psnr_hc": "psnr_hc", "delta_e_hc": "eab_hc", "mglc": "mglc"}
PHOTOGRAPHS = list(
    zip(METRICS["in/result_uint8"], METRICS["in/target_uint8"], METRICS["in/mask_uint8"], strict=True)
)


def measured(column: str) -> list[float]:
    masked = column.endswith("hc")
    measure = getattr(metrics, column)
    return [
        measure(pred, target, mask) if masked else measure(pred, target) for pred, target, mask in PHOTOGRAPHS
    ]


@pytest.mark.parametrize("column", ["psnr", "delta_e", "psnr_hc", "delta_e_hc"])
def test_every_photograph_scores_what_it_scores_officially(column):
    expected = METRICS[f"out/srgb_exact/{OFFICIAL[column]}"]
    np.testing.assert_allclose(measured(column), expected, rtol=0, atol=1e-9)


def test_mean_colours_and_the_variance_of_each_group():
    means = np.stack([metrics.mean_lab(pred) for pred, _, _ in PHOTOGRAPHS])
    np.testing.assert_allclose(means, METRICS["out/srgb_exact/mean_lab"], rtol=0, atol=1e-9)
    variances = metrics.group_variances(means[:, 1:], [metrics.group_id(name) for name in NAMES])
    assert list(variances) == ["1356", "1357", "1360"]
    np.testing.assert_allclose(
        list(variances.values()), METRICS["out/srgb_exact/group_var"], rtol=0, atol=1e-9
    )


def test_the_table_is_the_official_one():
    photographs = {
        name: metrics.measure(*photograph) for name, photograph in zip(NAMES, PHOTOGRAPHS, strict=True)
    }
    numbers = metrics.summary(photographs)
    for column, official in OFFICIAL.items():
        assert numbers[column] == pytest.approx(META["aggregate"]["srgb_exact"][official], abs=1e-9), column


@pytest.mark.parametrize("column", ["delta_e", "delta_e_hc"])
def test_scikit_image_s_rounded_matrix_changes_no_printed_digit_of_the_mean(column):
    difference = np.mean(measured(column)) - METRICS[f"out/skimage/{OFFICIAL[column]}"].mean()
    assert 1e-6 < abs(difference) < 1e-3


@pytest.mark.parametrize("index", [0, 1])
def test_a_sidecar_is_rewritten_as_the_official_script_does(index):
    attributes = json.loads(str(SIDECARS["meta"]))["attributes"]
    values = dict(zip(attributes, SIDECARS["in/values"][index].tolist(), strict=True))
    assert xmp.rewrite(str(SIDECARS["in/xmp"]), values) == str(SIDECARS["out/xmp"][index])
