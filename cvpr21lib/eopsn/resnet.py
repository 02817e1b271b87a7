"""ResNet as detectron2 and Caffe build it: a block's stride is in its first, 1×1, convolution.

Blocks are torchvision's, so that its names hold. Batch normalisation is frozen: its four arrays are buffers.
"""

from __future__ import annotations

import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d

DEPTHS = (3, 4, 6, 3)
"""Blocks per stage of ResNet-50."""


class ResNet(nn.Module):
    """Images (N, 3, H, W) to maps "res2" .. "res5" (N, `outputs` · 2^i, H/4 · 2^-i, W/4 · 2^-i), i = 0 .. 3.

    Args:
        stem: channels of the first convolution (64 in ResNet-50).
        outputs: channels of res2 (256); each stage has twice as many as the last.
        width: channels inside the blocks of res2 (64), doubling too.
        frozen: how many of (stem, res2, ..., res5) are not trained; the first two (official configuration).
    """

    def __init__(
        self,
        stem: int = 64,
        outputs: int = 256,
        width: int = 64,
        depths: tuple[int, ...] = DEPTHS,
        frozen: int = 2,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = FrozenBatchNorm2d(stem)
        self.channels: list[int] = []
        inputs = stem
        for stage, depth in enumerate(depths):
            channels = outputs * 2**stage
            self.add_module(
                f"layer{stage + 1}", _stage(depth, inputs, width * 2**stage, channels, 2 if stage else 1)
            )
            self.channels.append(channels)
            inputs = channels
        for convolution in self.modules():
            if isinstance(convolution, nn.Conv2d):
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        parts = [self.conv1, *(getattr(self, f"layer{stage + 1}") for stage in range(len(depths)))]
        for part in parts[:frozen]:
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        maps = {}
        for stage in range(len(self.channels)):
            x = getattr(self, f"layer{stage + 1}")(x)
            maps[f"res{stage + 2}"] = x
        return maps

    def folded(self) -> ResNet:
        """A copy for inference that gives the same maps faster; it cannot be trained.

        Each normalisation becomes part of the convolution before it.
        """
        twin = copy.deepcopy(self).eval().requires_grad_(False)
        _fold(twin, "conv1", "bn1")
        for block in twin.modules():
            if isinstance(block, Bottleneck):
                for i in (1, 2, 3):
                    _fold(block, f"conv{i}", f"bn{i}")
                if block.downsample is not None:
                    _fold(block.downsample, "0", "1")
        return twin


class _Block(Bottleneck):
    """torchvision's bottleneck of free widths."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int) -> None:
        how: dict[str, Any] = {"norm_layer": FrozenBatchNorm2d}
        super().__init__(inputs, width, **how)
        self.conv1 = nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = FrozenBatchNorm2d(outputs)
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, FrozenBatchNorm2d(outputs))


def _stage(depth: int, inputs: int, width: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _Block(inputs, width, outputs, stride),
        *(_Block(outputs, width, outputs, 1) for _ in range(depth - 1)),
    )


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    """Make the frozen normalisation that follows a convolution part of it."""
    conv, bn = getattr(module, convolution), getattr(module, norm)
    fused = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        device=conv.weight.device,
    )
    weight, bias = fuse_conv_bn_weights(
        conv.weight, None, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    fused.weight, fused.bias = weight, bias
    setattr(module, convolution, fused.requires_grad_(False))
    setattr(module, norm, nn.Identity())
