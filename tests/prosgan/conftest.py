"""The small benchmark, for every test of its room."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.prosgan import miniature


@pytest.fixture
def miniature_hashing(tmp_path: Path) -> Callable[..., Path]:
    """Makes a small prepared benchmark; returns the `data_root`. Options: those of `miniature.prepared`."""
    return partial(miniature.prepared, tmp_path / "data")
