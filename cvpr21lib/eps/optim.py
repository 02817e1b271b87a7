"""The optimiser of stage 1: SGD with four groups of parameters and a polynomial schedule.

The official code hands its weight decay to PyTorch in the place of the momentum. All published numbers were
made so, with a momentum of 0.0005; the 0.9 of the scripts is only the power of the schedule.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cvpr21lib.eps.model import Classifier
from cvpr21lib.errors import InputError

Momentum = Literal["official", "corrected"]


def sgd(
    net: Classifier, lr: float = 0.01, weight_decay: float = 5e-4, momentum: Momentum = "official"
) -> SGD:
    """SGD on the groups of `parameter_groups`; the momentum is 0.0005 ("official") or 0.9 ("corrected")."""
    if momentum not in get_args(Momentum):
        raise InputError(f"momentum is {momentum!r}; expected 'official' (0.0005) or 'corrected' (0.9).")
    groups = parameter_groups(net, lr, weight_decay)
    return SGD(groups, lr, momentum=5e-4 if momentum == "official" else 0.9)


def parameter_groups(net: Classifier, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters in four groups, for any optimiser:

        weights of the backbone    lr
        its biases                 2 lr, no decay
        weights of fc8             10 lr
        its biases                 20 lr, no decay

    Weights have more than one dimension; scale and shift of a norm that is trained count as biases. ResNet38
    and fc8 have no biases, so the second and the last group are empty there (as they are officially).
    """
    groups = []
    for module, factor in ((net.backbone, 1), (net.fc8, 10)):
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        weights = [parameter for parameter in trained if parameter.ndim > 1]
        biases = [parameter for parameter in trained if parameter.ndim <= 1]
        groups.append({"params": weights, "lr": factor * lr, "weight_decay": weight_decay})
        groups.append({"params": biases, "lr": 2 * factor * lr, "weight_decay": 0.0})
    return groups


def poly(optimizer: Optimizer, steps: int, power: float = 0.9) -> LambdaLR:
    """Learning rates times (1 - step / `steps`)^0.9, with `scheduler.step()` after each training step.

    From step `steps` on the rate stays at the last one, (1 / `steps`)^0.9 of the first (official code). In
    the logs of COCO, `steps` is 76,950 and the training goes on to 256,500.
    """
    return LambdaLR(optimizer, lambda step: (1 - min(step, steps - 1) / steps) ** power)
