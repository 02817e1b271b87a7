"""Panoptic quality and panoptic merge spelled out in the order of the official code, on whole images.

The library's shortcuts must equal them. For PQ that is panopticapi's evaluation of one image in one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cvpr21lib.eopsn.config import UNKNOWN
from cvpr21lib.eopsn.merge import Rule
from cvpr21lib.segmentation.panoptic import Panoptic


def read_png(path: Path) -> np.ndarray:
    """Ids from three channels of 32 bits."""
    with Image.open(path) as image:
        colours = np.array(image, dtype=np.uint32)
    return colours[:, :, 0] + 256 * colours[:, :, 1] + 256 * 256 * colours[:, :, 2]


def counts(target: Panoptic, pred: Panoptic, categories: Sequence[int]) -> np.ndarray:
    """(K, 4): sum of IoUs, TP, FP, FN, by sorting the ids of all pixels."""
    stats = {category: [0.0, 0, 0, 0] for category in categories}
    true = {segment.id: segment for segment in target.segments}
    predicted = {segment.id: segment for segment in pred.segments}
    found, pixels = np.unique(pred.ids, return_counts=True)
    areas = {int(label): int(area) for label, area in zip(found, pixels, strict=True)}
    combined = target.ids.astype(np.uint64) * 2**24 + pred.ids.astype(np.uint64)
    common: dict[tuple[int, int], int] = {}
    for label, area in zip(*np.unique(combined, return_counts=True), strict=True):
        common[int(label) // 2**24, int(label) % 2**24] = int(area)

    true_matched, pred_matched = set(), set()
    for (t, p), area in common.items():
        if t not in true or p not in predicted or true[t].crowd:
            continue
        if true[t].category != predicted[p].category:
            continue
        whole = true[t].area or int((target.ids == t).sum())
        iou = area / (areas[p] + whole - area - common.get((0, p), 0))
        if iou > 0.5:
            stats[true[t].category][0] += iou
            stats[true[t].category][1] += 1
            true_matched.add(t)
            pred_matched.add(p)
    crowd_of = {}
    for t, segment in true.items():
        if t in true_matched:
            continue
        if segment.crowd:
            crowd_of[segment.category] = t
        else:
            stats[segment.category][3] += 1
    for p, segment in predicted.items():
        if p in pred_matched:
            continue
        excused = common.get((0, p), 0)
        if segment.category in crowd_of:
            excused += common.get((crowd_of[segment.category], p), 0)
        if excused / areas[p] <= 0.5:
            stats[segment.category][2] += 1
    return np.array(list(stats.values()))


def merge(
    masks: np.ndarray,
    scores: Sequence[float],
    categories: Sequence[int],
    semantic: np.ndarray,
    stuff: Mapping[int, int],
    rule: Rule,
) -> tuple[np.ndarray, list[int]]:
    """The ids (H, W), and the category of each, from masks (n, H, W) bool, one whole mask after the other."""
    panoptic = np.zeros(semantic.shape, np.int32)
    pasted: list[int] = []

    def instances(unknown: bool, least: float) -> None:
        for index in np.argsort([-score for score in scores], kind="stable"):
            if (categories[index] == UNKNOWN) != unknown:
                continue
            if scores[index] < least:
                break
            mask = masks[index]
            area = mask.sum()
            if area == 0:
                continue
            taken = (mask & (panoptic > 0)).sum()
            if taken / area > rule.overlap:
                continue
            pasted.append(categories[index])
            panoptic[mask & (panoptic == 0)] = len(pasted)

    instances(False, rule.known_score)
    for label in np.unique(semantic).tolist():
        if label not in stuff:
            continue
        mask = (semantic == label) & (panoptic == 0)
        if mask.sum() < rule.stuff_area:
            continue
        pasted.append(stuff[label])
        panoptic[mask] = len(pasted)
    instances(True, rule.unknown_score)
    return panoptic, pasted
