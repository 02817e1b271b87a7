"""Panoptic quality (Kirillov et al., CVPR 2019): PQ, and its factors SQ and RQ.

A predicted segment and a true one of the same category match where they overlap with an IoU above one half;
so each has at most one partner. Of a category,

    SQ = Σ IoU / TP    RQ = TP / (TP + FP/2 + FN/2)    PQ = SQ · RQ

The rules are panopticapi's. What is void in the ground truth is left out of the union. A crowd is neither
matched nor missed. A prediction without partner is excused if more than half of it lies on void and on a
crowd of its category; of several crowds, the last in the list.

`torchmetrics.detection.PanopticQuality` is not the same: it knows no crowds, and leaves out what the
prediction calls void, too. So half an object found can have an IoU of 1, and an object under a void
prediction is not missed.

As in `metrics`, one part counts on a single image, and the other makes scores of the sums over all images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import panoptic
from cvpr21lib.segmentation.layout import some
from cvpr21lib.segmentation.panoptic import VOID, Annotation, Panoptic, Segment

IOU = 0.5
"""A pair matches above it. No segment can have two partners, as segments do not overlap."""


class Match(NamedTuple):
    """What became of the segments of one image; none of them is a crowd."""

    pairs: tuple[tuple[Segment, float], ...]
    """True segments with a partner, and their IoU."""
    missed: tuple[Segment, ...]
    """True segments without."""
    wrong: tuple[Segment, ...]
    """Predicted segments without, that nothing excuses."""


def match(target: Panoptic, pred: Panoptic) -> Match:
    """Pair the segments of one image.

    The area of a true segment is what its JSON says, as for panopticapi; if it says nothing, it is counted.

    Raises:
        InputError: two sizes, pixels whose id is not listed, or listed segments without pixels.
    """
    overlap = overlaps(target.ids, pred.ids)
    true_areas = _areas(overlap, 0, target.segments, "ground truth")
    pred_areas = _areas(overlap, 1, pred.segments, "prediction")
    true, predicted = ({one.id: one for one in each.segments} for each in (target, pred))

    found: dict[int, float] = {}
    partnered: set[int] = set()
    for (t, p), common in overlap.items():
        if t == VOID or p == VOID or true[t].crowd or true[t].category != predicted[p].category:
            continue
        area = true[t].area or true_areas[t]
        iou = common / (pred_areas[p] - overlap.get((VOID, p), 0) + area - common)
        if iou > IOU:
            found[t] = iou
            partnered.add(p)

    crowds = {one.category: one.id for one in target.segments if one.crowd}

    def excused(segment: Segment) -> bool:
        idle = overlap.get((VOID, segment.id), 0)
        if segment.category in crowds:
            idle += overlap.get((crowds[segment.category], segment.id), 0)
        return idle / pred_areas[segment.id] > 0.5

    return Match(
        tuple((one, found[one.id]) for one in target.segments if one.id in found),
        tuple(one for one in target.segments if not one.crowd and one.id not in found),
        tuple(one for one in pred.segments if one.id not in partnered and not excused(one)),
    )


def match_files(target: Annotation, targets: Path, pred: Annotation, preds: Path) -> Match:
    """`match` of an image of two JSON files, with the PNGs from their folders; errors name the files."""
    truth, guess = panoptic.load(target, targets), panoptic.load(pred, preds)
    try:
        return match(truth, guess)
    except InputError as error:
        files = f"{targets / target.file_name} and {preds / pred.file_name}"
        raise InputError(f"{files} cannot be compared: {error}") from error


def overlaps(target: np.ndarray, pred: np.ndarray) -> dict[tuple[int, int], int]:
    """How many pixels have each pair of ids, for two arrays of integers (H, W); pairs in ascending order.

    Along a row, pairs change only where one of two segments ends: so a few thousand runs are sorted, and
    not all pixels.
    """
    if target.shape != pred.shape:
        raise InputError(
            f"the prediction has {'×'.join(map(str, pred.shape))} pixels and the ground truth "
            f"{'×'.join(map(str, target.shape))}; expected the same size: do not resize either."
        )
    if not target.size:
        return {}
    flat = [ids.ravel() for ids in (target, pred)]
    enters = np.ones(flat[0].size, bool)
    enters[1:] = (flat[0][1:] != flat[0][:-1]) | (flat[1][1:] != flat[1][:-1])
    starts = np.flatnonzero(enters)
    first, second = (ids[starts].astype(np.int64) for ids in flat)
    for ids in (first, second):
        if ids.min() < 0 or ids.max() > panoptic.MAX_ID:
            raise InputError(
                f"the ids reach from {ids.min()} to {ids.max()}; expected 0 to {panoptic.MAX_ID}."
            )
    begun = first << 24 | second
    pairs = np.unique(begun)  # dozens: looking them up is faster than `return_inverse`, which sorts again
    lengths = np.diff(starts, append=flat[0].size)
    pixels = np.bincount(np.searchsorted(pairs, begun), lengths).astype(np.int64)  # exact up to 2^53
    both = zip((pairs >> 24).tolist(), (pairs & panoptic.MAX_ID).tolist(), strict=True)
    return dict(zip(both, pixels.tolist(), strict=True))


def count(match: Match, categories: Sequence[int]) -> np.ndarray:
    """(K, 4) float64 for the K `categories`: the sum of the IoUs, TP, FP and FN. Add those of all images.

    Raises:
        InputError: a segment, not of a crowd, whose category is not one of them.
    """
    row = {category: index for index, category in enumerate(categories)}
    counts = np.zeros((len(categories), 4))
    segments = (*(one for one, _ in match.pairs), *match.missed, *match.wrong)
    strange = sorted({one.category for one in segments} - set(row))
    if strange:
        raise InputError(f"there is no category {some([str(one) for one in strange])} to be judged.")
    for segment, iou in match.pairs:
        counts[row[segment.category], :2] += iou, 1
    for segment in match.wrong:
        counts[row[segment.category], 2] += 1
    for segment in match.missed:
        counts[row[segment.category], 3] += 1
    return counts


class Quality(NamedTuple):
    """In [0, 1]; NaN where there was no class to judge."""

    pq: float
    sq: float
    rq: float
    classes: int
    """How many of the classes occur, in the ground truth or in predictions."""


def quality(counts: np.ndarray) -> Quality:
    """The mean over the classes of `count` (K, 4) that occur, TP + FP + FN > 0. Without TP, SQ is 0."""
    counts = counts[counts[:, 1:].any(1)]
    if not len(counts):
        return Quality(math.nan, math.nan, math.nan, 0)
    iou, tp, fp, fn = counts.T
    pq, rq = (value / (tp + fp / 2 + fn / 2) for value in (iou, tp))
    sq = iou / np.maximum(tp, 1)
    return Quality(float(pq.mean()), float(sq.mean()), float(rq.mean()), len(counts))


def _areas(
    overlap: Mapping[tuple[int, int], int], axis: int, segments: Sequence[Segment], what: str
) -> dict[int, int]:
    """The pixels of each id on one side."""
    areas: dict[int, int] = {}
    for pair, pixels in overlap.items():
        areas[pair[axis]] = areas.get(pair[axis], 0) + pixels
    listed = {segment.id for segment in segments}
    for how, ids in (
        ("has pixels of segments that its list lacks", areas.keys() - listed - {VOID}),
        ("lists segments that have no pixel", listed - areas.keys()),
    ):
        if ids:
            raise InputError(
                f"the {what} {how}: {some([str(one) for one in sorted(ids)])}; expected the PNG and the JSON "
                "that were written together."
            )
    return areas
