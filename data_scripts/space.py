"""Asking the disk before filling it."""

from __future__ import annotations

import shutil
from pathlib import Path

from cvpr21lib.errors import InputError


def require(folder: Path, wanted: int, what: str) -> None:
    """Raise `InputError` unless `wanted` bytes are free on the disk that holds the existing `folder`."""
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise InputError(
            f"{what} needs {readable(wanted)} in {folder}, but only {readable(free)} are free; "
            "make room or choose another --root."
        )


def readable(size: int) -> str:
    """A number of bytes as people write it: 12 B, 3.4 MB, 47.0 GB (powers of 1000)."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
