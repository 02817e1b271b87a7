"""Image-adaptive 3D LUTs (Zeng et al., TPAMI 2020), the model of PPR10K: one colour map for each photograph.

A small network looks at a thumbnail and says how much of each of K learned LUTs the photograph needs; their
mixture is one LUT, which maps every pixel. The thumbnail is all the network sees, so its cost does not grow
with the photograph. Parameter names are those of the official checkpoints; `weights` reads them.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import lut


class Retoucher(nn.Module):
    """A predictor of K weights, K basis LUTs `luts` (K, 3, D, D, D), and their mixture applied to an image.

    At first LUT 1 is the identity and the others are zero, so that the output is the input times its first
    weight (official).

    Args:
        predictor: `ResNet18Predictor` (PPR10K) or `LightPredictor` (3DLUT).
        lut_size: D, points along an axis, from 2 on; 33 is official.
        identity_start: let the predictor's first weight start as exactly 1 for every photograph, so that all
            come out as they went in (ours; a start value only). The other weights start as ever: if they
            were 0 like their LUTs, neither would ever learn.
    """

    def __init__(self, predictor: Predictor, lut_size: int = 33, identity_start: bool = False) -> None:
        super().__init__()
        if lut_size < 2:
            raise InputError(f"lut_size is {lut_size}; a LUT needs at least 2 points along an axis.")
        self.predictor = predictor
        luts = torch.zeros(predictor.num_luts, 3, lut_size, lut_size, lut_size)
        luts[0] = lut.identity(lut_size)
        self.luts = nn.Parameter(luts)
        if identity_start:
            weight, bias = predictor.last.parameters()
            nn.init.zeros_(weight.detach()[0])
            nn.init.ones_(bias.detach()[:1])

    @overload
    def forward(self, image: Tensor, full: Tensor | None = None, *, views: int = 1) -> Tensor: ...
    @overload
    def forward(
        self, image: Tensor, full: Tensor | None = None, *, views: int = 1, with_weights: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self, image: Tensor, full: Tensor | None = None, *, views: int = 1, with_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Retouch `image`, or `full` as `image` asks for: both (N, 3, H, W) of any size, RGB in [0, 1].

        The LUTs are mixed first and applied once, which gives what the official K applications mixed
        afterwards give, at a K-th of the cost. Returns the shape of what was retouched, not clamped; with
        `with_weights` also the weights (N, K), which training regularises.

        `views`: so many equal parts of the batch are each seen by themselves, so that a batch norm takes its
        statistics over one of them, as in the official code, which calls the network once for each view.
        (Data-parallel training wants it in one call.)
        """
        weights = torch.cat([self.weights(part) for part in image.chunk(views)])
        out = lut.apply(lut.fuse(self.luts, weights), image if full is None else full)
        return (out, weights) if with_weights else out

    def weights(self, image: Tensor) -> Tensor:
        """How much of each LUT `image` (N, 3, H, W) needs: (N, K), of any sign and sum (no softmax)."""
        return self.predictor(image)

    def look(self, image: Tensor) -> Tensor:
        """The mixed LUT of each image: (N, 3, D, D, D)."""
        return lut.fuse(self.luts, self.weights(image))


class Predictor(nn.Module, ABC):
    """From an image (N, 3, H, W), RGB in [0, 1], to K weights (N, K); `thumbnail` is the side it looks at."""

    num_luts: int
    thumbnail: int
    model: nn.Module

    @property
    @abstractmethod
    def last(self) -> nn.Module:
        """The layer whose outputs are the K weights."""


class ResNet18Predictor(Predictor):
    """PPR10K's predictor: torchvision's ResNet-18 on 224 × 224 pixels, its head replaced by K outputs.

    Values go in as they are, in [0, 1], without ImageNet's mean and deviation (official). `pretrained` starts
    from ImageNet weights, as the paper does; `InputError` where they can be neither found nor fetched.
    """

    thumbnail = 224
    model: torchvision.models.ResNet

    def __init__(self, num_luts: int = 5, pretrained: bool = False) -> None:
        super().__init__()
        self.num_luts = _at_least_one(num_luts)
        self.model = torchvision.models.resnet18()
        if pretrained:
            self.model.load_state_dict(_imagenet())
        self.model.fc = nn.Linear(512, num_luts)

    @property
    def last(self) -> nn.Module:
        return self.model.fc

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, K)."""
        return self.model(resize(image, self.thumbnail))


class LightPredictor(Predictor):
    """3DLUT's predictor, 270 thousand parameters at K = 3: strided convolutions down to one pixel.

    Every convolution but the last is followed by LeakyReLU(0.2) and *then*, except the last of them, by an
    instance norm. The demo's is the same one smaller.

    Args:
        num_luts: K.
        thumbnail: side it looks at, in pixels; each convolution halves it. Official: 256.
        widths: channels of the strided convolutions. Official: 16, 32, 64, 128, 128.
        unpaired: the variant of 3DLUT's unpaired training: a norm after the first convolution only, and no
            dropout.
    """

    model: nn.Sequential

    def __init__(
        self,
        num_luts: int = 3,
        thumbnail: int = 256,
        widths: Sequence[int] = (16, 32, 64, 128, 128),
        unpaired: bool = False,
    ) -> None:
        super().__init__()
        self.num_luts, self.thumbnail = _at_least_one(num_luts), thumbnail
        side, rest = divmod(thumbnail, 2 ** len(widths))
        if rest or side < 1 or not widths:
            raise InputError(
                f"thumbnail is {thumbnail}; {len(widths)} convolutions that halve it need a multiple of "
                f"{2 ** len(widths)} pixels."
            )
        layers: list[nn.Module] = [Resize(thumbnail)]
        for position, (inputs, width) in enumerate(zip((3, *widths), widths, strict=False)):
            layers += [nn.Conv2d(inputs, width, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
            if position < len(widths) - 1 and (position == 0 or not unpaired):
                layers.append(nn.InstanceNorm2d(width, affine=True))
        if not unpaired:
            layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers, nn.Conv2d(widths[-1], num_luts, side))
        self._start()

    @property
    def last(self) -> nn.Module:
        return self.model[-1]

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, K)."""
        return self.model(image).flatten(1)

    def _start(self) -> None:
        """The official start: Xavier weights, norms near 1, and 1 as the bias of all K outputs."""
        for layer in self.model.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_normal_(layer.weight)
            elif isinstance(layer, nn.InstanceNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.ones_(self.last.bias)  # type: ignore[arg-type]


class Resize(nn.Module):
    """`resize` as a layer: the official light classifiers begin with it, so it has their number 0."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, image: Tensor) -> Tensor:
        return resize(image, self.side)


def resize(image: Tensor, side: int) -> Tensor:
    """The thumbnail (N, 3, side, side) of `image` (N, 3, H, W): bilinear *without* antialiasing (official).

    An image of that size already is returned as it is, so a thumbnail may be made beforehand.
    """
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise InputError(f"expected RGB images (N, 3, H, W), but got the shape {tuple(image.shape)}.")
    if image.shape[-2:] == (side, side):
        return image
    return F.interpolate(image, (side, side), mode="bilinear", align_corners=False)


def _at_least_one(num_luts: int) -> int:
    if num_luts < 1:
        raise InputError(f"num_luts is {num_luts}; a retoucher mixes at least 1 LUT.")
    return num_luts


def _imagenet() -> Mapping[str, Tensor]:
    """Torchvision's ImageNet weights of ResNet-18: from its cache, or fetched (45 MB)."""
    entry = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    try:
        return entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
        raise InputError(
            f"the ImageNet weights of ResNet-18 are not there and could not be fetched ({error}); bring "
            f"{entry.url} to {cached}, or start without them (pretrained=False)."
        ) from error
