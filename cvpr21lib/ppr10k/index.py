"""The prepared index: which files belong together, to which part of the split, and what was in them.

`python -m data_scripts.ppr10k` writes it as `PPR10K_360p/index.json`. The photographs stay where they were
downloaded to; the index names them relative to its own folder, so both can be moved together.

Groups 0 to 1355 are for training (8,875 photographs), 1356 to 1680 for validation (2,286).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from cvpr21lib import atomic
from cvpr21lib.errors import InputError

Expert = Literal["a", "b", "c"]
Part = Literal["train", "val"]
EXPERTS: tuple[Expert, ...] = get_args(Expert)
VERSIONS = 6
"""Source versions of a training photograph: as it is, and five with other light and colours."""
GROUPS = range(1681)
FIRST_VALIDATION_GROUP = 1356

FOLDER, NAME = "PPR10K_360p", "index.json"
FORMAT = 1
"""Raised when older indexes can no longer be read."""


class File(NamedTuple):
    """One file, as it was when the index was made."""

    path: str  # from the folder of the index, with forward slashes
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One photograph: its files, and the size in pixels that all of them have."""

    name: str  # "<group>_<number>"
    height: int
    width: int
    sources: tuple[File, ...]  # 16 bits a channel; the original first
    targets: Mapping[str, File]  # 8 bits a channel, by expert
    mask: File


@dataclass(frozen=True)
class Index:
    """All photographs of both parts, in the order of their names."""

    folder: Path
    train: tuple[Entry, ...]
    val: tuple[Entry, ...]
    partial: bool = False  # made with --partial: fewer photographs than the paper's

    def path(self, path: str) -> Path:
        """Where a file or folder lies whose path is given from the index's folder, as in `File.path`."""
        return Path(os.path.normpath(self.folder / path))


def part_of(group: int) -> Part:
    """The part of the split that a group belongs to."""
    return "train" if group < FIRST_VALIDATION_GROUP else "val"


def write(index: Index) -> None:
    """Write `index.json` into the index's folder, whole or not at all."""
    contents = {
        "format": FORMAT,
        "partial": index.partial,
        "train": [asdict(entry) for entry in index.train],
        "val": [asdict(entry) for entry in index.val],
    }
    with atomic.write(index.folder / NAME) as temporary:
        temporary.write_text(json.dumps(contents) + "\n", encoding="utf-8")


def read(folder: str | Path) -> Index:
    """The index in `folder`; `InputError` where there is none, or it is damaged or of another format."""
    folder = Path(folder).resolve()
    path = folder / NAME
    again = f"Make it with `{command(folder.parent)}`."
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        if contents["format"] != FORMAT:
            raise InputError(f"{path} has format {contents['format']} instead of {FORMAT}. {again}")
        parts = [tuple(map(_entry, contents[part])) for part in get_args(Part)]
        return Index(folder, parts[0], parts[1], contents["partial"])
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no {NAME}. {again}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error!r}); remove it. {again}") from error


def command(root: str | Path) -> str:
    """What brings the data set, to be printed in errors."""
    return (
        f"python -m data_scripts.ppr10k --root {root} --images train_val_images_tif_360p --masks masks_360p"
    )


def _entry(read: dict[str, Any]) -> Entry:
    return Entry(
        read["name"],
        read["height"],
        read["width"],
        tuple(File(*file) for file in read["sources"]),
        {expert: File(*file) for expert, file in read["targets"].items()},
        File(*read["mask"]),
    )
