"""The generator (section 3.4): one network that attacks any image toward any label, in a single pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cvpr21lib.errors import InputError


class Generator(nn.Module):
    """An image x~ in [-1, 1] and a label's feature f to the attacking image x~' in [-1, 1].

    f is decoded to a map of the image's size, which an encoder-decoder sees beside the image; its last layer
    sees the image once more. Parameter names are the official ones.

    Args:
        size: height and width in pixels, fixed by the label's decoder; official 224 x 224. Multiples of 4,
            and of 2 to the number of `label_widths` less one.
        features: length of f; official 512.
        label_widths: channels of the label's decoder; each but the first doubles its size.
        width: channels at full size; official 64.
        blocks: residual blocks of the encoder, and as many of the decoder; official 3.
        channels: of the image, 3 for RGB.
    """

    def __init__(
        self,
        size: tuple[int, int] = (224, 224),
        features: int = 512,
        label_widths: Sequence[int] = (128, 64, 32, 16, 8),
        width: int = 64,
        blocks: int = 3,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.size, self.channels = size, channels
        self.label_encoder = LabelDecoder(size, features, label_widths, channels)
        self.image_encoder = nn.Sequential(
            *_normed(nn.Conv2d(2 * channels, width, 7, padding=3)),
            *_normed(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            *_normed(nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1)),
            *(Residual(4 * width) for _ in range(blocks)),
        )
        self.decoder = nn.Sequential(
            *(Residual(4 * width) for _ in range(blocks)),
            *_normed(_doubling(4 * width, 2 * width)),
            *_normed(_doubling(2 * width, width)),
        )
        self.residual = nn.Sequential(
            nn.Conv2d(width + channels, channels, 3, padding=1, bias=False), nn.Tanh()
        )

    def forward(self, image: Tensor, feature: Tensor) -> Tensor:
        """`image` (N, channels, H, W) in [-1, 1] and `feature` (N, F) to the shape and range of `image`."""
        return self.with_map(image, self.label_map(feature))

    def label_map(self, feature: Tensor) -> Tensor:
        """f (N, F) as a map (N, channels, H, W), which depends on the label alone and so can be kept."""
        return self.label_encoder(feature)

    def with_map(self, image: Tensor, label_map: Tensor) -> Tensor:
        """As `forward`, from the map (N, channels, H, W) of each image's target label."""
        if image.shape[1:] != (self.channels, *self.size):
            raise InputError(
                f"images of the shape {tuple(image.shape)}; this generator attacks "
                f"(N, {self.channels}, {self.size[0]}, {self.size[1]})."
            )
        hidden = self.decoder(self.image_encoder(torch.cat([label_map, image], 1)))
        return self.residual(torch.cat([hidden, image], 1))


class LabelDecoder(nn.Module):
    """f (N, F) to (N, channels, H, W): a small picture from one linear layer, doubled again and again."""

    def __init__(self, size: tuple[int, int], features: int, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        doublings = len(widths) - 1
        multiple = max(4, 2**doublings)
        if any(side < multiple or side % multiple for side in size):
            raise InputError(
                f"size is {size[0]} x {size[1]}; {doublings} doublings of the label and 2 halvings of "
                f"the image need multiples of {multiple} pixels."
            )
        self.start = (widths[0], size[0] // 2**doublings, size[1] // 2**doublings)
        self.fc = nn.Sequential(nn.Linear(features, self.start[0] * self.start[1] * self.start[2]), nn.ReLU())
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += _normed(_doubling(inputs, outputs))
        self.transform = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 3, padding=1, bias=False))

    def forward(self, feature: Tensor) -> Tensor:
        return self.transform(self.fc(feature).unflatten(1, self.start))


class Residual(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), with nothing after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *_normed(nn.Conv2d(width, width, 3, padding=1, bias=False)),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


def _normed(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
    return convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU()


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
