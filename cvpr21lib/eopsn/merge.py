"""Detections and a semantic map become one panoptic map: known things first, then stuff, then the unknown.

Known things are pasted by falling score, each on the pixels that are free; stuff takes what they leave;
unknown things get only what both left over. (Official code.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cvpr21lib.eopsn.config import UNKNOWN
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation.panoptic import VOID, Panoptic, Segment


@dataclass(frozen=True)
class Rule:
    """What is pasted (official code)."""

    known_score: float = 0.5  # at least
    unknown_score: float = 0.1  # at least
    overlap: float = 0.5  # an instance is dropped if a larger share of its mask is taken
    stuff_area: int = 4096  # pixels of a kind of stuff that are free, at least


@dataclass(frozen=True, eq=False)
class Instance:
    """A detection; its mask reaches no further than its window, in which all work is done."""

    mask: np.ndarray
    """bool (h, w)."""
    top: int
    left: int
    """Of the window in the image, which holds it whole."""
    score: float
    category: int
    """As in the result; `UNKNOWN` comes last."""

    @classmethod
    def from_full(cls, mask: np.ndarray, score: float, category: int) -> Instance:
        """From a mask of the whole image, bool (H, W)."""
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if not len(rows):
            return cls(mask[:0, :0], 0, 0, score, category)
        top, left = int(rows[0]), int(columns[0])
        return cls(mask[top : rows[-1] + 1, left : columns[-1] + 1], top, left, score, category)


class Merged(NamedTuple):
    """A panoptic map, and where its segments come from."""

    panoptic: Panoptic
    """int32 ids 1, 2, ... in the order of pasting; void is what nothing took."""
    instances: tuple[int | None, ...]
    """Of each segment: the position of its instance, None for stuff."""


def merge(
    instances: Sequence[Instance], semantic: np.ndarray, stuff: Mapping[int, int], rule: Rule | None = None
) -> Merged:
    """Merge the detections of one image with its semantic map.

    Args:
        instances: in any order; of equal scores, the first one is pasted first.
        semantic: (H, W), integers from 0: a label at each pixel.
        stuff: categories of the labels that are stuff. Pixels of other labels (things, void) are left free.

    Raises:
        InputError: a mask that is not bool, or whose window does not lie in the image.
    """
    rule = rule or Rule()
    _check(instances, semantic)
    ids = np.full(semantic.shape, VOID, np.int32)
    segments: list[Segment] = []
    sources: list[int | None] = []

    def paste(those: Iterable[int], least: float) -> None:
        for index in those:
            one = instances[index]
            if not one.score >= least:
                break  # all later ones are lower
            height, width = one.mask.shape
            window = ids[one.top : one.top + height, one.left : one.left + width]
            free = one.mask & (window == VOID)
            area, left_over = int(np.count_nonzero(one.mask)), int(np.count_nonzero(free))
            if not area or (area - left_over) / area > rule.overlap:
                continue
            segments.append(Segment(len(segments) + 1, one.category, area=left_over))
            sources.append(index)
            np.putmask(window, free, segments[-1].id)

    order = np.argsort([-one.score for one in instances], kind="stable").tolist()
    paste((index for index in order if instances[index].category != UNKNOWN), rule.known_score)
    for segment in _stuff(ids, semantic, stuff, rule.stuff_area, len(segments)):
        segments.append(segment)
        sources.append(None)
    paste((index for index in order if instances[index].category == UNKNOWN), rule.unknown_score)
    return Merged(Panoptic(ids, tuple(segments)), tuple(sources))


def _stuff(
    ids: np.ndarray, semantic: np.ndarray, stuff: Mapping[int, int], least: int, last_id: int
) -> list[Segment]:
    """Fill the free pixels of `ids` with stuff, by ascending label."""
    areas = np.bincount(semantic[ids == VOID])
    pasted = [label for label in sorted(stuff) if label < len(areas) and areas[label] >= max(least, 1)]
    if not pasted:
        return []
    lookup = np.zeros(int(semantic.max()) + 1, ids.dtype)
    lookup[pasted] = range(last_id + 1, last_id + 1 + len(pasted))
    np.copyto(ids, lookup[semantic], where=ids == VOID)
    return [Segment(int(lookup[label]), stuff[label], area=int(areas[label])) for label in pasted]


def _check(instances: Sequence[Instance], semantic: np.ndarray) -> None:
    if semantic.ndim != 2 or not np.issubdtype(semantic.dtype, np.integer) or semantic.min(initial=0) < 0:
        raise InputError(
            f"the semantic map is {semantic.dtype} of shape {semantic.shape}; expected labels from 0, (H, W)."
        )
    for index, one in enumerate(instances):
        if one.mask.dtype != bool or one.mask.ndim != 2:
            raise InputError(
                f"the mask of instance {index} is {one.mask.dtype} of shape {one.mask.shape}; expected bool "
                "(h, w): compare the probabilities with 0.5."
            )
        bottom, right = one.top + one.mask.shape[0], one.left + one.mask.shape[1]
        if min(one.top, one.left) < 0 or bottom > semantic.shape[0] or right > semantic.shape[1]:
            raise InputError(
                f"the window of instance {index}, rows {one.top} to {bottom} and columns {one.left} to "
                f"{right}, leaves the image of {semantic.shape[0]}×{semantic.shape[1]} pixels; cut it there."
            )
