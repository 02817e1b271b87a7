"""How good a trained classifier's pseudo-masks are: mIoU, confused context, and what the rule rejects."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from tqdm.auto import tqdm

from cvpr21lib.eps import losses
from cvpr21lib.eps.model import EPS, Classifier
from cvpr21lib.eps.pseudo_masks import THRESHOLD, ClassMaps, class_maps, mask, scan
from cvpr21lib.eps.resnet38 import ResNet38, normalise
from cvpr21lib.eps.sources import Source
from cvpr21lib.segmentation import metrics

Context = Mapping[str, tuple[int, int]]
"""By name: the number of a region in the targets, and that of the class it is taken for."""


class Judge(NamedTuple):
    """By what, and how, masks are judged."""

    classes: Sequence[str]
    """The C names."""
    thresholds: Sequence[float]
    """Of the scan, ascending; the fixed one is among them."""
    scales: Sequence[float]
    tau: float
    context: Context
    """Regions of the targets beyond the classes, which count as background."""


def evaluate(
    network: Classifier,
    source: Source,
    target: Callable[[int], np.ndarray],
    judge: Judge,
    fabric: Fabric,
    progress: bool = False,
) -> dict[str, float]:
    """The numbers of a record; every process takes its share of the images. mIoU and IoU in %.

        miou, miou_best, threshold_best          at the fixed threshold 0.20; at the best of the scan
        miou/0.10, ...                           the scan
        iou/train, iou_fixed/train               at the best, at the fixed threshold
        own/train                                at the threshold that is best for this class
        share/rail, ratio/rail (and _fixed)      context taken for the class (`metrics.context_scores`)
        rejected/train                           share of the images with this label with an overlap up to τ
        cut_out, cut_out/train                   mIoU and IoU of `cut_out`, where there is saliency

    What has nothing to divide by is left out. `target(index)` is the mask of an image, uint8 (H, W), with
    further regions if `judge` names some.
    """
    images = len(source.names)
    counts = Counts.none(judge)
    mine = range(fabric.global_rank, images, fabric.world_size)
    for index in tqdm(mine, "Judging masks", leave=False, disable=not progress):
        counts.add(network, source, index, target(index), judge)
    summed = (fabric.all_reduce(torch.from_numpy(part), reduce_op="sum") for part in counts)
    return numbers(Counts(*(part.cpu().numpy() for part in summed)), judge)  # type: ignore[union-attr]


def for_inference(network: nn.Module) -> Classifier:
    """A copy in evaluation mode and single precision, ResNet38's normalisations folded."""
    twin = copy.deepcopy(network).float().eval()
    assert isinstance(twin, Classifier)
    if isinstance(twin.backbone, ResNet38):
        twin.backbone = twin.backbone.folded()
    return twin


def cut_out(found: ClassMaps, saliency: np.ndarray) -> np.ndarray:
    """Saliency as post-processing: the class of the strongest map where something is salient.

    `saliency` uint8 (H, W), salient above one half; the result is a mask as of `pseudo_masks.mask`. Any
    classifier will do: its training need not know of saliency.
    """
    strongest = mask(found, threshold=-1.0)  # no pixel is background
    return np.where(saliency > 127, strongest, np.uint8(0))


class Counts(NamedTuple):
    """What is counted over the images; int64. R is K = C + 1 and further regions."""

    scan: np.ndarray  # (T, R, R), pixels by region and predicted class at each threshold
    cut_out: np.ndarray  # (R, R), the same for `cut_out`
    rejected: np.ndarray  # (2, C), images with a label, and those in which it is rejected

    @classmethod
    def none(cls, judge: Judge) -> Counts:
        classes = len(judge.classes)
        regions = 1 + classes + len(judge.context)
        shapes = ((len(judge.thresholds), regions, regions), (regions, regions), (2, classes))
        return cls(*(np.zeros(shape, np.int64) for shape in shapes))

    def add(self, network: Classifier, source: Source, index: int, target: np.ndarray, judge: Judge) -> None:
        image, label = source.image(index), source.label(index)
        found = class_maps(network, image, label, judge.scales)
        regions = len(self.cut_out)
        self.scan[:] += scan(found, target, judge.thresholds, regions)
        if not source.has_saliency:
            return
        saliency = source.saliency(index)
        self.cut_out[:] += metrics.confusion(target, cut_out(found, saliency), regions)
        if isinstance(network, EPS):
            estimate = estimate_of(network, image, saliency, label, judge.tau)
            self.rejected[:] += (
                torch.cat([estimate.valid | estimate.rejected, estimate.rejected]).cpu().numpy()
            )


def estimate_of(
    network: EPS,
    image: np.ndarray,
    saliency: np.ndarray,
    label: np.ndarray,
    tau: float = 0.4,
    lam: float = 0.5,
) -> losses.Estimate:
    """`losses.estimate` of one whole image, uint8 (H, W, 3), and its saliency, uint8 (H, W)."""
    device = network.fc8.weight.device
    with torch.no_grad():
        cam = network(normalise(image)[None].to(device)).cam
    real = torch.tensor(saliency, device=device)[None, None] / 255
    return losses.estimate(cam, real, torch.as_tensor(label, device=device)[None], tau, lam)


def numbers(counts: Counts, judge: Judge) -> dict[str, float]:
    """What `evaluate` returns, from the counts of all images."""
    names = ("background", *judge.classes)
    scores = [metrics.scores(_classes(table, judge)) for table in counts.scan]
    mious = [each.miou for each in scores]
    best, fixed = int(np.argmax(mious)), judge.thresholds.index(THRESHOLD)
    made = {
        "miou": 100 * mious[fixed],
        "miou_best": 100 * mious[best],
        "threshold_best": judge.thresholds[best],
    }
    made |= {f"miou/{at:.2f}": 100 * miou for at, miou in zip(judge.thresholds, mious, strict=True)}
    own = np.fmax.reduce([each.iou for each in scores])
    for kind, iou in (("iou", scores[best].iou), ("iou_fixed", scores[fixed].iou), ("own", own)):
        made |= {f"{kind}/{name}": 100 * float(value) for name, value in zip(names, iou, strict=True)}
    for name, (region, label) in judge.context.items():
        for at, suffix in ((best, ""), (fixed, "_fixed")):
            ratio, share = context(counts.scan[at], region, label)
            made |= {f"ratio{suffix}/{name}": ratio, f"share{suffix}/{name}": share}
    if counts.cut_out.any():
        cut = metrics.scores(_classes(counts.cut_out, judge))
        made["cut_out"] = 100 * cut.miou
        made |= {f"cut_out/{name}": 100 * float(value) for name, value in zip(names, cut.iou, strict=True)}
    for name, labelled, rejected in zip(judge.classes, *counts.rejected.tolist(), strict=True):
        if labelled:
            made[f"rejected/{name}"] = rejected / labelled
    return {name: value for name, value in made.items() if math.isfinite(value)}


def context(table: np.ndarray, region: int, label: int) -> metrics.ContextScores:
    """How often `region` is taken for the class `label`: (R, R) pixels by region and predicted class.

    Where the region occurs in images of that class only, this is the sum of `metrics.context_counts`.
    """
    return metrics.context_scores(np.array([table[region, label], table[label, label], table[region].sum()]))


def _classes(table: np.ndarray, judge: Judge) -> np.ndarray:
    """The confusion matrix (K, K) of (R, R): further regions are background."""
    k = len(judge.classes) + 1
    confusion = table[:k, :k].copy()
    confusion[0] += table[k:, :k].sum(0)
    return confusion
