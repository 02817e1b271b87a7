"""3-D LUTs against numbers made by the official code (csjliang/PPR10K) on a CPU in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cvpr21lib.ppr10k import lut

torch.set_num_threads(1)

FIXTURES = Path(__file__).parent / "ppr10k"
CASES = pytest.mark.parametrize("case", range(4), ids=["D=2", "D=5", "D=9", "D=17"])


@pytest.fixture(autouse=True, params=["grid_sample", "compiled"])
def way(request, monkeypatch):
    if request.param == "compiled":
        pytest.importorskip("numba")
    monkeypatch.setattr(lut, "_is_large_on_cpu", lambda image: request.param == "compiled")


def fixture(name: str) -> dict[str, Tensor]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}


@CASES
def test_interpolation(case):
    given = fixture("trilinear")
    out = lut.apply(given[f"in/lut{case}"], given[f"in/img{case}"])
    torch.testing.assert_close(out, given[f"out/img{case}"], rtol=0, atol=2e-5)


@CASES
def test_gradient_of_the_lut(case):
    given = fixture("trilinear")
    table = given[f"in/lut{case}"].requires_grad_()
    lut.apply(table, given[f"in/img{case}"]).backward(given[f"in/gout{case}"])
    expected = given[f"out/grad_lut{case}"]
    scale = expected.abs().max().item()
    torch.testing.assert_close(table.grad, expected, rtol=1e-4, atol=1e-6 * scale)


@CASES
def test_gradient_of_the_image_is_the_true_one(case):
    """Not the official one, which hands the upstream gradient through; the images hold exact 0 and 1."""
    given = fixture("trilinear")
    image = given[f"in/img{case}"].requires_grad_()
    lut.apply(given[f"in/lut{case}"], image).backward(given[f"in/gout{case}"])
    expected = given[f"out/grad_img_true{case}"]
    scale = expected.abs().max().item()
    torch.testing.assert_close(image.grad, expected, rtol=1e-4, atol=1e-5 * scale)


def test_no_seam_where_the_official_code_jumps_a_cell():
    given = fixture("trilinear_seams")
    values = given["in/value"]
    out = lut.apply(lut.identity(33), values.expand(1, 3, 1, -1))
    expected = given["out/expected_continuous"]
    torch.testing.assert_close(out, expected.expand(1, 3, 1, -1), rtol=0, atol=1e-6)
    assert (given["out/official_identity33"] - expected).abs().min() > 0.01


def test_fused_luts_equal_the_official_mixture():
    given = fixture("fusion")
    fused = lut.fuse(given["in/luts"], given["in/weights"])
    torch.testing.assert_close(fused, given["out/fused_lut"], rtol=0, atol=2e-5)
    torch.testing.assert_close(lut.apply(fused, given["in/img"]), given["out/img"], rtol=0, atol=2e-5)
