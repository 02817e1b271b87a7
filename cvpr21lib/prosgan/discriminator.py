"""The label-aware discriminator (section 3.5): C scores of labels, and one of being made rather than real."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpr21lib.errors import InputError


class Discriminator(nn.Module):
    """Images (N, channels, H, W) in [-1, 1] to scores (N, C + 1), no sigmoid. Parameter names are official.

    Strided convolutions with spectral norm, then one convolution over all that remains.

    Args:
        classes: C.
        size: height and width in pixels, multiples of 2 to the number of `widths`; official 224 x 224.
        widths: channels of the convolutions.
        channels: of the image, 3 for RGB.
    """

    def __init__(
        self,
        classes: int,
        size: tuple[int, int] = (224, 224),
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        channels: int = 3,
    ) -> None:
        super().__init__()
        halved = 2 ** len(widths)
        if any(side < halved or side % halved for side in size):
            raise InputError(
                f"size is {size[0]} x {size[1]}; {len(widths)} halvings need multiples of {halved} pixels."
            )
        layers: list[nn.Module] = []
        for inputs, outputs in zip((channels, *widths), widths, strict=False):
            layers += [SpectralNormConv(inputs, outputs), nn.LeakyReLU(0.01)]
        self.main = nn.Sequential(*layers)
        self.fc = nn.Conv2d(widths[-1], classes + 1, (size[0] // halved, size[1] // halved), bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, C + 1): the last column is 0 for real images and 1 for made ones."""
        return self.fc(self.main(image)).flatten(1)


class SpectralNormConv(nn.Module):
    """A 4 x 4 convolution with stride 2 whose weight is divided by an estimate of its largest singular value.

    One power iteration at *every* forward, in evaluation as well; u and v start un-normalised. So outputs
    depend on how often the network was called: torch's own spectral norm would give other numbers.

    Two accidents of the official code are kept, as only with them its trained weights are met. u and v are
    parameters like any other, so that the optimiser moves them between power iterations. And gradients see u
    and v as they stand at the backward pass: the two forwards of L_D share the later ones.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(inputs, outputs, 4)
        self.weight_bar, self.bias = convolution.weight, convolution.bias
        self.weight_u = nn.Parameter(torch.randn(outputs))
        self.weight_v = nn.Parameter(torch.randn(inputs * 16))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight_bar.flatten(1)
        with torch.no_grad():
            v = F.normalize(matrix.T @ self.weight_u, dim=0, eps=1e-12)
            u = F.normalize(matrix @ v, dim=0, eps=1e-12)
        self.weight_u.data.copy_(u)  # .data: past autograd's check of saved tensors
        self.weight_v.data.copy_(v)
        sigma = self.weight_u @ (matrix @ self.weight_v)
        return F.conv2d(x, self.weight_bar / sigma, self.bias, stride=2, padding=1)
