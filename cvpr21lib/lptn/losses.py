"""Losses of LPTN (section 3.4 of the paper, and all that the official code offers), one function each.

The released training minimises, with x the source, G its translation and D the critic,

    generator:  1000 * mse(G(x), x) + adversarial(D(G(x)))          the source itself is the target: unpaired
    critic:     mean D(G(x)) - mean D(target) + 100 * gradient_penalty

Everything here is a pure function; weights of the terms belong to the recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.errors import InputError

Reduction = Literal["mean", "sum", "none"]
Kind = Literal["standard", "vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"]


def mse(pred: Tensor, target: Tensor, weight: Tensor | None = None, reduction: Reduction = "mean") -> Tensor:
    """Squared error of (N, C, H, W), reduced as `reduce` says."""
    return reduce(F.mse_loss(pred, target, reduction="none"), weight, reduction)


def l1(pred: Tensor, target: Tensor, weight: Tensor | None = None, reduction: Reduction = "mean") -> Tensor:
    """Absolute error of (N, C, H, W), reduced as `reduce` says."""
    return reduce(F.l1_loss(pred, target, reduction="none"), weight, reduction)


def charbonnier(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    eps: float = 1e-12,
) -> Tensor:
    """sqrt(error^2 + eps) of (N, C, H, W): absolute error, smooth at zero; reduced as `reduce` says."""
    return reduce(torch.sqrt((pred - target) ** 2 + eps), weight, reduction)


def reduce(error: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    """Weigh `error` (N, C, H, W) by `weight` (N, C or 1, H, W) and reduce it.

    "mean" divides by the sum of the weights (times C where `weight` has one channel); "sum" and "none" do
    not divide.
    """
    if reduction not in ("mean", "sum", "none"):
        raise InputError(f"reduction is {reduction!r}; expected 'mean', 'sum' or 'none'.")
    if weight is not None:
        error = error * weight
    if reduction == "none":
        return error
    if reduction == "sum":
        return error.sum()
    return error.mean() if weight is None else error.sum() / weight.expand_as(error).sum()


def total_variation(pred: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference of neighbours, down plus right, of (N, C, H, W).

    A pair is weighed by its upper or left pixel's `weight` (N, C or 1, H, W).
    """

    def differences(first: tuple[slice, ...], second: tuple[slice, ...]) -> Tensor:
        return l1(pred[first], pred[second], None if weight is None else weight[first])

    every, front, back = slice(None), slice(None, -1), slice(1, None)
    return differences((every, every, front), (every, every, back)) + differences(
        (every, every, every, front), (every, every, every, back)
    )


def adversarial(
    logits: Tensor | list[Tensor], real: bool, for_discriminator: bool, kind: Kind = "standard"
) -> Tensor:
    """What `logits` cost the one who wanted them `real` (True) or not (False).

    For the critic call it once on D(target) with `real=True` and once on D(fake) with `real=False`; for the
    generator once on D(fake) with `real=True`. `kind`:

    - "standard", "wgan" (Wasserstein): the mean, negated where high is wanted. The released training is
      "standard", which always negates for the generator;
    - "wgan_softplus": softplus in place of the identity; "vanilla": binary cross-entropy; "lsgan": squared
      distance to 1 or 0; "hinge": mean relu(1 - x) or relu(1 + x), and -mean for the generator.

    The logits of several scales are averaged over the scales (our choice; the official code never sums them).
    The official class multiplies its weight into the generator's calls alone: multiply outside, only there.
    """
    if kind not in _LOSSES:
        raise InputError(f"kind is {kind!r}; expected one of {', '.join(_LOSSES)}.")
    if isinstance(logits, list):
        return torch.stack([adversarial(scale, real, for_discriminator, kind) for scale in logits]).mean()
    if not for_discriminator and kind in ("standard", "hinge"):
        return -logits.mean()
    return _LOSSES[kind](logits, real)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, alpha: Tensor
) -> Tensor:
    """mean over samples of (|dD/dx| - 1)^2 at x = alpha * real + (1 - alpha) * fake.

    `real`, `fake` (N, 3, H, W); `alpha` (N, 1, 1, 1), drawn uniformly from [0, 1) by the caller. The norm is
    over all inputs of a sample. The result can be differentiated with respect to D's parameters (and to
    `fake` where that carries a graph, as in the official code; detach it to leave the generator out).
    """
    mixed = alpha * real + (1 - alpha) * fake
    if not mixed.requires_grad:
        mixed.requires_grad_(True)
    logits = discriminator(mixed)
    (gradient,) = torch.autograd.grad(logits.sum(), mixed, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def _wasserstein(logits: Tensor, real: bool) -> Tensor:
    return -logits.mean() if real else logits.mean()


def _softplus(logits: Tensor, real: bool) -> Tensor:
    return F.softplus(-logits if real else logits).mean()


def _cross_entropy(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def _least_squares(logits: Tensor, real: bool) -> Tensor:
    return F.mse_loss(logits, torch.full_like(logits, float(real)))


def _hinge(logits: Tensor, real: bool) -> Tensor:
    return F.relu(1 - logits if real else 1 + logits).mean()


_LOSSES: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "standard": _wasserstein,
    "vanilla": _cross_entropy,
    "lsgan": _least_squares,
    "wgan": _wasserstein,
    "wgan_softplus": _softplus,
    "hinge": _hinge,
}
