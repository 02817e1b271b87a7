"""The small PPR10K, for every test of its room."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.ppr10k import miniature


@pytest.fixture
def miniature_ppr10k(tmp_path: Path) -> Callable[..., Path]:
    """Makes a small PPR10K in the official layout and indexes it; returns the `data_root`.

    Options: `groups` (photographs by group id; below 1356 they are for training), `size` (height, width),
    `split` (the layout of the official code instead of the published one).
    """
    return partial(miniature.prepared, tmp_path / "data")
