"""The two losses of EPS, L = L_cls + L_sal, and the saliency that its maps stand for (section 3).

Of the C + 1 softmax maps M, those of labelled classes that lie mostly on salient pixels are summed to the
foreground M_fg, and those of the other labelled classes are added to the background map, M_bg. The estimate
E = λ M_fg + (1 - λ)(1 - M_bg) is drawn to the saliency map S.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.errors import InputError

Selection = Literal["overlap", "naive", "predefined"]

#: Added to each of the h·w pixels of a map when its area is taken (official code).
EPSILON = 1e-4


def classification(pred: Tensor, label: Tensor) -> Tensor:
    """L_cls: binary cross-entropy of the class scores, averaged over images and classes.

    `pred` are logits, (N, C), or (N, C + 1) with the background's, which does not count; `label` (N, C) in
    {0, 1}.
    """
    scores, classes = pred.shape[1], label.shape[1]
    if scores - classes not in (0, 1):
        raise InputError(
            f"there are {scores} scores for labels of {classes} classes; expected as many, or one more for "
            "the background."
        )
    return F.multilabel_soft_margin_loss(pred[:, :classes], label)


def saliency(
    cam: Tensor,
    saliency: Tensor,
    label: Tensor,
    tau: float = 0.4,
    lam: float = 0.5,
    selection: Selection = "overlap",
    background_classes: Sequence[int] = (),
) -> Tensor:
    """L_sal: the mean squared difference between E and S; arguments as in `estimate`."""
    steps = estimate(cam, saliency, label, tau, lam, selection, background_classes)
    return F.mse_loss(steps.estimate, steps.saliency)


def estimate(
    cam: Tensor,
    saliency: Tensor,
    label: Tensor,
    tau: float = 0.4,
    lam: float = 0.5,
    selection: Selection = "overlap",
    background_classes: Sequence[int] = (),
) -> Estimate:
    """The saliency that the maps stand for, with all the steps to it.

    Args:
        cam: logits A (N, C + 1, h, w), the background last.
        saliency: S (N, 1, H, W) in [0, 1], brought to h × w by its nearest pixels (official code).
        label: y (N, C) in {0, 1}.
        tau: τ; a labelled class is foreground if its overlap is *above* it.
        lam: λ, the weight of the foreground in the blend.
        selection: which labelled classes are foreground. "overlap": those above τ (the paper's rule);
            "naive": all; "predefined": all but `background_classes`, indices from 0 (the paper's ablations).
    """
    channels, classes = cam.shape[1], label.shape[1]
    if channels != classes + 1:
        raise InputError(
            f"there are {channels} maps for labels of {classes} classes; expected one more, for the "
            "background, in the end."
        )
    if selection not in get_args(Selection):
        raise InputError(f"selection is {selection!r}; expected one of {', '.join(get_args(Selection))}.")
    with torch.autocast(cam.device.type, enabled=False):  # sums over thousands of pixels need float32
        maps = (cam if cam.dtype == torch.float64 else cam.float()).softmax(1)
        real = saliency.to(maps.dtype)
        if real.shape[-2:] != maps.shape[-2:]:
            real = F.interpolate(real, maps.shape[-2:], mode="nearest")
        labelled = label > 0
        overlap = _overlap(maps.detach(), real)
        valid = labelled & (overlap > tau) if selection == "overlap" else labelled.clone()
        if selection == "predefined":
            valid[:, list(background_classes)] = False
        rejected = labelled & ~valid
        foreground, background = _sides(maps, valid, rejected)
        blend = lam * foreground + (1 - lam) * (1 - background)
    return Estimate(maps, real, overlap, valid, rejected, foreground, background, blend)


class Estimate(NamedTuple):
    """The steps of `estimate`. Gradients flow through the maps, not through the selection."""

    maps: Tensor  # M (N, C + 1, h, w), a distribution at each pixel
    saliency: Tensor  # S (N, 1, h, w)
    overlap: Tensor  # O (N, C) in [0, 1): the share of the class's own pixels that is salient
    valid: Tensor  # (N, C) bool: labelled, and counted to the foreground
    rejected: Tensor  # (N, C) bool: labelled, and counted to the background
    foreground: Tensor  # M_fg (N, 1, h, w)
    background: Tensor  # M_bg (N, 1, h, w)
    estimate: Tensor  # E (N, 1, h, w)


def _overlap(maps: Tensor, saliency: Tensor) -> Tensor:
    """The share of each class map on salient pixels, after both were rounded to 0 or 1 (one half to 0)."""
    binary, salient = maps.round().flatten(2), saliency.round().flatten(2)
    area = binary.sum(2) + EPSILON * binary.shape[2]
    return (torch.bmm(binary, salient.mT).squeeze(2) / area)[:, :-1]


def _sides(maps: Tensor, valid: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    """M_fg and M_bg (N, 1, h, w): sums over the maps of either side, by one product of matrices.

    Unlabelled classes belong to neither.
    """
    background = torch.ones_like(valid[:, :1])
    members = torch.stack([torch.cat([valid, ~background], 1), torch.cat([rejected, background], 1)], 1)
    sums = torch.bmm(members.to(maps.dtype), maps.flatten(2)).unflatten(2, maps.shape[-2:])
    return sums[:, :1], sums[:, 1:]
