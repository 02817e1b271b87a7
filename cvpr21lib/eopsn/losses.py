"""The losses of section 3: pure functions, each zero where there is nothing to learn from, never NaN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.eopsn.config import PADDING


def classification(logits: Tensor, labels: Tensor, class_weight: Tensor) -> Tensor:
    """Cross-entropy of boxes: logits (R, K), labels (R,), a weight per class (K,).

    Classes that are not discovered yet have weight 0. They are never a label, but stay in the softmax.
    """
    total = F.cross_entropy(logits, labels, class_weight, reduction="sum")
    count = class_weight[labels].sum()
    return total / torch.where(count > 0, count, 1)


def void_negative(logits: Tensor, known: int) -> Tensor:
    """Void suppression: a void proposal is none of the C known classes, whatever it is (official code).

    (1 / V) Σ_v Σ_{c<C} −log(1 − softmax(z_v)_c + 1e-8), of logits z (V, K).
    """
    if not len(logits):
        return logits.sum() * 0
    others = 1 - logits.softmax(1)[:, :known]
    return -(others + 1e-8).log().sum() / len(logits)


def rpn(
    objectness: Tensor, is_object: Tensor, deltas: Tensor, target_deltas: Tensor, most: float = 10.0
) -> tuple[Tensor, Tensor]:
    """Of anchors that are left once negatives in void are dropped: how sure, and where, both at most `most`.

    `objectness` (n,) logits and `is_object` (n,) of all of them, `deltas` and `target_deltas` (p, 4) of the
    positive ones. Both sums are divided by n (official code; detectron2 divides by what it wanted to sample).
    """
    count = max(len(objectness), 1)
    sure = F.binary_cross_entropy_with_logits(objectness, is_object.to(objectness), reduction="sum") / count
    where = F.l1_loss(deltas, target_deltas, reduction="sum") / count
    return sure.clamp(max=most), where.clamp(max=most)


def box_regression(deltas: Tensor, targets: Tensor, count: int) -> Tensor:
    """L1 over known objects (f, 4): the sum, divided by the number `count` of all boxes classified."""
    return F.l1_loss(deltas, targets, reduction="sum") / max(count, 1)


def mask(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over f masks (f, 28, 28) of known objects."""
    if not len(logits):
        return logits.sum() * 0
    return F.binary_cross_entropy_with_logits(logits, targets)


def semantic(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, the mean over the pixels of (N, K, H, W) whose label (N, H, W) is not `PADDING`."""
    total = F.cross_entropy(logits, labels, ignore_index=PADDING, reduction="sum")
    return total / (labels != PADDING).sum().clamp(min=1)
