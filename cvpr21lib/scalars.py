"""The curves of a run: a plain CSV always, TensorBoard's files where tensorboard is installed."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cvpr21lib import atomic
from cvpr21lib.errors import InputError


class Scalars:
    """Writes `scalars.csv` (step, name, value) below a run's folder; lines are flushed as they come.

    Lines of steps after `first_step` are dropped when it opens: an interrupted run writes them again.
    """

    FILE_NAME = "scalars.csv"

    def __init__(self, folder: str | Path, *, first_step: int = 0, active: bool = True) -> None:
        self.active = active
        if not active:
            return
        self._path = path = Path(folder) / self.FILE_NAME
        kept = [row for row in _rows(path) if int(row[0]) <= first_step]
        with self._writing():
            with atomic.write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("step", "name", "value"), *kept])
            self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._board = _tensorboard(Path(folder) / "tensorboard", first_step)

    def __enter__(self) -> Scalars:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.active:
            self._file.close()
            if self._board is not None:
                self._board.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line a value."""
        if not self.active:
            return
        with self._writing():
            for name, value in values.items():
                self._writer.writerow((step, name, repr(float(value))))
                if self._board is not None:
                    self._board.add_scalar(name, value, step)
            self._file.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write {self._path}: {error.strerror}. Make room or permission; the same call then "
                "resumes from the last checkpoint"
            ) from error


def read(folder: str | Path, name: str) -> tuple[list[int], list[float]]:
    """The curve called `name` of the run in `folder`: its steps and values."""
    rows = [row for row in _rows(Path(folder) / Scalars.FILE_NAME) if row[1] == name]
    return [int(row[0]) for row in rows], [float(row[2]) for row in rows]


def curves(folder: str | Path, most: int = 50) -> dict[str, list[list[float]]]:
    """All curves of a run by name, [steps, values], thinned to at most `most` points and five digits."""
    found: dict[str, list[list[float]]] = {}
    for step, name, value in _rows(Path(folder) / Scalars.FILE_NAME):
        steps, values = found.setdefault(name, [[], []])
        steps.append(int(step))
        values.append(float(f"{float(value):.5g}"))
    for curve in found.values():
        stride = -(-len(curve[0]) // most)
        last = len(curve[0]) - 1
        curve[:] = [points[last % stride :: stride] for points in curve]
    return found


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if len(row) == 3 and row[0] != "step"]


def _tensorboard(folder: Path, first_step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first_step + 1)
