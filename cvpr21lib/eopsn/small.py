"""The demo's panoptic network, for scenes of 96 pixels a side, and its trained start.

The network is `PanopticFPN` with all that belongs to it, on a trunk of seven convolutions. Things are about
18 to 33 pixels large, so two levels for proposals and one for the heads are enough. EOPSN starts from a
network that was trained by void suppression; three of these, half a million parameters each, lie beside the
record.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from cvpr21lib import checkpoints
from cvpr21lib.eopsn.config import Config
from cvpr21lib.eopsn.masks import Bitmaps
from cvpr21lib.eopsn.model import Objects, PanopticFPN, Truth
from cvpr21lib.eopsn.semantic_head import SemanticHead
from cvpr21lib.errors import InputError
from cvpr21lib.scenes import unknown_objects
from cvpr21lib.scenes.unknown_objects import Scene

CHANNELS = 40
"""Of the feature pyramid."""

CONFIG = Config(
    known=len(unknown_objects.KNOWN),
    stuff=len(unknown_objects.STUFF),
    rpn_levels=("p2", "p3"),
    strides=(4, 8),
    anchor_sizes=((18, 25), (25, 32)),
    aspect_ratios=(1.0,),
    rpn_positive=0.55,
    rpn_batch=60,
    pre_nms=(80, 80),
    post_nms=(24, 40),
    roi_levels=("p2",),
    roi_batch=54,  # all
    roi_positive_fraction=0.5,
    sampling_ratio=1,
    box_fc=(128, 128),
    mask_convs=(32, 32),
    detections=40,
)
"""The small network; what is not named is as in the official one."""

BASES = 3
"""How many trained starts there are; the seed of a run, modulo this, says which is taken."""


def network(config: Config = CONFIG) -> PanopticFPN:
    """The small network, untrained."""
    semantic = SemanticHead(config.roi_levels, config.roi_strides, CHANNELS, config.semantic_classes, 64)
    return PanopticFPN(SmallTrunk(), semantic, config)


def load_base(seed: int) -> PanopticFPN:
    """The trained start for a run with this seed, in evaluation mode.

    Raises:
        InputError: the file is not there, as in an installed package, or does not fit.
    """
    path = base_file(seed)
    state = {name: value.to(torch.float32) for name, value in checkpoints.load(path).items()}
    net = network()
    checkpoints.fit(net, state, source=str(path))
    return net.eval()


def base_file(seed: int) -> Path:
    """Where the trained start for a run with this seed lies; `InputError` if it does not."""
    path = base_path(seed)
    if not path.exists():
        raise InputError(
            f"the trained start {path} is not there; it comes with a clone of the repository, not with an "
            f"installed package. `cvpr21 run eopsn-start --seed {seed % BASES} --out {path}` makes it anew"
        )
    return path


def base_path(seed: int) -> Path:
    """Where it should lie: beside the demo's record."""
    return Path(__file__).parents[2] / "book" / "records" / "eopsn" / f"base-{seed % BASES}.safetensors"


def images(scenes: Sequence[Scene]) -> Tensor:
    """Scenes as the network wants them: (N, 3, 96, 96), RGB in [-0.5, 0.5]."""
    return torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2) / 255 - 0.5


def truth(scene: Scene) -> Truth:
    """What is known of a scene in training: stuff and known things, and that the rest is void."""
    boxes, categories, masks = (getattr(scene, name)("known") for name in ("boxes", "categories", "masks"))
    return Truth(
        torch.from_numpy(scene.semantic).long(),
        Objects(torch.from_numpy(boxes), torch.from_numpy(categories)),
        Bitmaps(torch.from_numpy(masks)),
    )


class SmallTrunk(nn.Module):
    """Images (N, 3, H, W) to maps "p2", "p3", "p4" (N, 40, H/s, W/s), s = 4, 8, 16.

    Its batch normalisations are trained with the rest of the base, unlike those of the official trunk.
    """

    divisor = 16
    channels = CHANNELS
    levels = ("p2", "p3", "p4")

    def __init__(self) -> None:
        super().__init__()
        self.stage2 = nn.Sequential(*_layer(3, 16, stride=2), *_layer(16, 32, stride=2), *_layer(32, 32))
        self.stage3 = nn.Sequential(*_layer(32, 56, stride=2), *_layer(56, 56))
        self.stage4 = nn.Sequential(*_layer(56, 80, stride=2), *_layer(80, 80))
        self.fpn = FeaturePyramidNetwork([32, 56, 80], CHANNELS)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: OrderedDict[str, Tensor] = OrderedDict()
        x = images
        for level, stage in zip(self.levels, (self.stage2, self.stage3, self.stage4), strict=True):
            maps[level] = x = stage(x)
        return self.fpn(maps)


def _layer(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
