"""The demo's backbone: four convolutions, for images of about 48 pixels a side."""

from __future__ import annotations

from torch import Tensor, nn


class SmallBackbone(nn.Module):
    """Image to features: (N, 3, H, W) to (N, 48, ⌈H/4⌉, ⌈W/4⌉), not negative.

    Trained from scratch, so that its batch normalisations learn their statistics, unlike ResNet38's.
    """

    channels = 48

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_layer(3, 24, stride=2), *_layer(24, 32, stride=2), *_layer(32, 48), *_layer(48, 48, dilation=2)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def _layer(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
