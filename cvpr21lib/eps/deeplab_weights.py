"""The weights that DeepLab starts from.

The fair ones are torchvision's, trained on ImageNet. The paper's ResNet-101 started from DeepLab's own, which
had seen MS-COCO's image labels besides (official issue 4; deeplab-pytorch's `deeplabv1_resnet101-coco.pth`),
an extra source of data that its numbers profit from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torchvision.models import ResNet101_Weights, VGG16_Weights

from cvpr21lib import checkpoints
from cvpr21lib.eps.deeplab import VGG16, DeepLab
from cvpr21lib.eps.resnet38 import with_counters
from cvpr21lib.errors import InputError


def initialise(net: DeepLab, init: str) -> None:
    """Load initial weights into the backbone; the classifiers stay as they are.

    Args:
        init: "imagenet" (torchvision's, fetched where they are not yet), "random" (nothing is loaded), or a
        file:
            torchvision's network, or a ResNet-101 in the layout of deeplab-pytorch.
    """
    if init == "random":
        return
    if init == "imagenet":
        weights = VGG16_Weights if isinstance(net.backbone, VGG16) else ResNet101_Weights
        load(net, weights.IMAGENET1K_V1.get_state_dict(check_hash=True), "torchvision's ImageNet weights")
    else:
        load(net, checkpoints.load(init), init)


def describe(init: str) -> str:
    """What the record says of the initial weights: a file by its name and SHA-256, not by its folder."""
    if init == "imagenet":
        return "imagenet (torchvision IMAGENET1K_V1)"
    if init == "random":
        return "random"
    path = Path(init)
    if not path.is_file():
        raise InputError(
            f"init is {init!r}, which is no file; it can be imagenet, random, or a file of weights"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.name} (sha256 {digest[:16]})"


def load(net: DeepLab, state: Mapping[str, Tensor], source: str) -> None:
    """Load the backbone from a state dict; what does not fit is an `InputError` that names `source`."""
    if isinstance(net.backbone, VGG16):
        state = from_vgg16(state, len(net.backbone.fc6), source)
    elif any(".block1." in name for name in state):
        state = from_deeplab_pytorch(state)
        net.backbone.expect_caffe()
    checkpoints.fit(net.backbone, with_counters(state), source=source, drop=("fc.", "classifier."))


def from_vgg16(state: Mapping[str, Tensor], branches: int, source: str) -> dict[str, Tensor]:
    """torchvision's VGG16, its fully connected layers thinned out into the convolutions of each branch.

    As in the DeepLab papers (v1, section 3.1) fc6 keeps 3 x 3 of its 7 x 7 positions, and of 4096 channels
    1024 are kept; which ones they took is not known, so here it is every third position and every fourth
    channel.
    """
    names = [f"classifier.{layer}.{part}" for layer in (0, 3) for part in ("weight", "bias")]
    missing = [name for name in (*names, "features.28.weight") if name not in state]
    if missing:
        raise InputError(f"{source} does not hold torchvision's VGG16: {', '.join(missing)} are missing")
    fc6_weight, fc6_bias, fc7_weight, fc7_bias = (state[name] for name in names)
    fc6 = fc6_weight.view(len(fc6_weight), -1, 7, 7)[::4, :, ::3, ::3]
    fc7 = fc7_weight[::4, ::4, None, None]
    thinned = {name: value for name, value in state.items() if name.startswith("features.")}
    for branch in range(branches):
        thinned |= {f"fc6.{branch}.weight": fc6, f"fc6.{branch}.bias": fc6_bias[::4]}
        thinned |= {f"fc7.{branch}.weight": fc7, f"fc7.{branch}.bias": fc7_bias[::4]}
    return thinned


def from_deeplab_pytorch(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names for those of kazuto1011/deeplab-pytorch; its heads (`aspp`, `fc`) are left out."""
    renamed = {}
    for name, value in state.items():
        match = _BLOCK.fullmatch(name)
        if match:
            layer, block, branch, kind, part = match.groups()
            unit = _UNITS[branch]
            norm = "downsample.1" if unit == "downsample.0" else unit.replace("conv", "bn")
            renamed[f"layer{int(layer) - 1}.{int(block) - 1}.{unit if kind == 'conv' else norm}.{part}"] = (
                value
            )
        elif match := _STEM.fullmatch(name):
            renamed[f"{match[1]}1.{match[2]}"] = value
        elif not _HEAD.match(name):
            renamed[name] = value
    return renamed


_BLOCK = re.compile(
    r"(?:base\.|scale\.)?layer([2-5])\.block(\d+)\.(reduce|conv3x3|increase|shortcut|proj)\.(conv|bn)\.(\w+)"
)
_STEM = re.compile(r"(?:base\.|scale\.)?layer1\.conv1\.(conv|bn)\.(\w+)")
_HEAD = re.compile(r"(?:base\.|scale\.)?(?:aspp|fc)\.")
_UNITS = {
    "reduce": "conv1",
    "conv3x3": "conv2",
    "increase": "conv3",
    "shortcut": "downsample.0",
    "proj": "downsample.0",
}
