"""The critics of LPTN's adversarial training (section 3.4 of the paper).

Both released trainings use the single-scale `Discriminator`. The paper describes three scales; the official
code holds two such classes, which none of its configurations uses. Parameter names are the official ones.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cvpr21lib.errors import InputError


class Discriminator(nn.Module):
    """One logit an image, from five halvings and one convolution over all that remains.

    Args:
        input_size: every image is first resized (bilinear) to this square: 256 in the official code, whatever
            the crop. A multiple of 32; others suit smaller crops (the last kernel is input_size / 32 wide).
        norm: the instance norm after the first convolution. It removes the mean and scale of each channel,
            which is most of what exposure and white balance change; a short training needs it off.
    """

    def __init__(self, input_size: int = 256, norm: bool = True) -> None:
        super().__init__()
        self.model = _single_scale(input_size, norm)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, 1, 1, 1)."""
        return self.model(image)


class MultiScaleDiscriminator(nn.Module):
    """Three `Discriminator`s, on the image and on its once and twice halved versions.

    The official `MultiDiscriminator_d`. As each resizes its input to `input_size`, the scales differ in
    sharpness only.
    """

    def __init__(self, input_size: int = 256, norm: bool = True) -> None:
        super().__init__()
        self.models = nn.ModuleDict({f"disc_{i}": _single_scale(input_size, norm) for i in range(3)})

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to three logits (N, 1, 1, 1), finest scale first."""
        return _at_three_scales(self.models, image)


class Pix2PixHDDiscriminator(nn.Module):
    """Three patch critics after pix2pixHD, on the image halved 0, 1 and 2 times.

    The official `MultiDiscriminator`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.models = nn.ModuleDict({f"disc_{i}": _patches() for i in range(3)})

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to three maps of logits, (N, 1, H/16, W/16) rounded down, then /32 and /64."""
        return _at_three_scales(self.models, image)


def _single_scale(input_size: int, norm: bool) -> nn.Sequential:
    if input_size < 32 or input_size % 32:
        raise InputError(f"input_size is {input_size}; the discriminator needs a multiple of 32 pixels.")
    return nn.Sequential(
        nn.Upsample(size=(input_size, input_size), mode="bilinear", align_corners=False),
        *_halve(3, 16),
        nn.InstanceNorm2d(16, affine=True) if norm else nn.Identity(),
        *_halve(16, 32),
        *_halve(32, 64),
        *_halve(64, 128),
        *_halve(128, 128),
        nn.Conv2d(128, 1, input_size // 32),
    )


def _patches() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    for inputs, outputs in ((64, 128), (128, 256), (256, 512)):
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.InstanceNorm2d(outputs)]
        layers += [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 3, padding=1))


def _halve(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(0.2)


def _at_three_scales(models: nn.ModuleDict, image: Tensor) -> list[Tensor]:
    logits = []
    for model in models.values():
        logits.append(model(image))
        image = F.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)
    return logits
