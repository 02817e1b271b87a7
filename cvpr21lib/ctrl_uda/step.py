"""One step of adaptation: the source teaches, the target must look like it, a discriminator tells them apart.

For any network that maps images to (semantic, depth, refined), and any discriminator, under
`cvpr21lib.runs`. A batch has

    source  (B, 3, H, W)      images with labels
    label   (B, h, w)         their classes, int64; 255 does not count
    depth   (B, h, w)         their inverse depth
    target  (B, 3, H', W')    images without either

The official order, all of it with the weights that the step began with:

    1. source through the network: L_seg + L_srh + L_depth, backward
    2. target through the network; what the discriminator sees of both domains, F_s and F_t
    3. the discriminator, frozen, is asked for its opinion of F_t: L_adv, backward into the network
    4. the discriminator learns that F_s is source, backward, and that F_t is target, backward
    5. both optimisers step

Here the network steps before 4. That changes nothing, as F_s and F_t are made by then. They are kept without
a graph; the official code builds that of F_s and throws it away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

from cvpr21lib.ctrl_uda import cross_task, losses
from cvpr21lib.ctrl_uda.cross_task import Bins
from cvpr21lib.ctrl_uda.losses import VOID, Domain
from cvpr21lib.runs import Loss, Phase, Step

Part = Literal["semantic", "depth", "refined"]
PARTS: tuple[Part, ...] = ("semantic", "depth", "refined")
Space = Literal["none", "semantic", "weighted", "semantic_depth", "joint"]
SEEN: dict[Space, tuple[Part, ...]] = {
    "none": (),
    "semantic": ("semantic",),
    "weighted": ("semantic", "depth"),
    "semantic_depth": ("semantic", "depth"),
    "joint": PARTS,
}
"""From which parts of a prediction the discriminator's input is made."""


class Method(NamedTuple):
    """What is learnt from the source beside semantics, and in which space the domains are aligned."""

    depth: bool
    refined: bool
    space: Space


METHODS = {
    "source": Method(depth=False, refined=False, space="none"),
    "mtl": Method(depth=True, refined=True, space="none"),
    "advent": Method(depth=False, refined=False, space="semantic"),
    "mtl+advent": Method(depth=True, refined=True, space="semantic"),
    "dada": Method(depth=True, refined=False, space="weighted"),
    "ctrl-no-srh": Method(depth=True, refined=False, space="semantic_depth"),
    "ctrl": Method(depth=True, refined=True, space="joint"),
}
"""The paper's method and its baselines. Without an adversary nothing sees the target, not even batch norm."""


@dataclass(frozen=True)
class Adaptation:
    """The losses of a step, in the phases in which `cvpr21lib.runs` minimises them."""

    method: Method
    bins: Bins
    lambda_seg: float = 1.0
    lambda_srh: float = 1.0
    lambda_depth: float = 1e-3
    lambda_adv: float | Callable[[int], float] = 1e-3
    """A function gets the number of the step, from 0. At 0 only the discriminator learns from the target."""
    align_at: Literal["input", "head"] = "input"
    """Size of what the discriminator sees: that of the image (official), or that of the network's output."""
    net: str = "net"
    discriminator: str = "discriminator"

    def phases(self) -> list[Phase]:
        """For the network, and for the discriminator if the method has one."""
        found = [Phase(self.net, self.network)]
        if self.method.space != "none":
            found.append(Phase(self.discriminator, self.judgement))
        return found

    def network(self, step: Step) -> Iterator[Loss]:
        """The network's losses: on the source, then on the target. Leaves F_s and F_t in the memo.

        Each may be propagated back before the next one is asked for, so that the activations of one domain
        only are in memory.
        """
        yield self._on_source(step)
        if self.method.space != "none":
            yield from self._on_target(step)

    def judgement(self, step: Step) -> Iterator[Loss]:
        """The discriminator's losses on F_s and F_t; each counts in full (official: they are not halved)."""
        domains: tuple[Domain, Domain] = ("source", "target")
        for domain in domains:
            logits = step.networks[self.discriminator](step.memo[f"F_{domain}"])
            yield Loss({f"d_{domain}": losses.adversarial(logits, domain)})

    def _on_source(self, step: Step) -> Loss:
        """λ_seg·CE(P) + λ_depth·berHu(D) + λ_srh·CE(R), as far as the method has them."""
        batch, label = step.batch, step.batch["label"]
        sized = Sized(step.networks[self.net](batch["source"]))
        terms = {"seg": self.lambda_seg * losses.cross_entropy(sized("semantic", label), label)}
        if self.method.depth:
            depth = losses.berhu(sized("depth", batch["depth"]), batch["depth"])
            terms["depth"] = self.lambda_depth * depth
        if self.method.refined:
            terms["srh"] = self.lambda_srh * losses.cross_entropy(sized("refined", label), label)
        if self.method.space != "none":
            with torch.no_grad():
                step.memo["F_source"] = self.seen(sized, batch["source"])
        return Loss(terms)

    def _on_target(self, step: Step) -> Iterator[Loss]:
        """λ_adv·L_adv: the discriminator shall take F_t for the source's."""
        image, weight = step.batch["target"], self.lambda_adv
        if not isinstance(weight, (int, float)):
            weight = weight(step.number)
        with torch.set_grad_enabled(weight > 0):
            prediction = step.networks[self.net](image)
            seen = self.seen(Sized(prediction), image)
        step.memo["F_target"] = seen.detach()
        if weight > 0:
            logits = step.networks[self.discriminator](seen)
            yield Loss({"adv": weight * losses.adversarial(logits, "source") + _untouched(prediction)})

    def seen(self, sized: Sized, image: Tensor) -> Tensor:
        """F, what the discriminator sees of a prediction: (B, F, h, w); `channels` says how many F."""
        space = self.method.space
        like = image if self.align_at == "input" else None
        parts = {part: sized(part, like) for part in SEEN[space]}
        if space == "weighted":
            return cross_task.dada_map(parts["semantic"], parts["depth"])
        return cross_task.joint_map(**parts, bins=self.bins)


@dataclass(frozen=True)
class SelfLearning:
    """Steps of self-learning: cross-entropy on the target with its pseudo-labels, officially nothing else.

    The heads of depth and refinement get no gradient.
    """

    labels: Callable[[Step], Tensor]
    """The batch's pseudo-labels (B, h, w), int64; 255 where the network was not sure."""
    keep_source: bool = False
    """Keep learning semantics from the source, too."""
    net: str = "net"

    def phases(self) -> list[Phase]:
        return [Phase(self.net, self.network)]

    def network(self, step: Step) -> Iterator[Loss]:
        """Source, if it is kept, then target. `labelled` is the share of pixels with a pseudo-label."""
        network, batch = step.networks[self.net], step.batch
        if self.keep_source:
            label = batch["label"]
            source = Sized(network(batch["source"]))
            yield Loss({"seg": losses.cross_entropy(source("semantic", label), label)})
        label = self.labels(step)
        target = Sized(network(batch["target"]))
        loss = losses.cross_entropy(target("semantic", label), label)
        yield Loss({"pseudo": loss}, {"labelled": (label != VOID).float().mean()})


def channels(method: Method, num_classes: int, num_bins: int) -> int:
    """Of the discriminator's input; 0 without an adversary."""
    widths = {"semantic": num_classes, "depth": num_bins, "refined": num_classes}
    return num_classes if method.space == "weighted" else sum(widths[part] for part in SEEN[method.space])


class Sized:
    """A prediction at any size: bilinear, corner to corner (align_corners), each size made once."""

    def __init__(self, prediction: tuple[Tensor, Tensor, Tensor]) -> None:
        self._whole = dict(zip(PARTS, prediction, strict=True))
        self._made: dict[tuple[Part, torch.Size], Tensor] = {}

    def __call__(self, part: Part, like: Tensor | None = None) -> Tensor:
        """The part, as high and wide as `like`, or as it is."""
        whole = self._whole[part]
        size = (whole if like is None else like).shape[-2:]
        if size == whole.shape[-2:]:
            return whole
        if (part, size) not in self._made:
            self._made[part, size] = F.interpolate(whole, size, mode="bilinear", align_corners=True)
        return self._made[part, size]


def _untouched(prediction: tuple[Tensor, Tensor, Tensor]) -> Tensor | float:
    """0, with a gradient of 0 for every part: many devices wait for that of each parameter."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0.0
    return torch.stack([0 * part.sum() for part in prediction if part.requires_grad]).sum()
