"""What the official code computed: one .npz file a test, with tensors by their key and notes under `meta`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor


class Official:
    """One file of a paper; a subclass names the paper."""

    paper: ClassVar[str]

    def __init__(self, name: str) -> None:
        with np.load(Path(__file__).parent / self.paper / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta = json.loads(str(self.arrays.pop("meta"))) if "meta" in self.arrays else {}

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[key]))

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose keys begin like this, by the rest of their keys."""
        return {key.removeprefix(prefix): self[key] for key in self.arrays if key.startswith(prefix)}

    def expect(self, key: str, actual: Tensor, rtol: float = 0.0, atol: float = 0.0) -> None:
        expected = self[key]
        torch.testing.assert_close(
            actual.detach().to(expected.dtype),
            expected,
            rtol=rtol,
            atol=atol,
            msg=lambda text: f"{key}: {text}",
        )

    def expect_within(self, key: str, actual: Tensor, share: float) -> None:
        """Within this share of the largest value."""
        self.expect(key, actual, atol=share * self[key].abs().max().item())
