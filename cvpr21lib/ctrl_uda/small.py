"""The demo's networks: the paper's wiring at a stride of 4, for images of about 48 × 96 pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SmallNet(nn.Module):
    """As the paper's network: depth features gate the semantic ones, and depth conditions a second opinion.

    Normalised by groups of channels within each image. With batch normalisation, target images would change
    the network by merely passing through it, before any loss acts.
    """

    def __init__(self, num_classes: int, width: int = 32, bottleneck: int = 16) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            *_layer(3, width // 2, stride=2),
            *_layer(width // 2, width, stride=2),
            *(Residual(width, dilation) for dilation in (1, 2, 4)),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(width, bottleneck, 1, bias=False),
            nn.GroupNorm(4, bottleneck),  # without it the few channels may die, and depth with them
            nn.ReLU(inplace=True),
            nn.Conv2d(bottleneck, bottleneck, 3, padding=1, bias=False),
            nn.GroupNorm(4, bottleneck),
            nn.ReLU(inplace=True),
            nn.Conv2d(bottleneck, bottleneck, 1),
        )
        self.gate = nn.Conv2d(bottleneck, width, 1)
        for name, parameter in self.gate.named_parameters():  # it starts as the identity, nearly
            nn.init.ones_(parameter) if name == "bias" else nn.init.normal_(parameter, std=0.01)
        self.depth = nn.Conv2d(bottleneck, 1, 3, padding=1)
        # It starts above 0. Else R, which is made of g ⊙ D, may teach it signs, and it stays no depth at all.
        for name, parameter in self.depth.named_parameters():
            nn.init.constant_(parameter, 0.5) if name == "bias" else nn.init.normal_(parameter, std=0.01)
        self.semantic, self.refined = Head(width, num_classes), Head(width, num_classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] to P, D, R: logits (N, C, h, w), inverse depth (N, 1, h, w), logits again.

        h, w = ⌈H/4⌉, ⌈W/4⌉. The depth head works in hundredths of D, which are about as large as features.
        """
        features = self.backbone(image - 0.5)
        encoded = self.decoder(features)
        gated = features * F.relu(self.gate(encoded))
        depth = self.depth(encoded)
        return self.semantic(gated), 100 * depth, self.refined(gated * depth)


class Residual(nn.Module):
    """Two normalised convolutions beside the identity."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *_layer(width, width, dilation=dilation), *_layer(width, width, dilation=dilation)[:-1]
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inner(x))


class Head(nn.Module):
    """The sum of two dilated convolutions, (N, width, h, w) to (N, C, h, w)."""

    def __init__(self, width: int, num_classes: int, dilations: tuple[int, ...] = (1, 3)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(width, num_classes, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = (branch(x) for branch in self.branches)
        return first + second


class SmallDiscriminator(nn.Sequential):
    """Entropy maps (N, channels, h, w) to logits (N, 1, ⌊h/4⌋, ⌊w/4⌋): above 0 says target."""

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )


def _layer(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
    return convolution, nn.GroupNorm(8, outputs), nn.ReLU(inplace=True)
