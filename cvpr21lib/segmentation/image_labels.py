"""Which classes an image shows: one readable JSON file a data set, beside its images.

{"classes": ["aeroplane", ...], "images": {"2007_000032": ["aeroplane", "person"], ...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cvpr21lib import atomic
from cvpr21lib.errors import InputError

Labels = dict[str, tuple[int, ...]]
"""Class numbers by image, ascending, 0 for the first class."""


def read(path: Path, classes: Sequence[str]) -> Labels:
    """The labels in the file at `path`, which must be of these `classes`.

    Raises:
        InputError: no such file, not of this form, other classes, or an image with a label outside of them.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        given, images = list(contents["classes"]), dict(contents["images"])
    except FileNotFoundError as error:
        raise InputError(f"The image labels {path} do not exist; prepare the data set again.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}); prepare the data set again.") from error
    if given != list(classes):
        raise InputError(
            f"{path} is about {len(given)} classes from {given[:1]} on; "
            f"expected {len(classes)} from {classes[0]!r} on."
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return {image: _numbers(image, names, numbers, path) for image, names in images.items()}


def write(path: Path, labels: Mapping[str, Sequence[int]], classes: Sequence[str]) -> None:
    """Write the labels of all images, one image a line: whole, or not at all."""
    lines = (
        f"  {json.dumps(image)}: {json.dumps([classes[number] for number in labels[image]])}"
        for image in sorted(labels)
    )
    text = f'{{\n "classes": {json.dumps(list(classes))},\n "images": {{\n' + ",\n".join(lines) + "\n }\n}\n"
    with atomic.write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def vector(numbers: Sequence[int], num_classes: int) -> np.ndarray:
    """The label y in {0, 1}^C, float32: 1 for each of the class `numbers`."""
    label = np.zeros(num_classes, np.float32)
    label[list(numbers)] = 1
    return label


def _numbers(image: str, names: Sequence[str], numbers: Mapping[str, int], path: Path) -> tuple[int, ...]:
    unknown = [name for name in names if name not in numbers]
    if unknown:
        raise InputError(
            f"{path} labels {image} with {unknown[0]!r}, which is none of the {len(numbers)} classes."
        )
    return tuple(sorted(numbers[name] for name in names))
