"""From the ids of three data sets to the 16 and the 7 classes that CTRL-UDA is trained and scored on.

The tables are the official code's. Its 7-class table for SYNTHIA leaves out classes that it counts in
Cityscapes: wall, rider, bus and motorcycle (and terrain, truck and train, which are not among the 16). So the
source never teaches them, and the target is scored on them. `corrected=True` puts each where Cityscapes has
it; the published numbers were made without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from cvpr21lib.errors import InputError

VOID = 255
"""The class of pixels that are neither trained on nor scored."""

DataSetName = Literal["synthia", "cityscapes", "mapillary"]

CLASSES_16 = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "light", "sign", "vegetation", "sky", "person",
    "rider", "car", "bus", "motorcycle", "bicycle",
)  # fmt: skip
CLASSES_7 = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
CLASSES = {16: CLASSES_16, 7: CLASSES_7}

THIRTEEN = tuple(range(3)) + tuple(range(6, 16))
"""Of the 16 classes those of mIoU*: all but wall, fence and pole."""

_COLOURS = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "light": (250, 170, 30), "sign": (220, 220, 0),
    "vegetation": (107, 142, 35), "sky": (70, 130, 180), "person": (220, 20, 60), "rider": (255, 0, 0),
    "car": (0, 0, 142), "bus": (0, 60, 100), "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}  # fmt: skip
_SHOWN_AS = ("road", "building", "pole", "vegetation", "sky", "person", "car")
"""Whose colours the 7 classes have."""

PALETTES = {
    16: np.array([_COLOURS[name] for name in CLASSES_16], np.uint8),
    7: np.array([_COLOURS[name] for name in _SHOWN_AS], np.uint8),
}
"""Cityscapes' colours of the 16 and the 7 classes, RGB, uint8 (C, 3)."""


@dataclass(frozen=True)
class LabelMap:
    """A table of classes by id, and how many classes there are."""

    classes: tuple[int, ...]
    num_classes: int

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8, of ids of any shape; 255 for what has none.

        Raises:
            InputError: an id outside of the table.
        """
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self.classes):
            strange = np.unique(ids[(ids < 0) | (ids >= len(self.classes))])
            raise InputError(
                f"A label holds the id {strange[0]}; the table has 0 to {len(self.classes) - 1}. Are these "
                "labels of another data set, or already mapped to classes?"
            )
        return np.array(self.classes, np.uint8)[ids]


def label_map(dataset: DataSetName, num_classes: int, corrected: bool = False) -> LabelMap:
    """The table of a data set for 16 or 7 classes. `corrected` is for SYNTHIA and 7 classes alone.

    Raises:
        InputError: a data set or number of classes that CTRL-UDA does not use.
    """
    if dataset not in get_args(DataSetName):
        raise InputError(f"dataset is {dataset!r}; it can be {', '.join(get_args(DataSetName))}.")
    if (dataset, num_classes) not in _MAPS:
        known = [str(number) for name, number in _MAPS if name == dataset]
        raise InputError(f"num_classes is {num_classes}; with {dataset} it can be {' or '.join(known)}.")
    if not corrected:
        return _MAPS[dataset, num_classes]
    if (dataset, num_classes) != ("synthia", 7):
        raise InputError(
            f"The corrected map is for the 7 classes of SYNTHIA; {dataset} with {num_classes} has none."
        )
    return _SYNTHIA_7_CORRECTED


def _table(ids: int, num_classes: int, groups: Mapping[int, Sequence[int]]) -> LabelMap:
    """From the ids of each class."""
    classes = [VOID] * ids
    for number, members in groups.items():
        for member in members:
            classes[member] = number
    return LabelMap(tuple(classes), num_classes)


def _one_each(ids: int, members: Sequence[int]) -> LabelMap:
    return _table(ids, len(members), {number: (member,) for number, member in enumerate(members)})


_SYNTHIA_7 = {0: (3, 4, 22), 1: (2, 5), 2: (7, 9, 15), 3: (6,), 4: (1,), 5: (10,), 6: (8, 11)}
_SYNTHIA_7_CORRECTED = _table(
    23, 7, {**_SYNTHIA_7, 1: (2, 5, 21), 3: (6, 16), 5: (10, 17), 6: (8, 11, 12, 18, 19, 20)}
)
_CITYSCAPES_7 = {
    0: (7, 8), 1: (11, 12, 13), 2: (17, 19, 20), 3: (21, 22), 4: (23,), 5: (24, 25), 6: tuple(range(26, 34)),
}  # fmt: skip
# Not all is where one would look for it: curbs are construction, terrain is flat, potholes are objects.
_MAPILLARY_7 = {
    0: (*range(7, 16), 23, 24, 29), 1: (*range(2, 7), 16, 17, 18), 2: tuple(range(43, 51)), 3: (30,),
    4: (27,), 5: tuple(range(19, 23)), 6: tuple(range(52, 63)),
}  # fmt: skip

_MAPS = {
    ("synthia", 16): _one_each(23, (3, 4, 2, 21, 5, 7, 15, 9, 6, 1, 10, 17, 8, 19, 12, 11)),
    ("synthia", 7): _table(23, 7, _SYNTHIA_7),
    ("cityscapes", 16): _one_each(34, (7, 8, 11, 12, 13, 17, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33)),
    ("cityscapes", 7): _table(34, 7, _CITYSCAPES_7),
    ("mapillary", 7): _table(66, 7, _MAPILLARY_7),
}
