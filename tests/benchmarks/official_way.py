"""LPTN computed step by step as the official code computes it: what the library's exact shortcuts replace.

A full-size 5×5 blur before every subsampling, zeros inserted before every enlargement, masks enlarged to
every band's full size, pointwise blocks at full size, layers that never work in place. For comparison only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpr21lib.lptn.model import LPTN


class OfficialWay(nn.Module):
    """The same function as `LPTN`, of whose weights this takes a copy."""

    def __init__(self, model: LPTN) -> None:
        super().__init__()
        self.levels, self.paper = model.num_high, model.arch == "paper"
        state = model.state_dict()
        self.low = trunk(state, "trans_low.model.", norm=True)
        self.high = trunk(state, "trans_high.model.", norm=False)
        self.blocks = nn.ModuleList()
        for level in range(self.levels):
            prefix = f"trans_high.trans_mask_block_{level}."
            first, second = (convolution(state, f"{prefix}{i}.", padding=0) for i in (0, 2))
            self.blocks.append(nn.Sequential(first, nn.LeakyReLU(0.01), second))

    def forward(self, image: Tensor) -> Tensor:
        pyramid = decompose(image, self.levels)
        low = pyramid[-1]
        translated = torch.tanh(low + self.low(low))
        size = pyramid[-2].shape[-2:]
        mask = self.high(torch.cat([pyramid[-2], nearest(low, size), nearest(translated, size)], 1))
        results = []
        for level, block in enumerate(self.blocks):
            band = pyramid[-2 - level]
            if level:
                mask = nearest(mask, band.shape[-2:])
            if self.paper:
                mask = block(mask)
                results.append(band * mask)
            else:
                results.append(block(band * mask + band))
        return reconstruct([*results[::-1], translated])


class Residual(nn.Module):
    def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
        super().__init__()
        self.block = nn.Sequential(first, nn.LeakyReLU(0.01), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def trunk(state: dict[str, Tensor], prefix: str, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    numbers = sorted({int(key.removeprefix(prefix).split(".")[0]) for key in state if key.startswith(prefix)})
    for number in numbers:
        if f"{prefix}{number}.block.0.weight" in state:
            parts = (convolution(state, f"{prefix}{number}.block.{i}.") for i in (0, 2))
            layers.append(Residual(*parts))
            continue
        layers.append(convolution(state, f"{prefix}{number}."))
        if norm and number == 0:
            layers.append(nn.InstanceNorm2d(layers[-1].out_channels))
        if number != numbers[-1]:
            layers.append(nn.LeakyReLU(0.01))
    return nn.Sequential(*layers)


def convolution(state: dict[str, Tensor], prefix: str, padding: int = 1) -> nn.Conv2d:
    weight = state[prefix + "weight"]
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[-1], padding=padding)
    layer.load_state_dict({"weight": weight, "bias": state[prefix + "bias"]})
    return layer


def decompose(image: Tensor, levels: int) -> list[Tensor]:
    pyramid, current = [], image
    for _ in range(levels):
        smaller = blur(current)[:, :, ::2, ::2]
        pyramid.append(current - nearest(double(smaller), current.shape[-2:]))
        current = smaller
    return [*pyramid, current]


def reconstruct(pyramid: list[Tensor]) -> Tensor:
    *bands, image = pyramid
    for band in reversed(bands):
        image = nearest(double(image), band.shape[-2:]) + band
    return image


def blur(x: Tensor, gain: float = 1.0) -> Tensor:
    k = torch.tensor([1.0, 4, 6, 4, 1], dtype=x.dtype) / 16
    kernel = (gain * torch.outer(k, k)).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[1])


def double(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    rows = torch.cat([x, torch.zeros_like(x)], dim=3).view(n, c, 2 * h, w).permute(0, 1, 3, 2)
    grid = torch.cat([rows, torch.zeros_like(rows)], dim=3).view(n, c, 2 * w, 2 * h).permute(0, 1, 3, 2)
    return blur(grid, gain=4.0)


def nearest(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, size=tuple(size), mode="nearest")
