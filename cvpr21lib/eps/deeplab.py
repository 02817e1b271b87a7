"""DeepLab, the segmentation network that stage 2 trains on the pseudo-masks, in its first two versions.

VGG16 and ResNet-101 are made dense: where they would go below an eighth of the image's size they dilate their
convolutions instead. The versions differ in the head, that is, in how wide it looks around:

    v1  LargeFOV: one branch that dilates by 12 (Chen et al., ICLR 2015)
    v2  ASPP: four branches that dilate by 6, 12, 18 and 24, whose logits add up (Chen et al., TPAMI 2018)

The EPS authors took v2 on ResNet-101 from kazuto1011/deeplab-pytorch, made v1 of it themselves and published
neither (official issues 6, 10), and nothing of theirs shows their VGG16. So ResNet-101 follows that
repository; v1 on it is the v2 paper's LargeFOV; VGG16 follows the DeepLab papers and their released
definitions as others have reimplemented them. None of the four is verified against the EPS authors' own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from cvpr21lib.eps.resnet38 import MEAN, STD, FixedBatchNorm
from cvpr21lib.errors import InputError

Version = Literal["v1", "v2"]
Backbone = Literal["vgg16", "resnet101"]

RATES: dict[str, tuple[int, ...]] = {"v1": (12,), "v2": (6, 12, 18, 24)}
"""Dilations of the head's branches."""


class DeepLab(nn.Module):
    """Images (N, 3, H, W) to logits (N, K, h, w), K classes with the background, h about H / 8 (321 to 41).

    Images are what `resnet38.normalise` makes of RGB. `width_div` divides every number of channels (1 in the
    papers), for small experiments; divides 64.

    `backbone` gives the features of each branch, `fc8` their classifiers: new layers, which learn ten times
    as fast (`optim.parameter_groups`).
    """

    def __init__(
        self,
        version: Version = "v2",
        backbone: Backbone = "resnet101",
        num_classes: int = 21,
        width_div: int = 1,
    ) -> None:
        super().__init__()
        if version not in get_args(Version):
            raise InputError(f"version is {version!r}; it can be {', '.join(get_args(Version))}")
        if backbone not in get_args(Backbone):
            raise InputError(f"backbone is {backbone!r}; it can be {', '.join(get_args(Backbone))}")
        if width_div < 1 or 64 % width_div:
            raise InputError(
                f"width_div is {width_div}; expected a divisor of 64, as the stem has 64 channels"
            )
        rates = RATES[version]
        self.backbone: VGG16 | ResNet101
        if backbone == "vgg16":
            self.backbone = VGG16(rates, width_div)
            classifiers = [nn.Conv2d(self.backbone.channels, num_classes, 1) for _ in rates]
        else:
            self.backbone = ResNet101(width_div)
            classifiers = [
                nn.Conv2d(self.backbone.channels, num_classes, 3, padding=rate, dilation=rate)
                for rate in rates
            ]
        for classifier in classifiers:
            nn.init.normal_(classifier.weight, std=0.01)
            nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]
        self.fc8 = nn.ModuleList(classifiers)

    def forward(self, image: Tensor) -> Tensor:
        features = self.backbone(image)
        branches = features if isinstance(features, list) else [features] * len(self.fc8)
        return sum(classify(each) for classify, each in zip(self.fc8, branches, strict=True))


def multi_scale(net: nn.Module, image: Tensor, scales: Sequence[float]) -> list[Tensor]:
    """Logits of the image, of the image in each of the smaller `scales`, and their maximum at each pixel.

    The maximum has the size of the first. Without scales only the first. In training each of them has its own
    loss, in a test the last one counts (DeepLab-v2, section 4.1.2; kazuto1011/deeplab-pytorch).
    """
    logits = [net(image)]
    for scale in scales:
        size = [max(1, int(side * scale)) for side in image.shape[2:]]
        logits.append(net(F.interpolate(image, size, mode="bilinear", align_corners=False)))
    if scales:
        size = logits[0].shape[2:]
        same = [F.interpolate(each, size, mode="bilinear", align_corners=False) for each in logits]
        logits.append(torch.stack(same).amax(0))
    return logits


class VGG16(nn.Module):
    """Features (N, 1024, h, w) for each branch: the last layers fc6 and fc7 as dilated convolutions.

    `features` has torchvision's names. Pooling windows are 3 x 3; pool4 and pool5 keep the size, and conv5
    dilates by 2 instead. LargeFOV averages once more after pool5, ASPP does not.
    """

    def __init__(self, rates: Sequence[int], width_div: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for block, (channels, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
            dilation = 2 if block == 5 else 1
            for _ in range(depth):
                outputs = channels // width_div
                layers += [nn.Conv2d(inputs, outputs, 3, 1, dilation, dilation), nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(3, 2 if block < 4 else 1, 1, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.pool5a = nn.AvgPool2d(3, 1, 1) if len(rates) == 1 else nn.Identity()
        self.channels = 1024 // width_div
        self.fc6 = nn.ModuleList(
            nn.Conv2d(inputs, self.channels, 3, padding=rate, dilation=rate) for rate in rates
        )
        self.fc7 = nn.ModuleList(nn.Conv2d(self.channels, self.channels, 1) for _ in rates)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.pool5a(self.features(image))
        return [self._drop(fc7(self._drop(fc6(x)))) for fc6, fc7 in zip(self.fc6, self.fc7, strict=True)]

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(F.relu(x, inplace=True), 0.5, self.training)


class ResNet101(nn.Module):
    """Features (N, 2048, h, w), with torchvision's names: layer3 dilates by 2, layer4 by 4, all their blocks.

    Batch normalisation is frozen, its weights too (deeplab-pytorch: they are not given to the optimiser).

    `caffe` tells that the weights come from Caffe, as DeepLab's own do: they want BGR in steps of 255, and
    have the stride in a block's first convolution, where torchvision's have it in the second.
    """

    def __init__(self, width_div: int = 1) -> None:
        super().__init__()
        stem, self.channels = 64 // width_div, 2048 // width_div
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = FixedBatchNorm(stem)
        self.layer1 = _layer(3, stem, 4 * stem)
        self.layer2 = _layer(4, 4 * stem, 8 * stem, stride=2)
        self.layer3 = _layer(23, 8 * stem, 16 * stem, dilation=2)
        self.layer4 = _layer(3, 16 * stem, 32 * stem, dilation=4)
        self.caffe = False

    def forward(self, image: Tensor) -> Tensor:
        x = as_caffe(image) if self.caffe else image
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def expect_caffe(self) -> None:
        """Work with weights from Caffe from now on."""
        self.caffe = True
        block = self.layer2[0]
        assert isinstance(block, Bottleneck)
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)


def _layer(depth: int, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Residual blocks, the first of which changes the number of channels."""
    projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    shortcut = nn.Sequential(projection, FixedBatchNorm(outputs))
    how: dict[str, Any] = {"dilation": dilation, "norm_layer": FixedBatchNorm}
    first = Bottleneck(inputs, outputs // 4, stride, shortcut, **how)
    return nn.Sequential(first, *(Bottleneck(outputs, outputs // 4, **how) for _ in range(depth - 1)))


def as_caffe(image: Tensor) -> Tensor:
    """`resnet38.normalise`d RGB (N, 3, H, W) to BGR from 0 to 255, less the mean that DeepLab subtracts."""
    mean, std = image.new_tensor(MEAN).view(3, 1, 1), image.new_tensor(STD).view(3, 1, 1)
    caffe_mean = image.new_tensor((122.675, 116.669, 104.008)).view(3, 1, 1)
    return ((image * std + mean) * 255 - caffe_mean).flip(1)
