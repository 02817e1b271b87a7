"""The network of CTRL (section 3): semantics, depth, and semantics once more in the light of the depth.

    f = backbone(x)                                2048 channels
    e = dec3(relu(dec2(relu(dec1 f))))              128, the bottleneck that depth is read from
    D = head_dep(e)                                   1, inverse depth
    g = f · relu(dec4 e)                           2048, features gated by the depth's
    P = head_seg(g)                                   C
    R = head_srh(g · D)                               C, the semantics refinement head

D enters R as it is, with its gradient and its unit. Names are those of the official checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn

from cvpr21lib.ctrl_uda.deeplab import ResNet101

Blocks = tuple[int, int, int, int]


class Prediction(NamedTuple):
    """At the output's size (N, ..., h, w), an eighth of the image's."""

    semantic: Tensor  # P, logits (N, C, h, w)
    depth: Tensor  # D, inverse depth (N, 1, h, w), any real number
    refined: Tensor  # R, logits (N, C, h, w)


class CTRL(nn.Module):
    """Images (N, 3, H, W), BGR from 0 to 255 less the mean, to a `Prediction`.

    Args:
        num_classes: C, 16 or 7 in the paper.
        width_div, blocks: for small experiments, as in `ResNet101`.
    """

    def __init__(self, num_classes: int, width_div: int = 1, blocks: Blocks = (3, 4, 23, 3)) -> None:
        super().__init__()
        self.num_classes, self.width_div = num_classes, width_div
        self.backbone = ResNet101(width_div, blocks)
        channels, bottleneck = self.backbone.channels, 128 // width_div
        self.decoder = Decoder(channels, 4 * bottleneck, bottleneck)
        self.head_seg = Head(channels, num_classes)
        self.head_dep = Head(bottleneck, 1)
        self.head_srh = Head(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)

    def forward(self, image: Tensor) -> Prediction:
        features = self.backbone(image)
        encoded, gate = self.decoder(features)
        depth = self.head_dep(encoded)
        gated = features * gate
        return Prediction(self.head_seg(gated), depth, self.head_srh(gated * depth))


class Decoder(nn.Module):
    """Features f (N, channels, h, w) to e (N, bottleneck, h, w) and back to a gate as wide as f."""

    def __init__(self, channels: int, middle: int, bottleneck: int) -> None:
        super().__init__()
        self.dec1 = nn.Conv2d(channels, middle, 1)
        self.dec2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.dec3 = nn.Conv2d(middle, bottleneck, 1)
        self.dec4 = nn.Conv2d(bottleneck, channels, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.dec3(F.relu(self.dec2(F.relu(self.dec1(features), inplace=True)), inplace=True))
        return encoded, F.relu(self.dec4(encoded), inplace=True)


class Head(nn.Module):
    """DeepLab-v2's ASPP: the sum of four 3x3 convolutions that dilate by 6, 12, 18 and 24."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        branches = [nn.Conv2d(channels, outputs, 3, padding=rate, dilation=rate) for rate in (6, 12, 18, 24)]
        self.layer6 = nn.ModuleDict({"conv2d_list": nn.ModuleList(branches)})

    def forward(self, x: Tensor) -> Tensor:
        first, *others = cast(nn.ModuleList, self.layer6["conv2d_list"])
        out = first(x)
        for branch in others:
            out = out + branch(x)
        return out
