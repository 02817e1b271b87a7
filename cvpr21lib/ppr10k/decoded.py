"""Pixels of the photographs as stored, from their files or from a cache of decoded values on the disk.

The cache has one file for each photograph: all its versions, targets and its mask, bare, one after another.
The file's name carries a fingerprint of the index's entry, so a cache made from other files is never read; it
is written in one step, so half of it is never read either. What is read is the same with and without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cvpr21lib import atomic, images
from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k.index import Entry, File, Index

Pixels = np.ndarray[Any, Any]


class Picture(NamedTuple):
    """What one file of an entry holds, once decoded."""

    file: File
    bits: int
    shape: tuple[int, ...]  # (H, W, 3), the mask's (H, W)

    @property
    def size(self) -> int:
        """Bytes when decoded."""
        return int(np.prod(self.shape)) * self.bits // 8


def pictures(entry: Entry) -> Iterator[Picture]:
    """All files of a photograph, in the order of the cache."""
    shape = entry.height, entry.width
    yield from (Picture(file, 16, (*shape, 3)) for file in entry.sources)
    yield from (Picture(file, 8, (*shape, 3)) for _, file in sorted(entry.targets.items()))
    yield Picture(entry.mask, 8, shape)


def read(index: Index, picture: Picture) -> Pixels:
    """One file of an entry: uint16 or uint8, RGB (H, W, 3) or a mask (H, W), in the values that are stored.

    Raises `InputError`, with the file's name, where it is missing or damaged, or has another depth or size.
    """
    path = index.path(picture.file.path)
    values = decode(path, picture.bits)
    if values.shape[:2] != picture.shape[:2]:
        (height, width), (expected_height, expected_width) = values.shape[:2], picture.shape[:2]
        raise InputError(
            f"{path} has {width} x {height} pixels instead of {expected_width} x {expected_height}: it has "
            "changed since it was prepared. Fetch the published file again."
        )
    return values if len(picture.shape) == 3 else values.max(2)


def decode(path: Path, bits: int) -> Pixels:
    """An image file of 8 or 16 `bits` a channel: RGB (H, W, 3), uint8 or uint16, in the values stored.

    Any other depth is an `InputError`: it is what tells a published source from somebody's 8-bit copy, which
    would train to other numbers without a word.
    """
    photo = images.read(path)
    if photo.bits != bits:
        raise InputError(
            f"{path} has {photo.bits} bits a channel instead of {bits} (PPR10K's sources have 16, its "
            "targets and masks 8); fetch the published file."
        )
    # Exact: `images.read` has divided by the same number.
    return np.rint(photo.pixels * np.float32(2**bits - 1)).astype(_dtype(bits))


def _dtype(bits: int) -> np.dtype[Any]:
    """Unsigned, and little-endian wherever the cache is made."""
    return np.dtype(f"<u{bits // 8}")


class Cache:
    """The decoded photographs beside an index."""

    def __init__(self, index: Index) -> None:
        self.index, self.folder = index, index.folder / "cache"
        self._paths: dict[str, Path] = {}

    def path(self, entry: Entry) -> Path:
        """Where the decoded photograph is, or would be."""
        if entry.name not in self._paths:
            made_from = repr((FORMAT, [(picture.file.sha256, picture.shape) for picture in pictures(entry)]))
            fingerprint = hashlib.sha256(made_from.encode()).hexdigest()[:16]
            self._paths[entry.name] = self.folder / f"{entry.name}-{fingerprint}.raw"
        return self._paths[entry.name]

    def holds(self, entry: Entry) -> bool:
        """Whether the whole photograph is there."""
        path = self.path(entry)
        return path.is_file() and path.stat().st_size == sum(picture.size for picture in pictures(entry))

    def read(self, entry: Entry, file: File) -> Pixels:
        """What `read` gives for one of the photograph's files."""
        path, offset = self.path(entry), 0
        for picture in pictures(entry):
            if picture.file == file:
                values = np.fromfile(path, _dtype(picture.bits), int(np.prod(picture.shape)), offset=offset)
                return values.reshape(picture.shape)
            offset += picture.size
        raise KeyError(file.path)

    def write(self, entry: Entry) -> None:
        """Decode all files of a photograph and keep them; errors as those of `read`."""
        with atomic.write(self.path(entry)) as temporary, temporary.open("wb") as kept:
            for picture in pictures(entry):
                kept.write(read(self.index, picture).tobytes())

    def differs(self, entry: Entry) -> bool:
        """Whether what is kept is not what the files hold."""
        return any(
            (self.read(entry, picture.file) != read(self.index, picture)).any() for picture in pictures(entry)
        )


FORMAT = 1
"""Part of the cache's fingerprints: raised when the order or the kind of what is kept changes."""
