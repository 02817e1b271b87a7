"""The trunk of the official network: ResNet and, on top of it, a feature pyramid (Lin et al., CVPR 2017)."""

from __future__ import annotations

import copy
from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cvpr21lib.eopsn.resnet import ResNet


class ResNetFPN(nn.Module):
    """Images (N, 3, H, W) to maps "p2" .. "p6" (N, `channels`, H/s, W/s), s = 4, 8, 16, 32, 64.

    H and W are multiples of `divisor`. p6 is every other value of p5, for proposals only.
    """

    divisor = 32

    def __init__(self, body: ResNet, channels: int = 256) -> None:
        super().__init__()
        self.body, self.channels = body, channels
        self.fpn = FeaturePyramidNetwork(body.channels, channels, LastLevelMaxPool())
        self.levels = [f"p{i + 2}" for i in range(len(body.channels) + 1)]

    def folded(self) -> ResNetFPN:
        """A copy for inference that gives the same maps faster; it cannot be trained."""
        twin = copy.deepcopy(self).eval().requires_grad_(False)
        twin.body = twin.body.folded()
        return twin

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.fpn(OrderedDict(self.body(images)))
        return dict(zip(self.levels, maps.values(), strict=True))
