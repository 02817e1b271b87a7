"""The hash networks under study: torchvision's classifiers with K outputs in place of 1000, and a tanh."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as transforms

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan.hashing import Continuation, Method

Backbone = Literal["AlexNet", "VGG11", "VGG16", "VGG19", "ResNet18", "ResNet50"]


class Victim(nn.Module):
    """Images (N, 3, H, W), RGB in [0, 1], to outputs u (N, K) in (-1, 1), whose signs are the code.

    u = tanh(alpha z), or tanh(alpha scale z) for HashNet. ImageNet's mean and deviation are *not* taken off,
    though the weights expect it (official code). Official images are `preprocess`ed to 224 x 224; with
    torchvision's adaptive pooling other sizes pass, too.

    Args:
        backbone: official are those of `Backbone`.
        bits: K; official 12, 24, 32 and 48.
        method: by which it is trained: HashNet's scale grows in training, and its last layer starts smaller.
        width_div: divides every number of channels, 64 at most; 1 is official, others suit small experiments.
        pretrained: start from torchvision's ImageNet weights, as the official training does.
    """

    def __init__(
        self,
        backbone: Backbone = "VGG11",
        bits: int = 32,
        method: Method = "DPSH",
        width_div: int = 1,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        for name, value, kinds in (("backbone", backbone, Backbone), ("method", method, Method)):
            if value not in get_args(kinds):
                raise InputError(f"{name} is {value!r}; it can be {', '.join(get_args(kinds))}.")
        if bits < 1:
            raise InputError(f"bits is {bits}; a code has at least 1.")
        if width_div < 1 or 64 % width_div or (pretrained and width_div > 1):
            raise InputError(
                f"width_div is {width_div}; expected a divisor of 64, and 1 with ImageNet's weights."
            )
        self.net = _classifier(backbone, width_div)
        if pretrained:
            self.net.load_state_dict(_imagenet(backbone))
        self._replace_last(bits, small=method == "HashNet" or backbone.startswith("ResNet"))
        self.continuation = Continuation() if method == "HashNet" else None

    def forward(self, images: Tensor, alpha: float = 1.0) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"images of the shape {tuple(images.shape)}; expected RGB images (N, 3, H, W) in [0, 1]."
            )
        z = self.net(images)
        if self.continuation is not None:
            z = self.continuation(z)
        return torch.tanh(alpha * z)

    def _replace_last(self, bits: int, small: bool) -> None:
        holder, name = (self.net, "fc") if hasattr(self.net, "fc") else (self.net.classifier, "6")
        last = nn.Linear(getattr(holder, name).in_features, bits)
        if small:
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)
        setattr(holder, name, last)


def preprocess(image: Image.Image | np.ndarray) -> Tensor:
    """An RGB image, PIL or uint8 (H, W, 3), as the victims see it: float32 (3, 224, 224) in [0, 1].

    The shorter side becomes 256 (bilinear, antialiased), and the centre is cut out (official).
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"an image of {image.dtype} values and the shape {image.shape}; expected RGB, (H, W, 3)."
            )
        image = Image.fromarray(image)
    if image.mode != "RGB":
        raise InputError(f"the image's mode is {image.mode}; convert it to RGB first.")
    return transforms.to_tensor(transforms.center_crop(transforms.resize(image, [256]), [224]))


def _classifier(backbone: str, width_div: int) -> nn.Module:
    make = getattr(torchvision.models, backbone.lower())
    if width_div == 1:
        return make()
    with torch.device("meta"):  # holds shapes, no numbers: nothing is made at full width
        net = make()
    for parent in list(net.modules()):
        for name, layer in parent.named_children():
            setattr(parent, name, _narrowed(layer, width_div))
    return net


def _narrowed(layer: nn.Module, by: int) -> nn.Module:
    """A layer as `layer`, with a `by`-th of its channels (an image keeps its 3)."""
    if isinstance(layer, nn.Conv2d):
        inputs = layer.in_channels if layer.in_channels == 3 else layer.in_channels // by
        convolution = nn.Conv2d(
            inputs,
            layer.out_channels // by,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            bias=layer.bias is not None,
        )
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        return convolution
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(layer.num_features // by)
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features // by, layer.out_features // by)
    return layer


def _imagenet(backbone: str) -> dict[str, Tensor]:
    """Torchvision's ImageNet weights: from its cache, or fetched (45 to 550 MB)."""
    entry = torchvision.models.get_model_weights(backbone.lower()).IMAGENET1K_V1
    try:
        return entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
        raise InputError(
            f"the ImageNet weights of {backbone} are not there and could not be fetched ({error}); bring "
            f"{entry.url} to {cached}, or start without them (pretrained=False)."
        ) from error
