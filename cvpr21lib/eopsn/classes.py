"""Which of COCO's classes are known when K % of its things are not, and how labels are numbered.

Things have labels 0 .. C - 1 in the order of their COCO numbers, the unknown ones left out. Semantic labels
are 0 for any known thing, and 1 .. S for stuff in that order. Void, which is what COCO left without a label
and the unknown things, is 255 in the prepared PNGs, and S + 1 for the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cvpr21lib.eopsn.config import UNKNOWN
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import coco2017, panoptic
from cvpr21lib.segmentation.layout import some
from cvpr21lib.segmentation.panoptic import Category, Panoptic

VOID = 255
"""In the PNGs."""

UNKNOWN_5 = ("car", "cow", "pizza", "toilet")
UNKNOWN_10 = (*UNKNOWN_5, "boat", "tie", "zebra", "stop sign")
UNKNOWN_20 = (*UNKNOWN_10, "dining table", "banana", "bicycle", "cake", "sink", "cat", "keyboard", "bear")
UNKNOWN_THINGS = {5: UNKNOWN_5, 10: UNKNOWN_10, 20: UNKNOWN_20}
"""By K, the share of the 80 things in percent (official lists; each holds the one before)."""


def of_coco(k: int) -> Classes:
    """COCO's 133 categories with K = 5, 10 or 20 % of the things unknown."""
    if k not in UNKNOWN_THINGS:
        raise InputError(f"k is {k}; there are splits for {', '.join(map(str, UNKNOWN_THINGS))}.")
    return Classes(unknown=panoptic.numbers_of(UNKNOWN_THINGS[k], coco2017.CATEGORIES))


@dataclass(frozen=True)
class Classes:
    """The numbering of labels."""

    categories: Mapping[int, Category] = field(default_factory=lambda: coco2017.CATEGORIES)
    unknown: tuple[int, ...] = ()
    """Numbers of the things that training never hears of."""

    @cached_property
    def known(self) -> tuple[int, ...]:
        """The category of each label 0 .. C - 1."""
        things = [number for number in sorted(self.categories) if self.categories[number].isthing]
        return tuple(number for number in things if number not in self.unknown)

    @cached_property
    def stuff(self) -> Mapping[int, int]:
        """The category of each semantic label 1 .. S."""
        numbers = [number for number in sorted(self.categories) if not self.categories[number].isthing]
        return dict(enumerate(numbers, 1))

    @cached_property
    def label(self) -> Mapping[int, int]:
        """The label of each known thing's category."""
        return {number: label for label, number in enumerate(self.known)}

    def category(self, label: int) -> int:
        """The category of a detection's label; `UNKNOWN` stays what it is."""
        return UNKNOWN if label == UNKNOWN else self.known[label]

    def keeps(self, annotation: Mapping[str, Any]) -> bool:
        """Whether training is told of this object of COCO's instance annotations."""
        return not annotation.get("iscrowd", 0) and annotation["category_id"] in self.label

    def semantic(self, image: Panoptic) -> np.ndarray:
        """uint8 (H, W): 0 known things, crowds included, 1 .. S stuff, `VOID` what is unknown or unlabelled.

        Raises:
            InputError: pixels of an id that no segment has, or a category that there is not.
        """
        segments = sorted(image.segments, key=lambda segment: segment.id)
        ids = np.array([panoptic.VOID, *(segment.id for segment in segments)])
        labels = np.array([VOID, *(self._semantic_label(one.category) for one in segments)], np.uint8)
        position = np.searchsorted(ids, image.ids).clip(max=len(ids) - 1)
        strange = [str(one) for one in np.unique(image.ids[ids[position] != image.ids])]
        if strange:
            raise InputError(
                f"it has pixels of segments that its JSON lacks: {some(strange)}; expected the PNG and the "
                "JSON of the same release."
            )
        return labels[position]

    def _semantic_label(self, category: int) -> int:
        if category in self.unknown:
            return VOID
        if category not in self._semantic_labels:
            raise InputError(f"it has a segment of category {category}, which there is not.")
        return self._semantic_labels[category]

    @cached_property
    def _semantic_labels(self) -> Mapping[int, int]:
        return {**dict.fromkeys(self.known, 0), **{number: label for label, number in self.stuff.items()}}
