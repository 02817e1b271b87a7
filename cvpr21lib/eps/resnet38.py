"""ResNet38-d, the backbone of EPS: wide and shallow, stride 8, pre-activated (model "A1" of ademxapp).

Names are those of the official checkpoints. Frozen in training too, as in the official code, are the first
blocks, and every batch normalisation, which uses its stored statistics and keeps its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cvpr21lib.errors import InputError

#: The parts that are never trained (official code).
FROZEN = ("conv1a", "b2", "b2_1", "b2_2")

#: Of ImageNet's RGB values in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ResNet38(nn.Module):
    """Image to features: (N, 3, H, W) to (N, 4096 / width_div, ⌈H/8⌉, ⌈W/8⌉), not negative.

    Images are what `normalise` makes of RGB.

    Args:
        width_div: divides every number of channels (1 in the paper), for small experiments; divides 64.
    """

    def __init__(self, width_div: int = 1) -> None:
        super().__init__()
        if width_div < 1 or 64 % width_div:
            raise InputError(
                f"width_div is {width_div}; expected a divisor of 64, as the stem has 64 channels."
            )
        c64, c128, c256, c512, c1024, c2048, c4096 = (64 * 2**i // width_div for i in range(7))
        self.channels = c4096
        self.conv1a = nn.Conv2d(3, c64, 3, padding=1, bias=False)
        self.b2 = Residual(c64, c128, c128, stride=2)
        self.b2_1 = Residual(c128, c128, c128)
        self.b2_2 = Residual(c128, c128, c128)
        self.b3 = Residual(c128, c256, c256, stride=2)
        self.b3_1 = Residual(c256, c256, c256)
        self.b3_2 = Residual(c256, c256, c256)
        self.b4 = Residual(c256, c512, c512, stride=2)
        for k in range(1, 6):
            self.add_module(f"b4_{k}", Residual(c512, c512, c512))
        self.b5 = Residual(c512, c512, c1024, dilations=(1, 2))
        self.b5_1 = Residual(c1024, c512, c1024, dilations=(2, 2))
        self.b5_2 = Residual(c1024, c512, c1024, dilations=(2, 2))
        self.b6 = Bottleneck(c1024, c2048, dilation=4, dropout=0.3)
        self.b7 = Bottleneck(c2048, c4096, dilation=4, dropout=0.5)
        self.bn7 = FixedBatchNorm(c4096)
        for name in FROZEN:
            self.get_submodule(name).requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv1a(image)
        for _, block in self.blocks():
            x = block(x)
        return F.relu(self.bn7(x), inplace=True)

    def taps(self, image: Tensor) -> Taps:
        """The features that other methods read from this network, besides the last ones."""
        entering = {}
        x = self.conv1a(image)
        for name, block in self.blocks():
            if name in ("b5", "b6"):
                entering[name] = block.activate(x)
            x = block(x)
        return Taps(entering["b5"], entering["b6"], F.relu(self.bn7(x)))

    def folded(self) -> ResNet38:
        """A copy for inference that gives the same features faster; it cannot be trained.

        The 19 normalisations that directly follow a convolution become part of its weights and bias. The
        other 18 follow a sum, which is why they cannot.
        """
        twin = copy.deepcopy(self).eval().requires_grad_(False)
        for _, block in twin.blocks():
            block.fold()
        return twin

    def blocks(self) -> Iterator[tuple[str, Residual | Bottleneck]]:
        """The residual blocks in order, with their names."""
        for name, module in self.named_children():
            if isinstance(module, Residual | Bottleneck):
                yield name, module


def with_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the count of batches, unused here, that PyTorch wants of each batch normalisation.

    Weights that come from MXNet, or from early PyTorch, do not have it.
    """
    norms = [name.removesuffix("running_var") for name in state if name.endswith(".running_var")]
    return {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms} | dict(state)


class Taps(NamedTuple):
    """Activated features (N, C, ⌈H/8⌉, ⌈W/8⌉); C at full width."""

    conv4: Tensor  # 512, what enters b5
    conv5: Tensor  # 1024, what enters b6
    conv6: Tensor  # 4096, the output


def normalise(pixels: np.ndarray) -> Tensor:
    """RGB as uint8 (H, W, 3) to what the network was pre-trained on, (3, H, W): (x / 255 - mean) / std."""
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float().div_(255)
    return x.sub_(torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1))


class FixedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by its stored statistics, in training too; its weights are not trained."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        stored = (self.running_mean, self.running_var, self.weight, self.bias)
        if x.requires_grad:
            return _FixedNorm.apply(x, *stored, self.eps)
        return F.batch_norm(x, *stored, eps=self.eps)


class _FixedNorm(torch.autograd.Function):
    """`F.batch_norm` by stored statistics, whose gradient needs no more than a factor for each channel.

    PyTorch keeps the input as well, for gradients of weights that are not trained here. Without it, a
    training step holds half as many activations.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(weight * torch.rsqrt(variance + eps))
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = ctx.saved_tensors
        return (grad * factor.view(-1, 1, 1)).to(grad.dtype), None, None, None, None, None


class Residual(nn.Module):
    """Two 3×3 convolutions on the activated input, plus a shortcut.

    The shortcut is the input itself where nothing changes its shape, else a 1×1 convolution of the
    *activated* input. `dilations` are those of the two convolutions; `stride` is the first one's.
    """

    def __init__(
        self,
        inputs: int,
        middle: int,
        outputs: int,
        stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        first, second = dilations
        self.bn_branch2a = FixedBatchNorm(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, middle, 3, stride, first, first, bias=False)
        self.bn_branch2b1 = FixedBatchNorm(middle)
        self.conv_branch2b1 = nn.Conv2d(middle, outputs, 3, 1, second, second, bias=False)
        if inputs != outputs or stride != 1:
            self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        shortcut = self.conv_branch1(active) if hasattr(self, "conv_branch1") else x
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(active)), inplace=True)
        return self.conv_branch2b1(branch).add_(shortcut)

    def activate(self, x: Tensor) -> Tensor:
        """ReLU(BN(x)), which both branches start from."""
        return F.relu(self.bn_branch2a(x), inplace=True)

    def fold(self) -> None:
        _fold(self, "conv_branch2a", "bn_branch2b1")


class Bottleneck(nn.Module):
    """1×1, dilated 3×3 and 1×1 convolutions on the activated input, plus its 1×1 convolution.

    `dropout` is the probability that a channel is dropped before the second and the third convolution.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int, dropout: float) -> None:
        super().__init__()
        quarter, half = outputs // 4, outputs // 2
        self.bn_branch2a = FixedBatchNorm(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, quarter, 1, bias=False)
        self.bn_branch2b1 = FixedBatchNorm(quarter)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = nn.Conv2d(quarter, half, 3, 1, dilation, dilation, bias=False)
        self.bn_branch2b2 = FixedBatchNorm(half)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = nn.Conv2d(half, outputs, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(active)), inplace=True)
        branch = F.relu(self.bn_branch2b2(self.conv_branch2b1(self.dropout_2b1(branch))), inplace=True)
        return self.conv_branch2b2(self.dropout_2b2(branch)).add_(self.conv_branch1(active))

    def activate(self, x: Tensor) -> Tensor:
        """ReLU(BN(x)), which both branches start from."""
        return F.relu(self.bn_branch2a(x), inplace=True)

    def fold(self) -> None:
        _fold(self, "conv_branch2a", "bn_branch2b1")
        _fold(self, "conv_branch2b1", "bn_branch2b2")


def _fold(block: nn.Module, convolution: str, norm: str) -> None:
    """Make the normalisation that follows a convolution part of it."""
    fused = fuse_conv_bn_eval(getattr(block, convolution), getattr(block, norm))
    setattr(block, convolution, fused)
    setattr(block, norm, nn.Identity())
