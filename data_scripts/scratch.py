"""Keeping half-done work out of sight."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvpr21lib.errors import InputError


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside `target`, on the same disk; it is gone afterwards, come what may.

    What is finished in it is renamed out of it to `target` by the caller: one step, so `target` is whole or
    absent. Leftovers of a killed run are removed first. `target` must not exist yet.
    """
    if target.exists():
        raise InputError(
            f"{target} exists already; check it with --verify-only, or remove it to make it again."
        )
    folder = target.parent / f".{target.name}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
