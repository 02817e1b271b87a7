"""Targeted attacks on a hash network behind one interface, so that all are measured alike.

    adversarial = attack(victim, images, targets)

Threat model: white box (the victim's gradients are known), digital (pixels are changed at will), for images
in [0, 1] and target labels of the attacker's choice. What is studied is how far a retrieval service can be
led astray, on victims that the reader trains; `targets.draw` makes the one list for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan.generator import Generator
from cvpr21lib.prosgan.prototype import PrototypeNet
from cvpr21lib.prosgan.targets import Targets
from cvpr21lib.sampling import mix

EPSILON = 8 / 255
"""Official bound of the iterative attacks. ProS-GAN has none."""


class Hasher(Protocol):
    """A victim: images (N, C, H, W) in [0, 1] to tanh(alpha z) (N, K); a `victims.Victim`, or any such."""

    def __call__(self, images: Tensor, alpha: float = ..., /) -> Tensor: ...


class Attack(Protocol):
    """Images (N, C, H, W) in [0, 1] and a target for each, to attacking images of the same shape and range.

    The result for an image depends on it and its target, not on the rest of the batch (except for
    `Iterative` with the official `batch_mean`). It carries no gradient, and the victim is left as it was.
    """

    def __call__(self, victim: Hasher, images: Tensor, targets: Targets) -> Tensor: ...


Aim = Callable[[Targets], Tensor]
"""Says which code (N, K) an image with such a target should get."""


@dataclass(frozen=True)
class Noise:
    """Uniform noise in [-epsilon, epsilon], the control: it knows neither victim nor target."""

    epsilon: float = EPSILON
    seed: int = 0

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)

    def __call__(self, victim: Hasher, images: Tensor, targets: Targets) -> Tensor:
        _check(images, targets)
        noise = torch.stack([self._noise(images.shape[1:], int(number)) for number in targets.numbers])
        return (images + self.epsilon * noise.to(images)).clamp(0, 1)

    def _noise(self, shape: torch.Size, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(mix(self.seed, "noise", number))
        return torch.rand(shape, generator=generator) * 2 - 1


@dataclass(frozen=True)
class Iterative:
    """Gradient steps on delta, |delta| <= epsilon, that turn tanh(alpha z(x + delta)) toward the aim's code.

    L = -(1/K) sum_k u_k b_k, delta <- clip(delta - step grad L): the plain gradient, not its sign (official).
    `p2p`, `dhta` and `toward_prototype` differ in their aim alone.

    Args:
        aim: gives the code b.
        epsilon: the bound, in units of [0, 1].
        steps: T; officially 2000 (100 in the faster rows).
        step: its length. As L is summed over the batch, 1/32 is the official 1 on its batches of 32.
        batch_mean: take the mean of L over the batch as the official code does, whose steps so shrink with
            the batch (give `step` = 1 then): an image's result depends on how many others came with it.
    """

    aim: Aim
    epsilon: float = EPSILON
    steps: int = 2000
    step: float = 1 / 32
    batch_mean: bool = False

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)
        if self.steps < 0 or not self.step > 0:
            raise InputError(f"steps is {self.steps} and step {self.step}; expected at least 0, and above 0.")

    @torch.no_grad()
    def __call__(self, victim: Hasher, images: Tensor, targets: Targets) -> Tensor:
        _check(images, targets)
        code = self.aim(targets).to(images)
        delta = torch.zeros_like(images)
        with frozen(victim):
            for t in range(self.steps if self.epsilon > 0 else 0):
                gradient = self._gradient(victim, images, delta, code, alpha(t))
                delta = (delta - self.step * gradient).clamp_(-self.epsilon, self.epsilon)
                delta = (images + delta).clamp_(0, 1).sub_(images)
        return (images + delta).clamp_(0, 1)

    def _gradient(self, victim: Hasher, images: Tensor, delta: Tensor, code: Tensor, slope: float) -> Tensor:
        with torch.enable_grad():
            delta.requires_grad_()
            agreement = (victim(images + delta, slope) * code).mean(1)
            loss = -(agreement.mean() if self.batch_mean else agreement.sum())
            (gradient,) = torch.autograd.grad(loss, delta)
        return gradient


def p2p(codes: Tensor, **settings: Any) -> Iterative:
    """Point to point: the aim is the code of one database image of the target label; `codes` (N, K)."""
    return Iterative(Anchor(codes, 1), **settings)


def dhta(codes: Tensor, **settings: Any) -> Iterative:
    """DHTA (Bai et al., ECCV 2020): the aim is the `vote` of the target's n_t database codes."""
    return Iterative(Anchor(codes), **settings)


def toward_prototype(prototype_net: PrototypeNet, **settings: Any) -> Iterative:
    """The ablation between DHTA and ProS-GAN: gradient steps, but toward the prototype code."""
    return Iterative(PrototypeAim(prototype_net), **settings)


@dataclass(frozen=True)
class Anchor:
    """An aim: the vote of the first `voters` (None: all) of the target's database codes, `codes` (N, K)."""

    codes: Tensor
    voters: int | None = None

    def __call__(self, targets: Targets) -> Tensor:
        picks = targets.picks[:, : self.voters]
        if picks.shape[1] < (self.voters or 1):
            raise InputError(
                f"the targets carry {picks.shape[1]} database images each, but the anchor needs "
                f"{self.voters or 1}; draw them with `targets.draw`."
            )
        if len(picks) and int(picks.max()) >= len(self.codes):
            raise InputError(
                f"a target refers to image {int(picks.max())} of the database, but there are "
                f"{len(self.codes)} codes; draw the targets from the labels of the same database."
            )
        return vote(self.codes[picks.to(self.codes.device)])


@dataclass(frozen=True)
class PrototypeAim:
    """An aim: the prototype code of the target's label."""

    prototype_net: PrototypeNet

    def __call__(self, targets: Targets) -> Tensor:
        return self.prototype_net.code(_labels_for(self.prototype_net, targets))


def vote(codes: Tensor) -> Tensor:
    """The anchor code (N, K) of codes (N, n_t, K): bit by bit what most of them have, 0 where they are even.

    It minimises the mean Hamming distance to them. A bit of 0 asks for nothing.
    """
    return codes.float().sum(1).sign()


def alpha(t: int) -> float:
    """Slope of tanh at step t (official): 0.1 for a thousand steps, so that gradients last, then up to 1."""
    return next((value for before, value in _ALPHA if t < before), 1.0)


_ALPHA = ((1000, 0.1), (1200, 0.2), (1400, 0.3), (1600, 0.5), (1800, 0.7))


@dataclass(frozen=True)
class ProSGAN:
    """One pass of the generator, steered by the label's feature.

    Args:
        generator, prototype_net: trained for one victim.
        epsilon: None is official: what bounds the change is what the generator learned. Otherwise the result
            is projected to the L-infinity ball of that radius (ours).
    """

    generator: Generator
    prototype_net: PrototypeNet
    epsilon: float | None = None

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            _check_epsilon(self.epsilon)

    @torch.no_grad()
    def __call__(self, victim: Hasher, images: Tensor, targets: Targets) -> Tensor:
        _check(images, targets)
        labels, which = _labels_for(self.prototype_net, targets).unique(dim=0, return_inverse=True)
        with frozen(self.generator), frozen(self.prototype_net):
            # a map depends on the label alone: each label of the batch is decoded once
            maps = self.generator.label_map(self.prototype_net(labels).feature)
            attacking = (self.generator.with_map(2 * images - 1, maps[which]) + 1) / 2
        return attacking if self.epsilon is None else project(attacking, images, self.epsilon)


def project(attacking: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """The nearest images in [0, 1] whose pixels differ from `images` by at most `epsilon`.

    Differentiable, so that a generator can be trained through it.
    """
    return (images + (attacking - images).clamp(-epsilon, epsilon)).clamp(0, 1)


@contextmanager
def frozen(network: object) -> Iterator[None]:
    """Evaluation mode, and no gradients for parameters; afterwards all is as before. Others pass untouched.

    The official attack lets the victim's unused gradients be computed at every step, which costs it about as
    much again.
    """
    if not isinstance(network, nn.Module):
        yield
        return
    training = {module: module.training for module in network.modules()}
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        network.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter in learning:
            parameter.requires_grad_(True)


def _labels_for(prototype_net: PrototypeNet, targets: Targets) -> Tensor:
    return targets.labels.to(next(prototype_net.parameters()))


def _check(images: Tensor, targets: Targets) -> None:
    if images.ndim != 4 or not len(images) == len(targets) > 0:
        raise InputError(
            f"images of the shape {tuple(images.shape)} and {len(targets)} targets; "
            "expected (N, C, H, W), N at least 1, and a target for each."
        )
    if not images.is_floating_point() or not ((images >= 0) & (images <= 1)).all():
        raise InputError(
            f"images of {images.dtype} with values that are not all in [0, 1]; attacks work on "
            "floating-point images in [0, 1]."
        )


def _check_epsilon(epsilon: float) -> None:
    if not 0 <= epsilon <= 1 or math.isnan(epsilon):
        raise InputError(
            f"epsilon is {epsilon}; expected the largest change of a pixel in [0, 1], as 8 / 255 "
            "(0 changes nothing)."
        )
