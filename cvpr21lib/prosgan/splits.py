"""Which images are trained on, asked with and searched, and what they show: one file a data set.

`splits.npz` holds the names of the C classes, in the order of the labels' columns; where the splits come
from; and for each of train, test and database the images' paths and labels. Train lies inside the database,
which is the official protocol; test lies outside.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np

from cvpr21lib import atomic
from cvpr21lib.errors import InputError

Array = np.ndarray[Any, Any]
Name = Literal["train", "test", "database"]
NAMES: tuple[Name, ...] = get_args(Name)
FILE = "splits.npz"


@dataclass(frozen=True, eq=False)
class Part:
    """N images, each once."""

    images: tuple[str, ...]
    """Paths from the folder of the images, with forward slashes."""
    labels: Array
    """`(N, C)` uint8 of 0 and 1; a row may be all 0."""


@dataclass(frozen=True, eq=False)
class Splits:
    """All three, which `check` has found whole."""

    classes: tuple[str, ...]
    origin: str
    """In words: the official lists, or a draw and its seed."""
    parts: Mapping[Name, Part]


def write(path: Path, splits: Splits) -> None:
    """Write `splits`, whole or not at all. `InputError` as `check`."""
    check(splits, str(path))
    arrays: dict[str, Any] = {"classes": np.array(splits.classes), "origin": np.array(splits.origin)}
    for name, part in splits.parts.items():
        arrays |= {
            f"{name}/images": np.array([image.encode() for image in part.images]),
            f"{name}/labels": part.labels.astype(np.uint8),
        }
    with atomic.write(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read(path: Path) -> Splits:
    """The splits in the file at `path`.

    Raises:
        InputError: no such file, a damaged one, or splits that `check` refuses.
    """
    try:
        with np.load(path) as file:
            parts = {
                name: Part(
                    tuple(image.decode() for image in file[f"{name}/images"].tolist()), file[f"{name}/labels"]
                )
                for name in NAMES
            }
            splits = Splits(tuple(file["classes"].tolist()), str(file["origin"]), parts)
    except FileNotFoundError as error:
        raise InputError(f"the splits {path} do not exist; prepare the data set first.") from error
    except (
        OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error
    ) as error:  # fmt: skip
        raise InputError(f"the splits {path} are damaged ({error!r}); prepare the data set again.") from error
    check(splits, str(path))
    return splits


def check(splits: Splits, source: str) -> None:
    """Raise `InputError` unless every part is whole, train lies inside of the database and test outside."""
    for name, part in splits.parts.items():
        _check_part(part, len(splits.classes), f"{name} in {source}")
    train, test, database = (splits.parts[name] for name in NAMES)
    place = {image: i for i, image in enumerate(database.images)}
    if shared := [image for image in test.images if image in place]:
        raise InputError(f"{len(shared)} test images are in the database of {source}, too ({_some(shared)}).")
    if alien := [image for image in train.images if image not in place]:
        raise InputError(
            f"{len(alien)} training images are not in the database of {source} ({_some(alien)})."
        )
    there = database.labels[[place[image] for image in train.images]]
    if unlike := np.flatnonzero((there != train.labels).any(1)).tolist():
        raise InputError(
            f"{len(unlike)} training images have other labels in the database of {source} "
            f"({_some([train.images[i] for i in unlike])})."
        )


def _check_part(part: Part, classes: int, what: str) -> None:
    if not part.images:
        raise InputError(f"there are no images for {what}.")
    if part.labels.shape != (len(part.images), classes):
        raise InputError(
            f"the labels of {what} have shape {part.labels.shape}; expected {(len(part.images), classes)}."
        )
    if not np.isin(part.labels, (0, 1)).all():
        raise InputError(f"the labels of {what} hold other values than 0 and 1.")
    if len(set(part.images)) < len(part.images):
        twice = next(image for image in part.images if part.images.count(image) > 1)
        raise InputError(f"{len(part.images) - len(set(part.images))} images come again in {what} ({twice}).")
    for image in part.images:
        path = PurePosixPath(image)
        if path.is_absolute() or ".." in path.parts or "\\" in image:
            raise InputError(f"{what} names {image!r}, which lies outside of the folder of images.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
