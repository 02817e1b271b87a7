"""What the data sets of street scenes share: archives behind a registration, and a look at every frame."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm.auto import tqdm

from cvpr21lib.errors import InputError
from cvpr21lib.papers.entry import DataSet
from cvpr21lib.segmentation.layout import some
from cvpr21lib.segmentation.streets import Frame, Streets
from data_scripts import manifest, scratch
from data_scripts.unpack import unpack

Item = TypeVar("Item")
Result = TypeVar("Result")


class Walled(NamedTuple):
    """An archive that only a registered user can fetch."""

    names: tuple[str, ...]  # as its publisher calls it, the usual one first
    size: str  # in words
    md5: str | None = None

    def __str__(self) -> str:
        return f"{' or '.join(self.names)} ({self.size})"


def locate(wanted: Iterable[Walled], archives: Path, data: DataSet) -> list[Path]:
    """The files of the `wanted` archives in the folder `archives`, checked by MD5 where it is known.

    Raises:
        InputError: one for all that are missing, or the first that is damaged.
    """
    found = {archive: _there(archive, archives) for archive in wanted}
    missing = [str(archive) for archive, path in found.items() if path is None]
    if missing:
        raise InputError(
            f"{data.name} needs {', '.join(missing)}; not in {archives}. Register at {data.url}, download "
            "there, and name the folder with --archives."
        )
    paths = [path for path in found.values() if path is not None]
    for archive, path in zip(found, paths, strict=True):
        _require_md5(archive, path)
    return paths


def _there(archive: Walled, folder: Path) -> Path | None:
    return next((folder / name for name in archive.names if (folder / name).is_file()), None)


def _require_md5(archive: Walled, path: Path) -> None:
    if archive.md5 is None:
        return
    print(f"Checking {path.name}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != archive.md5:
        raise InputError(
            f"{path} has the MD5 {found} instead of {archive.md5}; it did not arrive whole, fetch it again."
        )


def place(archive: Path, marks: Sequence[str], take: str, folder: Path) -> None:
    """Unpack `archive`, and put what is `take` in it to `folder`, in one step.

    `take` is relative to the folder in the archive, at most two levels down, that has one of `marks` in it;
    "." takes that folder itself.
    """
    with scratch.beside(folder) as partial:
        inside = unpack(archive, partial / "content")
        candidates = [inside, *sorted(inside.glob("*/")), *sorted(inside.glob("*/*/"))]
        top = next((top for top in candidates for mark in marks if (top / mark).is_dir()), None)
        if top is None:
            raise InputError(f"{archive} holds no folder {' or '.join(marks)}; is it another archive?")
        (top / take).rename(folder)


class Problems:
    """What is wrong with a data set, collected so that the user hears of all of it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: list[str] = []

    def add(self, problem: str) -> None:
        self.found.append(problem)

    def require(self, what: str, number: int, wanted: int) -> None:
        """There must be `wanted` of them."""
        if number != wanted:
            self.add(f"{number} {what} instead of {wanted}")

    def partners(self, what: str, names: Sequence[str], path: Callable[[str], Path]) -> list[str]:
        """Those of `names` whose file is there; the others are missing."""
        missing = [name for name in names if not path(name).is_file()]
        if missing:
            self.add(f"{len(missing)} frames without {what} ({some(missing)})")
        return sorted(set(names) - set(missing))

    def inspect(
        self, names: Sequence[str], look: Callable[[str], tuple[int, int]], workers: int, label: str
    ) -> tuple[Frame, ...]:
        """The frames whose pictures `look` finds in order; it gives (height, width), or an `InputError`."""

        def frame(name: str) -> Frame | str:
            try:
                return Frame(name, *look(name))
            except InputError as error:
                return str(error).rstrip(".")

        results = each(frame, names, workers, label)
        wrong = [result for result in results if isinstance(result, str)]
        if wrong:
            more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            self.add(f"{len(wrong)} frames with unusable files ({'; '.join(wrong[:5])}{more})")
        return tuple(result for result in results if isinstance(result, Frame))

    def stop(self) -> None:
        """Raise one `InputError` for all of them, if there are any."""
        if self.found:
            raise InputError(f"{self.root} is not as it should be: {'; '.join(self.found)}.")


def finish(data: Streets, about: Mapping[str, object]) -> None:
    """Write the index and the manifest of a data set that was found in order.

    An earlier manifest goes first: where there is one, it is that of the index beside it.
    """
    (data.root / manifest.NAME).unlink(missing_ok=True)
    data.write_index()
    manifest.write(data.root, about)


def each(work: Callable[[Item], Result], items: Sequence[Item], workers: int, label: str) -> list[Result]:
    """`work` on every item, several at a time; the first error, or the user, stops it."""
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(work, item) for item in items]
        try:
            return [job.result() for job in tqdm(running, label)]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
