"""Data sets of street scenes, as `data_scripts` prepares them: frames by name, each with an image and ids.

An id is a data set's own number for a class; which of them are trained on is up to the paper.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from cvpr21lib import atomic
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import stored

INDEX = "frames.json"
"""Written when all else is in place: where it is, the data set can be used."""


class Frame(NamedTuple):
    """One frame and the size of its image, in pixels, which is also that of its labels and depth."""

    name: str
    height: int
    width: int


@dataclass(frozen=True)
class Streets(ABC):
    """A data set in the folder `root`."""

    root: Path
    folders: Mapping[str, str]
    """Where below `root` each part is: one of its `SPELLINGS`, under the part's name."""
    splits: Mapping[str, tuple[Frame, ...]]

    FOLDER: ClassVar[str]
    """Its folder below the data root."""
    ELSEWHERE: ClassVar[tuple[str, ...]] = ()
    """Other folders in which it is looked for."""
    SCRIPT: ClassVar[str]
    """Who brings it: `python -m data_scripts.<SCRIPT>`."""
    SPELLINGS: ClassVar[Mapping[str, tuple[str, ...]]]
    """The places of each part that are in use, the publisher's first."""
    LAST_ID: ClassVar[int]
    """Ids are 0 ... LAST_ID."""

    @abstractmethod
    def image(self, split: str, name: str) -> Path:
        """The RGB picture."""

    @abstractmethod
    def label(self, split: str, name: str) -> Path:
        """The picture of ids."""

    def ids(self, split: str, name: str) -> np.ndarray:
        """The id of each pixel, uint8 (H, W)."""
        return read_ids(self.label(split, name), self.LAST_ID)

    def depth_files(self, split: str, name: str) -> tuple[Path, ...]:
        """What `depth` reads; `InputError` where the data set has none, or it was not prepared."""
        raise InputError(f"{self.FOLDER} has no depth.")

    def depth(self, split: str, name: str) -> np.ndarray:
        """Depth along the optical axis in centimetres, float32 (H, W), NaN where it is not known."""
        raise InputError(f"{self.FOLDER} has no depth.")

    def frames(self, split: str) -> tuple[Frame, ...]:
        """The frames of a split, sorted by name; `InputError` for none, or an unknown split."""
        if split not in self.splits:
            raise InputError(f"{self.FOLDER} has no split {split!r}; it has {', '.join(self.splits)}.")
        if not self.splits[split]:
            raise InputError(
                f"The list of {split} frames in {self.root / INDEX} is empty. {self.remedy(self.root)}"
            )
        return self.splits[split]

    def write_index(self) -> None:
        """Say that the data set is complete."""
        with atomic.write(self.root / INDEX) as temporary:
            temporary.write_text(json.dumps({"folders": self.folders, "splits": self.splits}) + "\n")

    @classmethod
    def find(cls, data_root: str | Path | None) -> Self:
        """The data set below, or at, `data_root`.

        Raises:
            InputError: it is not there, its preparation is not finished, or its index is damaged.
        """
        if data_root is None:
            raise InputError(
                f"data_root is not set: name the folder that holds {cls.FOLDER}. {cls.remedy(None)}"
            )
        root = Path(data_root)
        places = [root / cls.FOLDER, *(root / place for place in cls.ELSEWHERE), root]
        for place in places:
            if cls._is_here(place):
                return cls.read(place)
        begun = [place for place in places[:-1] if place.is_dir()]
        if begun:
            raise InputError(
                f"{begun[0]} is there but not prepared: {INDEX} is missing. {cls.remedy(data_root)}"
            )
        looked = ", ".join(map(str, places))
        raise InputError(
            f"The data set {cls.FOLDER} was not found; looked in {looked}. {cls.remedy(data_root)}"
        )

    @classmethod
    def read(cls, root: Path) -> Self:
        """The data set in `root` by its index."""
        try:
            contents = json.loads((root / INDEX).read_text(encoding="utf-8"))
            splits = {
                split: tuple(Frame(*frame) for frame in frames)
                for split, frames in contents["splits"].items()
            }
            return cls(root, dict(contents["folders"]), splits)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{root / INDEX} is damaged ({error!r}); remove it and prepare again. {cls.remedy(root)}"
            ) from error

    @classmethod
    def places(cls, root: Path) -> dict[str, str]:
        """Which parts there are in the folder `root`, and where."""
        found = {}
        for part, spellings in cls.SPELLINGS.items():
            there = [spelling for spelling in spellings if (root / spelling).is_dir()]
            if there:
                found[part] = there[0]
        return found

    @classmethod
    def remedy(cls, data_root: str | Path | None) -> str:
        """What to do where it is missing."""
        return (
            "Download its archives by hand (they need a registration), then prepare them with "
            f"`python -m data_scripts.{cls.SCRIPT} --root {data_root or 'data'} --archives DIR`."
        )

    @classmethod
    def _is_here(cls, place: Path) -> bool:
        """Whether `place` has an index, and one of this data set: of several, each has its own parts."""
        return (place / INDEX).is_file() and bool(cls.places(place))


def read_ids(path: Path, last: int) -> np.ndarray:
    """Ids uint8 (H, W) from a grey or palette picture of 8 bits.

    Raises:
        InputError: no such file, a damaged one, colours instead of ids, or an id beyond `last`.
    """
    picture = stored.decode(path)
    if picture.mode not in ("L", "P"):
        raise InputError(
            f"{path} has pixels of mode {picture.mode!r}; expected one 8-bit id for each pixel, as a grey or "
            "palette PNG. Coloured labels are for the eye only: take the file of ids."
        )
    ids = np.asarray(picture)
    require_ids(ids, last, path)
    return ids


def require_ids(ids: np.ndarray, last: int, path: Path) -> None:
    """Refuse ids outside of the data set's table, 0 to `last`."""
    strange = np.unique(ids[ids > last])
    if len(strange):
        listed = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
        raise InputError(
            f"{path} holds the ids {listed}; expected 0 to {last}. Are these labels of another edition, or "
            "already mapped to classes? The data set's own ids are needed."
        )


def require_same_size(sizes: Mapping[Any, Sequence[int]]) -> tuple[int, int]:
    """The one (height, width) of the pictures of a frame, given by path or name.

    Raises:
        InputError: they differ; it names each.
    """
    height, width = next(iter(sizes.values()))[:2]
    if any(tuple(size[:2]) != (height, width) for size in sizes.values()):
        listed = ", ".join(f"{what} has {size[1]} x {size[0]}" for what, size in sizes.items())
        raise InputError(f"Pictures of one frame differ in size (width x height): {listed} pixels.")
    return height, width
