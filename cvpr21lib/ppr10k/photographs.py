"""Photographs with their source versions, one expert's target and a human mask, from files or from memory.

Both kinds show the same face, so what trains on them does not know where they are from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import decoded
from cvpr21lib.ppr10k.decoded import Cache, Pixels
from cvpr21lib.ppr10k.index import EXPERTS, NAME, Entry, Expert, File, Index, Part, command


class Photographs(Protocol):
    """Photographs by position, in the order of their names.

    Pictures are (H, W, 3), RGB, masks (H, W), both uint8, uint16 or float32 in [0, 1]; all of one photograph
    have the same height and width.
    """

    names: list[str]
    versions: list[int]
    """How many source versions each photograph has; number 0 is the original."""

    def source(self, photo: int, version: int = 0) -> Pixels: ...
    def target(self, photo: int) -> Pixels: ...
    def mask(self, photo: int) -> Pixels: ...
    def fingerprint(self, versions: int | None = None) -> str: ...


class Shot(NamedTuple):
    """One photograph in memory."""

    sources: Sequence[Pixels]
    """The original first; each uint8, uint16 or float32 in [0, 1], (H, W, 3)."""
    target: Pixels
    mask: Pixels
    """(H, W): bool, uint8, uint16 or float32 in [0, 1]."""


Source = Index | Mapping[str, Shot] | Photographs


def open(source: Source, part: Part, expert: Expert = "a", cache: bool = True) -> Photographs:
    """The photographs of one part of an index with one expert's targets, or those that are in memory."""
    if isinstance(source, Index):
        return Indexed(source, part, expert, cache)
    return Arrays(source) if isinstance(source, Mapping) else source


class Indexed:
    """Photographs that `data_scripts.ppr10k` has prepared.

    `cache`: read decoded photographs where they were kept (`--cache`), which is faster and changes no number.
    An index made with `--partial` may lack some targets: those photographs are left out.

    Raises `InputError` for an unknown expert, one without targets, and folders that are not there any more.
    """

    def __init__(self, index: Index, part: Part, expert: Expert = "a", cache: bool = True) -> None:
        if expert not in EXPERTS:
            raise InputError(f"expert is {expert!r}; it can be {', '.join(EXPERTS)}")
        self.index, self.expert, self.cache = index, expert, Cache(index) if cache else None
        entries: tuple[Entry, ...] = getattr(index, part)
        self.entries = [entry for entry in entries if expert in entry.targets]
        if not entries:
            raise InputError(f"{index.folder / NAME} has no photographs for {part}. {self._remedy()}")
        if not self.entries:
            raise InputError(
                f"Expert {expert} is asked for, but target_{expert} was not there when {index.folder / NAME} "
                f"was made. {self._remedy()}"
            )
        self._require_folders()
        self.names = [entry.name for entry in self.entries]
        self.versions = [len(entry.sources) for entry in self.entries]

    def source(self, photo: int, version: int = 0) -> Pixels:
        """uint16 (H, W, 3)."""
        return self._read(photo, self.entries[photo].sources[version])

    def target(self, photo: int) -> Pixels:
        """uint8 (H, W, 3)."""
        return self._read(photo, self.entries[photo].targets[self.expert])

    def mask(self, photo: int) -> Pixels:
        """uint8 (H, W)."""
        return self._read(photo, self.entries[photo].mask)

    def fingerprint(self, versions: int | None = None) -> str:
        """SHA-256 over the names and contents of the files (of the first source `versions`, if given)."""
        listed = (
            f"{entry.name} {' '.join(file.sha256 for file in self._files(entry, versions))}"
            for entry in self.entries
        )
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()

    def _files(self, entry: Entry, versions: int | None = None) -> list[File]:
        return [*entry.sources[:versions], entry.targets[self.expert], entry.mask]

    def _read(self, photo: int, file: File) -> Pixels:
        entry = self.entries[photo]
        if self.cache is not None and self.cache.holds(entry):
            return self.cache.read(entry, file)
        picture = next(picture for picture in decoded.pictures(entry) if picture.file == file)
        return decoded.read(self.index, picture)

    def _require_folders(self) -> None:
        """Files that the cache does not replace must be where they were."""
        read = (entry for entry in self.entries if self.cache is None or not self.cache.holds(entry))
        folders = {file.path.rpartition("/")[0] for entry in read for file in self._files(entry)}
        gone = sorted(folder for folder in folders if not self.index.path(folder).is_dir())
        if gone:
            named = ", ".join(str(self.index.path(folder)) for folder in gone)
            raise InputError(
                f"{self.index.folder / NAME} names files in {named}, which is not there (any more). "
                f"{self._remedy()}"
            )

    def _remedy(self) -> str:
        return f"Put the photographs in their place, then run `{command(self.index.folder.parent)}` again."


class Arrays:
    """Photographs in memory, sorted by name; each has one target only, so there is no expert to choose."""

    def __init__(self, shots: Mapping[str, Shot]) -> None:
        if not shots:
            raise InputError("An empty collection was given where photographs are needed.")
        self.names = sorted(shots)
        self.shots = [Shot(*shots[name]) for name in self.names]
        self.versions = [len(shot.sources) for shot in self.shots]
        for name, shot in zip(self.names, self.shots, strict=True):
            _check(name, shot)

    def source(self, photo: int, version: int = 0) -> Pixels:
        """As given."""
        return self.shots[photo].sources[version]

    def target(self, photo: int) -> Pixels:
        """As given."""
        return self.shots[photo].target

    def mask(self, photo: int) -> Pixels:
        """As given, but bool as float32."""
        mask = self.shots[photo].mask
        return mask.astype(np.float32) if mask.dtype == bool else mask

    def fingerprint(self, versions: int | None = None) -> str:
        """SHA-256 over names, shapes, and each channel's mean and spread to a thousandth.

        Not over the values: computed ones differ in their last bits from processor to processor.
        """
        digest = hashlib.sha256()
        for name, shot in zip(self.names, self.shots, strict=True):
            for picture in (*shot.sources[:versions], shot.target, shot.mask):
                digest.update(f"{name} {picture.shape} {_colours(picture)}\n".encode())
        return digest.hexdigest()


def _colours(picture: Pixels) -> str:
    top = np.iinfo(picture.dtype).max if picture.dtype.kind == "u" else 1
    statistics = [measure(picture, (0, 1), dtype=np.float64) / top for measure in (np.mean, np.std)]
    return " ".join(f"{value:.3f}" for value in np.hstack(statistics))


def _check(name: str, shot: Shot) -> None:
    if not shot.sources:
        raise InputError(f"Photograph {name} has no source; give at least the original.")
    height, width = shot.target.shape[:2]
    for what, picture in _named(shot):
        shape = (height, width) if what == "mask" else (height, width, 3)
        if picture.shape != shape:
            raise InputError(
                f"The {what} of photograph {name} has the shape {picture.shape} instead of {shape}; all "
                "pictures of a photograph must have its size."
            )
        if picture.dtype.name not in {"uint8", "uint16", "float32"} | ({"bool"} if what == "mask" else set()):
            raise InputError(
                f"The {what} of photograph {name} is {picture.dtype}; expected uint8, uint16, or float32 in "
                "[0, 1]."
            )
        if picture.dtype == np.float32 and not (picture.min() >= 0 and picture.max() <= 1):
            raise InputError(
                f"The {what} of photograph {name} has values from {picture.min():g} to {picture.max():g}; "
                "expected [0, 1]."
            )


def _named(shot: Shot) -> Iterable[tuple[str, Pixels]]:
    yield "target", shot.target
    yield from ((f"source {version}", source) for version, source in enumerate(shot.sources))
    yield "mask", shot.mask
