"""From boxes and their scores to detections: known classes, and whatever is unknown.

How an unknown object is recognised depends on what the network has learnt:

    EOPSN         its discovered classes have logits; all of them are one category, "unknown"
    baselines     no known class scores, and the RPN is sure that there is something
    void-train    the same, and void is the most probable class
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from cvpr21lib.eopsn import boxes as box
from cvpr21lib.eopsn.config import UNKNOWN, Config


class Detections(NamedTuple):
    """Of one image, the most certain first; in the baselines all known ones come before the unknown ones."""

    boxes: Tensor  # (n, 4)
    scores: Tensor  # (n,), in [0, 1]
    labels: Tensor  # (n,) int64, 0 .. C - 1, or UNKNOWN
    logit: Tensor  # (n,) int64, the index of the logit: which of the discovered classes it is, in EOPSN

    def take(self, chosen: Tensor) -> Detections:
        """Those of an index (m,) or a mask (n,)."""
        return Detections(*(field[chosen] for field in self))


def detect(
    boxes: Tensor,
    logits: Tensor,
    objectness: Tensor,
    size: tuple[int, int],
    config: Config,
    official: bool = False,
) -> Detections:
    """Detections among n `boxes` (n, 4) with `logits` (n, K) in an image of `size` (height, width).

    `objectness` (n,) are the RPN's logits. With `official`, the first discovered class does not compete with
    the other unknowns for the same place, as in the released code: its index is compared with one that is
    off by one.
    """
    boxes = box.clip(boxes, size)
    valid = box.has_area(boxes) & logits.isfinite().all(1) & ~objectness.isnan()
    boxes, objectness = boxes[valid], objectness[valid]
    probabilities = logits[valid].softmax(1)
    if config.unknown:
        return _with_discovered(boxes, probabilities, config, official)
    return _with_objectness(boxes, probabilities, objectness.sigmoid(), config)


def _with_discovered(boxes: Tensor, probabilities: Tensor, config: Config, official: bool) -> Detections:
    """One competition of all classes, in which those that were discovered are one."""
    scores = probabilities.clone()
    scores[:, config.background] = 0
    row, logit = (scores > config.score_threshold).nonzero(as_tuple=True)
    labels = torch.where(logit < config.known, logit, UNKNOWN)
    group = torch.where(logit == config.first_unknown, logit, labels) if official else labels
    found = Detections(boxes[row], scores[row, logit], labels, logit)
    keep = batched_nms(found.boxes, found.scores, group, config.detection_nms)
    return found.take(keep[: config.detections])


def _with_objectness(boxes: Tensor, probabilities: Tensor, objectness: Tensor, config: Config) -> Detections:
    """Known classes first; then, in what room is left, objects that belong to none of them."""
    scores = probabilities[:, : config.known]
    certain = scores > config.score_threshold
    row, logit = certain.nonzero(as_tuple=True)
    known = Detections(boxes[row], scores[row, logit], logit, logit)
    keep = batched_nms(known.boxes, known.scores, logit, config.detection_nms)
    known = known.take(keep[: config.detections])

    is_unknown = ~certain.any(1) & (objectness > config.objectness_threshold)
    if config.void_mode == "train":
        is_unknown &= probabilities.argmax(1) == config.known
    boxes, objectness = boxes[is_unknown], objectness[is_unknown]
    keep = nms(boxes, objectness, config.detection_nms)[: config.detections // 2]
    label = torch.full_like(keep, UNKNOWN)
    unknown = Detections(boxes[keep], objectness[keep], label, label)
    both = (torch.cat(pair)[: config.detections] for pair in zip(known, unknown, strict=True))
    return Detections(*both)
