"""The two branches of LPTN: the CNN that translates the low-pass image, and the masks for the bands.

Section 3.2 and 3.3 of the paper; `model` shows how they work together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowBranch(nn.Module):
    """Translate the low-pass image: tanh(x + f(x)), f a residual CNN (section 3.2).

    The one instance norm takes its statistics over the whole image, so results depend on all of it: this
    branch must not be run in tiles. Because of the tanh, f must add contrast even to leave an image as it is.
    """

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            _conv(3, 16),
            nn.InstanceNorm2d(16),
            _leaky(),
            _conv(16, width),
            _leaky(),
            *[Residual(width) for _ in range(blocks)],
            _conv(width, 16),
            _leaky(),
            _conv(16, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, h, w) to (N, 3, h, w)."""
        # nothing of the way gets a name: it would be kept until the end, half a gigabyte each at 4K
        return torch.tanh(x + self.model[3:](_channels_last(self.model[:3](x))))


class Masking(nn.Module, ABC):
    """Predict one mask at the coarsest band and apply it, level by level, to all bands (section 3.3).

    `masks` and `refine` differ between the released code and the paper. Levels count from the coarsest band
    (0, "base resolution") to the finest (num_high - 1), as the official parameter names do.
    """

    mask_channels: int
    neutral_mask: float  # the mask that keeps a band as it is

    def __init__(self, blocks: int, num_high: int, width: int) -> None:
        super().__init__()
        self.num_high = num_high
        self.model = nn.Sequential(
            _conv(9, width),
            _leaky(),
            *[Residual(width) for _ in range(blocks)],
            _conv(width, self.mask_channels),
        )
        for level in range(num_high):
            self.add_module(f"trans_mask_block_{level}", _pointwise(self.mask_channels))

    def base_input(self, band: Tensor, low: Tensor, translated: Tensor) -> Tensor:
        """(N, 9, h, w): the coarsest band, the low-pass image and its translation, both enlarged."""
        return torch.cat([band, enlarge(low, 2, band), enlarge(translated, 2, band)], dim=1)

    @abstractmethod
    def masks(self, base_input: Tensor) -> list[Tensor]:
        """One mask a level, coarsest first, all at base resolution: (N, mask_channels, h, w)."""

    @abstractmethod
    def refine(self, band: Tensor, mask: Tensor, level: int) -> Tensor:
        """Apply a level's mask to its band (N, 3, H, W). Without gradients the result overwrites `band`."""

    def refine_all(self, bands: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """`refine` for every level; bands finest first, masks coarsest first. Returns bands, finest first."""
        levels = range(len(bands) - 1, -1, -1)
        return [self.refine(bands[i], masks[level], level) for i, level in enumerate(levels)]

    def block(self, level: int) -> nn.Sequential:
        """B, the pointwise network of a level: 1×1 convolutions to 16 channels and back."""
        return getattr(self, f"trans_mask_block_{level}")

    def start_from_identity(self) -> None:
        """Neutral masks and identity blocks, so that every band passes unchanged."""
        last = self.model.get_submodule(str(len(self.model) - 1))
        for name, parameter in last.named_parameters():
            nn.init.constant_(parameter, self.neutral_mask if name == "bias" else 0.0)
        for level in range(self.num_high):
            _make_identity(self.block(level), self.mask_channels)


class ReleasedMasking(Masking):
    """The released code: one 3-channel mask M for all levels; refined band = B(h * M + h), B pointwise.

    It gives the README's 22.9 dB on FiveK (22.7 without the "+ h", says the author in issue #5).
    """

    mask_channels = 3
    neutral_mask = 0.0

    def masks(self, base_input: Tensor) -> list[Tensor]:
        return [self.model(_channels_last(base_input)).contiguous()] * self.num_high

    def refine(self, band: Tensor, mask: Tensor, level: int) -> Tensor:
        block, factor = self.block(level), 2**level
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return block(torch.addcmul(band, band, enlarge(mask, factor, band)))
        # Everything here is pointwise, so a few rows at a time give the same values, and neither the enlarged
        # mask nor the block's 16 hidden channels (0.5 GB at 4K) ever exist at full size.
        height, width = band.shape[-2:]
        step = factor * max(_values_at_once(band.device) // (factor * width), 1)
        for top in range(0, height, step):
            rows = band[:, :, top : top + step]
            gain = enlarge(mask[:, :, top // factor : (top + step) // factor], factor, rows)
            rows.copy_(block(torch.addcmul(rows, rows, gain)))
        return band


class PaperMasking(Masking):
    """The paper's figure 2: a 1-channel mask, refined at each level by a pointwise B; refined band = h * M.

    B follows each nearest-neighbour enlargement. A pointwise network commutes with it exactly, so all of them
    run at base resolution here, and only the finished 1-channel mask is enlarged.
    """

    mask_channels = 1
    neutral_mask = 1.0

    def masks(self, base_input: Tensor) -> list[Tensor]:
        mask, masks = self.model(_channels_last(base_input)).contiguous(), []
        for level in range(self.num_high):
            mask = self.block(level)(mask)
            masks.append(mask)
        return masks

    def refine(self, band: Tensor, mask: Tensor, level: int) -> Tensor:
        mask = enlarge(mask, 2**level, band)
        return band * mask if torch.is_grad_enabled() else band.mul_(mask)


class Residual(nn.Module):
    """x + conv(leaky(conv(x))), 3×3, no activation after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(_conv(width, width), _leaky(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x).add_(x)  # in place: neither gradient needs the convolution's result


def enlarge(x: Tensor, factor: int, like: Tensor) -> Tensor:
    """Nearest-neighbour enlargement of (N, C, h, w) by a whole factor, cropped to the size of `like`.

    The crop makes odd sizes right at any size (the official code's float32 indices slip from 4189 px on).
    """
    if factor > 1:
        x = F.interpolate(x, scale_factor=factor, mode="nearest")
    return x[..., : like.shape[-2], : like.shape[-1]]


def _values_at_once(device: torch.device) -> int:
    # Per channel, for the released masking without gradients. One thread likes what its second-level cache
    # holds with 16 hidden channels; several threads wait for each other after every piece, and like few.
    if device.type == "cpu":
        return 2**15 if torch.get_num_threads() == 1 else 2**19
    return 2**22


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.01, inplace=True)


def _pointwise(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 16, 1), _leaky(), nn.Conv2d(16, channels, 1))


def _channels_last(x: Tensor) -> Tensor:
    # Many-channel convolutions read memory in this order; up to a quarter faster at 4K on a CPU.
    return x.contiguous(memory_format=torch.channels_last)


def _make_identity(block: nn.Sequential, channels: int) -> None:
    # leaky(x) - leaky(-x) = 1.01 x: two hidden units a channel; the spare units start unused but can learn.
    hidden, hidden_bias, output, output_bias = block.parameters()
    for parameter in (hidden_bias, output, output_bias):
        nn.init.zeros_(parameter)
    for channel in range(channels):
        for unit, sign in ((2 * channel, 1.0), (2 * channel + 1, -1.0)):
            hidden[unit] = 0.0
            hidden[unit, channel] = sign
            output[channel, unit] = sign / 1.01
