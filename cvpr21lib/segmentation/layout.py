"""Where a prepared data set has its images, masks, lists and labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import image_labels
from cvpr21lib.segmentation.image_labels import Labels

LABELS = "image_labels.json"
"""Written last: where it is, the data set is complete."""


@dataclass(frozen=True)
class Layout(ABC):
    """A data set in the folder `root`; its images are known by `name`, which has no folder and no suffix."""

    root: Path

    folder: ClassVar[str]
    """Its folder below the data root."""
    elsewhere: ClassVar[tuple[str, ...]] = ()
    """Other folders in which it is looked for."""
    script: ClassVar[str]
    """Who brings it: `python -m data_scripts.<script>`."""
    classes: ClassVar[tuple[str, ...]]
    """C names, without the background."""

    @abstractmethod
    def image(self, name: str) -> Path: ...

    @abstractmethod
    def mask(self, name: str) -> Path:
        """Its ground truth (`cvpr21lib.segmentation.masks`)."""

    @abstractmethod
    def split_list(self, split: str) -> Path: ...

    def names(self, split: str) -> tuple[str, ...]:
        """The images of a split, in the order of its list."""
        return read_list(self.split_list(split))

    def labels(self) -> Labels:
        """The image-level labels of every image that has some."""
        return image_labels.read(self.root / LABELS, self.classes)

    @classmethod
    def find(cls, data_root: str | Path | None) -> Self:
        """The data set below, or at, `data_root`.

        Raises:
            InputError: it is not there, or its preparation is not finished.
        """
        remedy = f"Bring it with `python -m data_scripts.{cls.script} --root {data_root or 'data'}`."
        if data_root is None:
            raise InputError(f"data_root is not set: name the folder that holds {cls.folder}. {remedy}")
        root = Path(data_root)
        places = [root / cls.folder, *(root / place for place in cls.elsewhere), root]
        for place in places:
            if (place / LABELS).is_file():
                return cls(place)
        begun = [place for place in places[:-1] if place.is_dir()]
        if begun:
            raise InputError(f"{begun[0]} is there but not prepared: {LABELS} is missing. {remedy}")
        raise InputError(
            f"The data set {cls.folder} was not found; looked in {', '.join(map(str, places))}. {remedy}"
        )


def read_list(path: Path) -> tuple[str, ...]:
    """Image names, one a line: bare, or as `/JPEGImages/NAME.jpg`, alone or followed by the mask's file.

    Raises:
        InputError: no such list, an empty one, or a name that comes twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise InputError(f"The list of images {path} does not exist; prepare the data set again.") from error
    names = tuple(_name(line.split()[0]) for line in lines if line.strip())
    if not names:
        raise InputError(f"The list {path} names no image.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"The list {path} names {twice} twice.")
    return names


def some(names: Sequence[str]) -> str:
    """The first five names, for a message."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _name(entry: str) -> str:
    file = Path(entry)
    return file.stem if file.suffix.lower() in (".jpg", ".jpeg", ".png") else file.name
