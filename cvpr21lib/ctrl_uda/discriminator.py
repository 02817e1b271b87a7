"""The discriminator: where in the image does it look like source, where like target?"""

from __future__ import annotations

from torch import nn

from cvpr21lib.errors import InputError


class Discriminator(nn.Sequential):
    """What `step.Adaptation.seen` makes, (N, channels, H, W), to logits (N, 1, ⌊H/32⌋, ⌊W/32⌋).

    Above 0 it says target. H and W are 32 or more. PyTorch's own initial weights; DCGAN's layout, without
    normalisation.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        if channels < 1:
            raise InputError(f"the discriminator has {channels} input channels; expected 1 or more")
        layers: list[nn.Module] = []
        for outputs in (width, 2 * width, 4 * width, 8 * width):
            layers += [nn.Conv2d(channels, outputs, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
            channels = outputs
        super().__init__(*layers, nn.Conv2d(channels, 1, 4, 2, 1))
