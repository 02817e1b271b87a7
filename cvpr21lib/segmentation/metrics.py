"""How good masks are: mIoU, boundaries, and context that is taken for an object.

Each measure has two parts: one counts on a single image and returns integers, the other makes scores of the
sums over all images. (The mean of the images' own scores would be another number.)

Masks are integer arrays (H, W). Pixels of a target outside the K classes, like void (255), do not count. A
prediction larger than its target is cropped to it from the top left, as in the official evaluation of EPS.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from skimage.segmentation import find_boundaries

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation.masks import VOID


def confusion(target: np.ndarray, pred: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of class i that are predicted as class j: (K, K) int64, K = `num_classes` with the background.

    Pixels predicted outside the K classes do not count.
    """
    return histogram(target, pred, sizes=(num_classes, num_classes))


def scores(confusion: np.ndarray) -> Scores:
    """The scores of a confusion matrix (K, K). A class that is neither there nor predicted has no IoU."""
    if not confusion.any():
        raise InputError("no pixel counts: the targets are void (255) everywhere, or there are none.")
    hits, actual, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        iou, precision, recall = hits / (actual + predicted - hits), hits / predicted, hits / actual
    return Scores(float(np.nanmean(iou)), iou, precision, recall, float(hits.sum() / actual.sum()))


class Scores(NamedTuple):
    """Values in [0, 1]; arrays are (K,), NaN where there is nothing to divide by."""

    miou: float  # the mean of `iou`, without NaN
    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    accuracy: float  # the share of pixels that are right


def boundary_counts(target: np.ndarray, pred: np.ndarray, tolerance: float = 0.02) -> np.ndarray:
    """(4,) int64: boundary pixels of `pred` near some of `target`, all of `pred`, and the same the other way.

    Boundary pixels are those of an object beside another label; all classes count together. Near is at most
    `tolerance` times the image's diagonal. What is that near to void does not count, on either side, so take
    targets without void along the contours (SBD's, not VOC's).

    How the paper measured it is not known; 0.02 is the tolerance of SBD's benchmark as we recall it, which
    goes by class and matches pixels one to one, where here many may be near the same one.
    """
    pred = _cropped(pred, target)
    radius = tolerance * math.hypot(*target.shape)
    clear = _distance(target == VOID) > max(radius, 1)
    actual, found = (find_boundaries(mask, mode="inner", background=0) & clear for mask in (target, pred))
    right, met = found & (_distance(actual) <= radius), actual & (_distance(found) <= radius)
    return np.array([right.sum(), found.sum(), met.sum(), actual.sum()])


def boundary_scores(counts: np.ndarray) -> BoundaryScores:
    """The scores of `boundary_counts`; `InputError` where the targets have no boundary."""
    right, found, met, actual = counts.tolist()
    if not actual:
        raise InputError("there are no boundaries in the targets: no object, or void along every contour.")
    recall, precision = met / actual, right / found if found else 0.0
    return BoundaryScores(recall, precision, 2 * recall * precision / (recall + precision or 1))


class BoundaryScores(NamedTuple):
    """All in [0, 1]."""

    recall: float
    precision: float
    f1: float


def context_counts(target: np.ndarray, pred: np.ndarray, context: np.ndarray, label: int) -> np.ndarray:
    """(3,) int64 for one class, `label` in the masks, and what often surrounds it, `context` (H, W) bool.

    Context predicted as the class, the class predicted as such, and all context: rails taken for a train,
    train taken for a train, rails. All 0 in an image without the class, which does not count.
    """
    there, claimed = target == label, _cropped(pred, target) == label
    if not there.any():
        return np.zeros(3, np.int64)
    return np.array([(context & claimed).sum(), (there & claimed).sum(), context.sum()])


def context_scores(counts: np.ndarray) -> ContextScores:
    """The scores of `context_counts`; NaN or infinity where there is nothing to divide by."""
    wrong, right, context = counts.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return ContextScores(float(wrong / right), float(wrong / context))


class ContextScores(NamedTuple):
    """Lower is better."""

    ratio: float  # the paper's m(k, c), confused context over true positives, 0 or more
    share: float  # the share of the context that is confused, in [0, 1]


def histogram(target: np.ndarray, *others: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """How many pixels have each combination of values in the masks: int64 of the shape `sizes`.

    Mask i counts from 0 to sizes[i] - 1; a pixel of any other value, in any mask, is left out.
    """
    if max(sizes) > VOID:
        raise InputError(
            f"{max(sizes)} values cannot be told apart in 8 bits beside void; at most {VOID} can."
        )
    masks = [_bytes(target), *(_bytes(_cropped(other, target)) for other in others)]
    counts = np.zeros(sizes, np.int64)
    ranges = [edge for size in sizes for edge in (0, size)]
    rows = max(1, 2**24 // target.shape[1])  # OpenCV counts in float32, exactly up to 2^24
    for top in range(0, target.shape[0], rows):
        part = [mask[top : top + rows] for mask in masks]
        counts += cv2.calcHist(part, range(len(part)), None, sizes, ranges).astype(np.int64)
    return counts


def _cropped(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    (height, width), (rows, columns) = target.shape, pred.shape
    if rows < height or columns < width:
        raise InputError(
            f"the prediction has {rows}×{columns} pixels and the target {height}×{width}; it must cover it."
        )
    return pred[:height, :width]


def _bytes(mask: np.ndarray) -> np.ndarray:
    """Integers as uint8; what does not fit becomes 255, which never counts."""
    if mask.dtype == np.uint8:
        return mask
    if not np.issubdtype(mask.dtype, np.integer):
        raise InputError(f"the mask holds {mask.dtype}; expected integers, a class at each pixel.")
    return np.where((mask < 0) | (mask > VOID), VOID, mask).astype(np.uint8)


def _distance(pixels: np.ndarray) -> np.ndarray:
    """From each pixel to the nearest of `pixels`, Euclidean; infinite if there is none."""
    if not pixels.any():
        return np.full(pixels.shape, np.inf, np.float32)
    return cv2.distanceTransform((~pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
