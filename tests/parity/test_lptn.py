"""LPTN against numbers made by the official code (csjliang/LPTN) on a CPU in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cvpr21lib.lptn import pyramid

FIXTURES = Path(__file__).parent / "lptn"
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


class Fixture:
    """One file: arrays by their key, in the wanted precision, and the notes under `meta`."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        with np.load(FIXTURES / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta = json.loads(str(self.arrays.pop("meta")))
        self.dtype = dtype

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key].astype(np.float64)).to(self.dtype)

    def group(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): self[key] for key in self.arrays if key.startswith(prefix)}

    def expect(self, key: str, actual: Tensor, f64: float, f32: float, relative: bool = False) -> None:
        tolerance = f64 if self.dtype == torch.float64 else f32
        expected = torch.from_numpy(self.arrays[key].astype(np.float64))
        torch.testing.assert_close(
            actual.detach().double(),
            expected,
            rtol=tolerance if relative else 0,
            atol=1e-12 if relative else tolerance,
            msg=lambda text: f"{key}: {text}",
        )


@PRECISIONS
@pytest.mark.parametrize("case", [0, 1])
def test_down_and_up(dtype, case):
    fixture = Fixture("updown", dtype)
    x = fixture[f"case{case}/in/x"]
    small = pyramid.down(x)
    fixture.expect(f"case{case}/out/down", small, 1e-12, 1e-6)
    fixture.expect(f"case{case}/out/up", pyramid.up(x, [2 * s for s in x.shape[-2:]]), 1e-12, 1e-6)


@PRECISIONS
@pytest.mark.parametrize("case", [0, 1])
def test_pyramid(dtype, case):
    fixture = Fixture("pyramid", dtype)
    x = fixture[f"case{case}/in/x"]
    num_high = fixture.meta["cases"][case]["num_high"]
    parts = pyramid.decompose(x, num_high)
    for level, part in enumerate(parts):
        fixture.expect(f"case{case}/out/pyr{level}", part, 1e-12, 1e-6)
    fixture.expect(f"case{case}/out/recons", pyramid.reconstruct(parts), 1e-12, 1e-6)
    changed = [fixture[f"case{case}/in/mod_pyr{level}"] for level in range(num_high + 1)]
    fixture.expect(f"case{case}/out/recons_mod", pyramid.reconstruct(changed), 1e-12, 1e-6)
