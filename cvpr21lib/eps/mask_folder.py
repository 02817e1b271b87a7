"""A folder with one file for each image: made with a progress bar, resumable, never stale.

Every file carries the fingerprint of what made it. A file with another one is removed before anything is
made, so whatever lies in the folder is current, whenever the work was stopped. Files that carry none were not
made here, and are never touched.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm.auto import tqdm

from cvpr21lib import atomic, record
from cvpr21lib.eps.data import OnDamage
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import stored
from cvpr21lib.segmentation.masks import PALETTE
from cvpr21lib.segmentation.stored import DamagedFile

Fingerprint = str | Callable[[str], str]
"""Of everything that determines a file: the same for all images, or by the image's name."""


class Kind(NamedTuple):
    """What the files of a folder are."""

    suffix: str
    write: Callable[[Path, Any, str], None]
    """Writes what an image became, and the fingerprint, to a path: whole, or not at all."""
    fingerprint: Callable[[Path], str | None]
    """The fingerprint of a file, None if it has none; a `DamagedFile` error if it cannot be read."""


class Filled(NamedTuple):
    """What became of a folder."""

    made: int
    kept: int
    damaged: dict[str, str]  # by the image's name, what is wrong


def fill(
    folder: Path,
    names: Sequence[str],
    make: Callable[[str], Any],
    fingerprint: Fingerprint,
    *,
    kind: Kind | None = None,
    workers: int = 1,
    on_damage: OnDamage = "stop",
    progress: bool = True,
) -> Filled:
    """See that `folder` has the file of each image in `names`, as `make(name)` makes it today.

    Args:
        kind: of the files; `MASKS` unless said otherwise.
        workers: threads that make files at the same time; with 1, `make` is called in this thread.
        on_damage: what a `DamagedFile` error of `make` or `fingerprint` does: "stop" ends the work with it,
            "skip" warns of it and leaves this image without a file.

    Raises:
        InputError: a file of the folder was not made by this function.
        DamagedFile: see `on_damage`.
    """
    if on_damage not in get_args(OnDamage):
        raise InputError(f"on_damage is {on_damage!r}; it can be {', '.join(get_args(OnDamage))}")
    kind = kind or MASKS
    folder.mkdir(parents=True, exist_ok=True)
    damaged: dict[str, str] = {}
    wanted: dict[str, str] = {}
    kept = 0
    for name in tqdm(names, f"Checking {folder.name}", delay=2, leave=False, disable=not progress):
        now = ""
        with _damage(name, damaged, on_damage):
            now = fingerprint if isinstance(fingerprint, str) else fingerprint(name)
        if _drop_unless(now, folder / f"{name}{kind.suffix}", kind):
            kept += 1
        elif name not in damaged:
            wanted[name] = now

    def work(name: str) -> None:
        with _damage(name, damaged, on_damage):
            kind.write(folder / f"{name}{kind.suffix}", make(name), wanted[name])

    before = len(damaged)
    for _ in tqdm(_each(work, wanted, workers), folder.name, len(wanted), unit="image", disable=not progress):
        pass
    return Filled(len(wanted) - len(damaged) + before, kept, damaged)


def digest(*parts: Any) -> str:
    """A fingerprint: sixteen hex digits of settings, strings and numbers (dataclasses too), in this order."""
    return hashlib.sha256(json.dumps(record.plain(parts)).encode()).hexdigest()[:16]


def _drop_unless(now: str, path: Path, kind: Kind) -> bool:
    """Whether the file is there and current; one that is not current is removed."""
    if not path.exists():
        return False
    try:
        made_by = kind.fingerprint(path)
    except DamagedFile:
        made_by = "cut short"
    if made_by is None:
        raise InputError(
            f"{path} was not made here, as it carries no fingerprint; it is left alone: choose another folder"
        )
    if made_by != now:
        path.unlink()
    return made_by == now


def _each(work: Callable[[str], None], names: Iterable[str], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(work, names)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(work, names)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _damage(name: str, damaged: dict[str, str], on_damage: OnDamage) -> Iterator[None]:
    try:
        yield
    except DamagedFile as error:
        if on_damage == "stop":
            raise
        damaged[name] = str(error)
        warnings.warn(f"skipped: {error}", stacklevel=3)


def _write_mask(path: Path, mask: np.ndarray, fingerprint: str) -> None:
    image, text = Image.fromarray(mask), PngInfo()
    image.putpalette(PALETTE.tobytes())
    text.add_text(KEY, fingerprint)
    with atomic.write(path) as temporary:
        image.save(temporary, "PNG", pnginfo=text)


def read_fingerprint(path: Path) -> str | None:
    """The fingerprint of a mask, None if it carries none; `DamagedFile` if it is not whole."""
    with stored.header(path) as image:
        found = image.info.get(KEY)
    if found is not None:
        stored.decode(path)
    return found


KEY = "Fingerprint"
"""The PNG text chunk that holds it."""
MASKS = Kind(".png", _write_mask, read_fingerprint)
"""Label masks, uint8 (H, W), as palette PNGs (`cvpr21lib.segmentation.masks`)."""
