"""SGD for the network, in which the official backbone learns three times as fast as is written.

The official code collects the backbone's weights by walking through all modules and taking the parameters of
each. So a convolution of a block comes up three times, with its layer, its block and itself, that of a
projection four times, and the stem once: 314 entries for 104 weights. SGD of torch 1.6, which made the
published numbers, did one whole update for each entry. Of the same gradient g, with one momentum buffer v:

    three or four times:    v <- 0.9 v + g + 0.0005 w,    w <- w - lr v

Today's torch warns of such a list and does something else on each device. Here every weight stands in its
group once, and the repetition is a number of the group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cvpr21lib.ctrl_uda.model import CTRL
from cvpr21lib.errors import InputError

BackboneRepeat = Literal["official", "once"]


class RepeatedSGD(SGD):
    """SGD that updates a group `repeat` times in each step (1 unless it says so), with the same gradient."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        if closure is not None:
            raise InputError("RepeatedSGD takes no closure: call backward() before step()")
        groups = self.param_groups
        try:
            for done in range(max(group.get("repeat", 1) for group in groups)):
                self.param_groups = [group for group in groups if group.get("repeat", 1) > done]
                super().step()
        finally:
            self.param_groups = groups
        return None


def sgd(
    net: CTRL,
    lr: float = 2.5e-4,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    backbone_repeat: BackboneRepeat = "official",
) -> RepeatedSGD:
    """SGD on the groups of `parameter_groups`.

    Args:
        backbone_repeat: "official", as in the published runs, or "once", as the paper's text has it.
    """
    groups = parameter_groups(net, lr, backbone_repeat)
    return RepeatedSGD(groups, lr, momentum=momentum, weight_decay=weight_decay)


def parameter_groups(
    net: CTRL, lr: float, backbone_repeat: BackboneRepeat = "official"
) -> list[dict[str, Any]]:
    """The trained weights, each of them once:

    backbone                               lr, in groups by how often the official code lists them
    decoder, head_seg, head_dep, head_srh  10 lr
    """
    if backbone_repeat not in get_args(BackboneRepeat):
        raise InputError(f"backbone_repeat is {backbone_repeat!r}; it can be official or once")
    by_repeat: dict[int, list[nn.Parameter]] = {}
    for name, parameter in net.backbone.named_parameters():
        if parameter.requires_grad:
            times = official_repeat(name) if backbone_repeat == "official" else 1
            by_repeat.setdefault(times, []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": by_repeat[times], "lr": lr, "repeat": times} for times in sorted(by_repeat)
    ]
    for module in (net.decoder, net.head_seg, net.head_dep, net.head_srh):
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if trained:
            groups.append({"params": trained, "lr": 10 * lr, "repeat": 1})
    return groups


def official_repeat(name: str) -> int:
    """How often the official code lists a weight of the backbone: once for each module that it is inside of.

    The modules are those of the name, without the backbone itself and without the last part, which is the
    parameter: "conv1.weight" is in one, "layer3.7.conv2.weight" in three.
    """
    return name.count(".")


def poly(optimizer: Optimizer, max_iters: int, power: float = 0.9) -> LambdaLR:
    """Learning rates times (1 - step / `max_iters`)^`power`; `scheduler.step()` after each training step.

    Training ends before (`early_stop`); from `max_iters` on the rate is 0.
    """
    return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / max_iters) ** power)
