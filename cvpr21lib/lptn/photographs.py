"""Photographs by position, from a folder or from memory, behind one face.

Both kinds know the sizes of all their images before the first pixel is decoded, so a data set can name
what does not fit at the start of a run, not in the middle of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from cvpr21lib import images
from cvpr21lib.errors import InputError

Pixels = np.ndarray[Any, Any]
Source = str | Path | Sequence[Pixels] | Mapping[str, Pixels]
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


class Photographs(Protocol):
    """`photographs[i]` is (H, W, 3), RGB: float32 in [0, 1], or uint8 if kept so; `sizes[i]` is (H, W)."""

    names: list[str]
    sizes: list[tuple[int, int]]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Pixels: ...
    def describe(self, index: int) -> str: ...
    def fingerprint(self) -> str: ...


def open(source: Source, cache: bool = False) -> Photographs:
    """The photographs of a folder (`cache`: decoded now and kept in memory), or arrays that are there."""
    return Folder(Path(source), cache) if isinstance(source, str | Path) else Arrays(source)


class Folder:
    """The images of one folder, sorted by name (without suffix). Sizes are read at once from the headers."""

    def __init__(self, folder: Path, cache: bool = False) -> None:
        if not folder.is_dir():
            raise InputError(f"The folder of photographs {folder} does not exist. {_REMEDY}")
        found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        # macOS archives bring a hidden "._name.jpg" beside each photograph.
        visible = (path for path in found if not path.name.startswith("."))
        self.paths = sorted(visible, key=lambda path: (path.stem, path.suffix))
        if not self.paths:
            raise InputError(f"The folder {folder} holds no photographs ({', '.join(SUFFIXES)}). {_REMEDY}")
        self.names = [path.stem for path in self.paths]
        self.sizes = [_size(path) for path in self.paths]
        progress = tqdm(self.paths, f"Decoding {folder}", disable=not cache)
        self._decoded = [_eight_bits(path) for path in progress] if cache else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:
        return images.read(self.paths[index]).pixels if self._decoded is None else self._decoded[index]

    def describe(self, index: int) -> str:
        height, width = self.sizes[index]
        return f"{self.paths[index]} ({width} x {height})"

    def fingerprint(self) -> str:
        """SHA-256 over file names and sizes in bytes: cheap, and the same wherever the folder lies."""
        listing = "\n".join(f"{path.name} {path.stat().st_size}" for path in self.paths)
        return hashlib.sha256(listing.encode()).hexdigest()


class Arrays:
    """Images in memory; a mapping is sorted by name, the images of a sequence are named by position."""

    def __init__(self, arrays: Sequence[Pixels] | Mapping[str, Pixels]) -> None:
        if isinstance(arrays, Mapping):
            named = dict(sorted(arrays.items()))
        else:
            named = {str(position): array for position, array in enumerate(arrays)}
        if not named:
            raise InputError("An empty collection was given where photographs are needed.")
        for name, array in named.items():
            if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.float32:
                raise InputError(
                    f"Image {name} is {array.dtype} of shape {array.shape}; "
                    "expected float32 of shape (H, W, 3), RGB in [0, 1]."
                )
        self.names, self._arrays = list(named), list(named.values())
        self.sizes = [(array.shape[0], array.shape[1]) for array in self._arrays]

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: int) -> Pixels:
        return self._arrays[index]

    def describe(self, index: int) -> str:
        height, width = self.sizes[index]
        return f"image {self.names[index]} ({width} x {height})"

    def fingerprint(self) -> str:
        """SHA-256 over names, shapes, and each channel's mean and spread to a thousandth.

        Not over the values: computed ones differ in their last bits from processor to processor.
        """
        digest = hashlib.sha256()
        for name, array in zip(self.names, self._arrays, strict=True):
            values = np.concatenate(
                [measure(array, (0, 1), dtype=np.float64) for measure in (np.mean, np.std)]
            )
            listed = " ".join(f"{value:.3f}" for value in values)
            digest.update(f"{name} {array.shape} {listed}\n".encode())
        return digest.hexdigest()


_REMEDY = (
    "FiveK is brought by `python -m data_scripts.fivek --root DIR --archive FiveK.zip`, any two folders of "
    "your own are laid out by `python -m data_scripts.folders --root DIR --a DIR --b DIR`."
)


def _size(path: Path) -> tuple[int, int]:
    """Height and width, from the header alone, of the image as its EXIF orientation turns it."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a readable image ({error}); fetch it again or remove it.") from error


def _eight_bits(path: Path) -> Pixels:
    photo = images.read(path)
    if photo.bits != 8:
        raise InputError(f"cache=True keeps 8 bits a channel, but {path} has {photo.bits}; set cache=False.")
    return np.rint(photo.pixels * 255).astype(np.uint8)
