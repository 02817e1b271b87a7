"""Files that are whole or absent: nothing half-written ever carries its final name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes that name, on any error it is removed.

    The bytes are flushed to the disk before the rename, so a crash leaves the old file or the new one.
    The folder must exist. Errors of the file system (disk full, read-only) pass through as `OSError`.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
