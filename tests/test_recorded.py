"""The records in the book, held against today's code, settings and data."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvpr21lib import demos

RECORDS = Path(__file__).parents[1] / "book" / "records"


@pytest.mark.parametrize(("slug", "part"), [("eopsn", "demo"), ("ctrl_uda", "demo"), ("ctrl_uda", "tuning")])
def test_what_is_recorded_is_what_is_done_today(slug, part):
    path = RECORDS / slug / ("" if part == "demo" else part) / demos.FILE_NAME
    recorded, module = demos.Experiment.read(path), demos.module(slug, part)
    assert recorded.stale(module) == [], f"run `cvpr21 records {slug} --part {part}`"
    assert recorded.seeds == list(getattr(module, "SEEDS", demos.SEEDS))
