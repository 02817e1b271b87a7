"""EPS and its baseline: one 1×1 convolution on the features of any backbone.

A backbone is any module that makes features (N, channels, h, w) of images (N, 3, H, W), and has `channels`.
In the paper it is `ResNet38`, with which the names in a state dict are those of the official checkpoints.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from cvpr21lib import checkpoints
from cvpr21lib.eps.resnet38 import ResNet38, with_counters
from cvpr21lib.errors import InputError

Method = Literal["eps", "cls"]


class Classifier(nn.Module, ABC):
    """A backbone and the linear maps `fc8` of its features, without bias."""

    def __init__(self, backbone: nn.Module, num_classes: int, outputs: int) -> None:
        super().__init__()
        self.backbone, self.num_classes = backbone, num_classes
        self.fc8 = nn.Conv2d(backbone.channels, outputs, 1, bias=False)  # type: ignore[arg-type]
        nn.init.xavier_uniform_(self.fc8.weight)
        self.register_state_dict_post_hook(_leave_backbone_out)
        self.register_load_state_dict_pre_hook(_put_backbone_in)

    @abstractmethod
    def class_maps(self, image: Tensor, classes: Tensor | None = None) -> Tensor:
        """What pseudo-masks are made of: (N, 3, H, W) to (N, C, h, w), not negative, in evaluation mode.

        `classes` (K,) int64 asks for some of the C only: (N, K, h, w).
        """


class CAM(Classifier):
    """The baseline: a classifier of the C classes, whose weights also tell where it sees them."""

    def __init__(self, backbone: nn.Module, num_classes: int = 20, dropout: float = 0.5) -> None:
        super().__init__(backbone, num_classes, outputs=num_classes)
        self.dropout7 = nn.Dropout2d(dropout)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores (N, C), logits, of images (N, 3, H, W)."""
        features = self.dropout7(self.backbone(image))
        return self.fc8(features.mean((2, 3), keepdim=True)).flatten(1)

    def class_maps(self, image: Tensor, classes: Tensor | None = None) -> Tensor:
        weight = self.fc8.weight if classes is None else self.fc8.weight[classes]
        return F.relu(F.conv2d(self.backbone(image), weight))


class EPS(Classifier):
    """The paper's network: a map for each of the C classes and, last, one for the background (section 3)."""

    def __init__(self, backbone: nn.Module, num_classes: int = 20) -> None:
        super().__init__(backbone, num_classes, outputs=num_classes + 1)

    def forward(self, image: Tensor) -> Output:
        """The scores and maps of images (N, 3, H, W)."""
        cam = self.fc8(self.backbone(image))
        return Output(cam.mean((2, 3)), cam)

    def probabilities(self, image: Tensor) -> Tensor:
        """The softmax over classes and background at every pixel, (N, C + 1, h, w)."""
        return self.forward(image).cam.softmax(1)

    def class_maps(self, image: Tensor, classes: Tensor | None = None) -> Tensor:
        maps = self.probabilities(image)
        return maps[:, :-1] if classes is None else maps[:, classes]


class Output(NamedTuple):
    """What `EPS` returns, logits; the background is the last of the C + 1."""

    pred: Tensor  # (N, C + 1), the mean of the maps over the pixels
    cam: Tensor  # (N, C + 1, h, w), the maps A


def load_official(path: str | Path, method: Method | None = None) -> EPS | CAM:
    """Read a stage-1 checkpoint in the official layout (`checkpoint_cls.pth`) for inference.

    The width is read off the weights, and so is the method for VOC (20 or 21 outputs) and COCO (80 or 81);
    for other data say whether it is "eps" or "cls" (the baseline). A file that does not fit is an
    `InputError` that says how.
    """
    state = checkpoints.load(path)
    if not {"conv1a.weight", "fc8.weight"} <= state.keys():
        raise InputError(
            f"{path} does not hold a stage-1 network of EPS: it has no conv1a.weight or no fc8.weight, "
            f"but {', '.join(list(state)[:3])}, ...; look for checkpoint_cls.pth."
        )
    outputs, stem = len(state["fc8.weight"]), len(state["conv1a.weight"])
    method = method or _method(outputs, path)
    if not stem or 64 % stem:
        raise InputError(f"{path} has a stem of {stem} channels; ResNet38 has 64, or a divisor of 64.")
    backbone = ResNet38(width_div=64 // stem)
    net = EPS(backbone, outputs - 1) if method == "eps" else CAM(backbone, outputs)
    checkpoints.fit(net, with_counters(state), source=str(path))
    return net.eval()


def _method(outputs: int, path: str | Path) -> Method:
    if outputs not in (20, 21, 80, 81):
        raise InputError(
            f"{path} has {outputs} outputs, unlike VOC (20 or 21) and COCO (80 or 81): say whether it is "
            "method='eps' (the last one is the background) or 'cls'."
        )
    return "eps" if outputs % 2 else "cls"


def _leave_backbone_out(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Official names have no "backbone." in front."""
    inner = prefix + "backbone."
    for name in list(state):  # every entry moves, so that the order stays
        state[prefix + name.removeprefix(inner) if name.startswith(inner) else name] = state.pop(name)


def _put_backbone_in(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(prefix) and name != prefix + "fc8.weight"]:
        state[prefix + "backbone." + name.removeprefix(prefix)] = state.pop(name)
