"""The semantic head of Panoptic FPN (Kirillov et al., CVPR 2019): stuff, void, all things as one class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SemanticHead(nn.Module):
    """Maps of the pyramid to logits (N, classes, H/4, W/4).

    Each level is brought to the stride of the first, halving the stride in steps of 3×3 convolution, group
    normalisation and bilinear doubling; their sum is classified.

    `stride` is the logits' own; `channels` the width (128), a multiple of the 32 groups.
    """

    def __init__(
        self, levels: Sequence[str], strides: Sequence[int], inputs: int, classes: int, channels: int = 128
    ) -> None:
        super().__init__()
        self.levels, self.stride = tuple(levels), strides[0]
        for level, stride in zip(levels, strides, strict=True):
            doublings = int(math.log2(stride // self.stride))
            steps: list[nn.Module] = []
            for i in range(max(1, doublings)):
                steps.append(_step(channels if i else inputs, channels))
                steps.append(
                    nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
                    if doublings
                    else nn.Identity()
                )
            self.add_module(level, nn.Sequential(*steps))
        self.predictor = nn.Conv2d(channels, classes, 1)
        nn.init.kaiming_normal_(self.predictor.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        first, *others = self.levels
        x = self.get_submodule(first)(maps[first])
        for level in others:
            x = x + self.get_submodule(level)(maps[level])
        return self.predictor(x)


def upsample(logits: Tensor, stride: int) -> Tensor:
    """Logits at the size of the images (N, K, H, W)."""
    return F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)


def classes(logits: Tensor, stride: int, size: tuple[int, int], output: tuple[int, int]) -> Tensor:
    """The most probable class of each pixel, (H, W) int64, of one image's logits (K, h, w).

    They are enlarged by `stride`, cut to the image's own `size`, and resized to `output`, as detectron2 does.
    """
    # The classes of a pixel side by side in memory: the interpolation and the comparison both go over them.
    near = logits[None].float().contiguous(memory_format=torch.channels_last)
    large = upsample(near, stride)[:, :, : size[0], : size[1]]
    if size != output:
        large = F.interpolate(large, output, mode="bilinear", align_corners=False)
    return large.argmax(1)[0]


def _step(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.GroupNorm(32, outputs), nn.ReLU(inplace=True))
