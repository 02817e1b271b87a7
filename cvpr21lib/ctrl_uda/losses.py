"""The losses of CTRL-UDA (section 3), each a mean over pixels.

The network minimises, on the source s and the target t,

    L = CE(P_s, y) + CE(R_s, y) + 0.001 · berHu(D_s, d) + 0.001 · BCE(Dsc(F_t), source)

with the discriminator Dsc frozen, and the discriminator BCE(Dsc(F_s), source) + BCE(Dsc(F_t), target). Where
there is nothing to learn from, a loss is 0 with zero gradient; the official code's are NaN there.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation.masks import VOID

Domain = Literal["source", "target"]


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """L_sem and L_srh: -log softmax(logits)_y, averaged over the pixels with a class y.

    `logits` (N, C, H, W), `label` int64 (N, H, W). 255 and negative labels do not count.

    Raises:
        InputError: a label that is no class, or sizes that differ.
    """
    classes = logits.shape[1]
    if label.shape != (len(logits), *logits.shape[2:]):
        raise InputError(
            f"the labels have the shape {tuple(label.shape)} and the logits {tuple(logits.shape)}; "
            "expected (N, H, W) and (N, C, H, W): resize the logits to the labels first."
        )
    counts = (label >= 0) & (label != VOID)
    strange = label[counts & (label >= classes)]
    if len(strange):
        found = ", ".join(str(value) for value in strange.unique().tolist()[:5])
        raise InputError(
            f"the labels hold {found}; expected classes 0 to {classes - 1}, and {VOID} for void: "
            "was the data set's table of classes applied?"
        )
    total = F.cross_entropy(
        _at_least_float32(logits), label.masked_fill(~counts, VOID), ignore_index=VOID, reduction="sum"
    )
    return total / counts.sum().clamp(min=1)


def berhu(pred: Tensor, target: Tensor) -> Tensor:
    """L_dep: the reversed Huber loss of inverse depth, over all pixels (the sky, too).

    With Δ = |pred - target| and τ = max Δ / 5 over the whole batch, a constant: Δ up to τ, and above it
    (Δ² + τ²) / 2τ. `pred` (N, 1, H, W) or (N, H, W), of any sign; `target` (N, H, W).
    """
    pred = pred[:, 0] if pred.ndim == 4 and pred.shape[1] == 1 else pred
    if pred.shape != target.shape:
        raise InputError(
            f"the predicted depth has the shape {tuple(pred.shape)} and its target {tuple(target.shape)}; "
            "expected one value a pixel in both: resize the prediction first."
        )
    error = (_at_least_float32(pred) - target).abs()
    tau = 0.2 * error.detach().max().clamp(min=torch.finfo(error.dtype).tiny)  # equal maps: 0 / tiny
    return torch.where(error <= tau, error, (error * (error / tau) + tau) / 2).mean()


def adversarial(logits: Tensor, domain: Domain) -> Tensor:
    """BCE between what the discriminator says, logits of any shape, and a domain: 0 is source, 1 target.

    -log(1 - sigmoid(logits)) for source and -log sigmoid(logits) for target, averaged.
    """
    if domain not in get_args(Domain):
        raise InputError(f"the domain is {domain!r}; expected {' or '.join(get_args(Domain))}.")
    logits = _at_least_float32(logits)
    return -F.logsigmoid(logits if domain == "target" else -logits).mean()


def discriminator(source: Tensor, target: Tensor) -> Tensor:
    """What the discriminator minimises, from its logits for either domain; both halves count in full."""
    return adversarial(source, "source") + adversarial(target, "target")


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
