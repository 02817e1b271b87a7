"""The region proposal network (Faster R-CNN): where something may be, whatever it is.

It is trained on known objects alone. Whether an anchor in void is an object nobody knows, so where it is not
told otherwise (`void_mode="background"`) it does not teach that there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from cvpr21lib.eopsn import boxes as box
from cvpr21lib.eopsn.config import Config


class Proposals(NamedTuple):
    """Of one image, the most object-like first."""

    boxes: Tensor  # (n, 4), inside the image
    objectness: Tensor  # (n,), logits


class RPNOutput(NamedTuple):
    """Of N images, level by level, with A anchors at the level."""

    anchors: list[Tensor]  # (A, 4)
    objectness: list[Tensor]  # (N, A), logits
    deltas: list[Tensor]  # (N, A, 4)


class RPN(nn.Module):
    """Scores and shifts the anchors of every level with the same two convolutions.

    The levels may have different numbers of anchors per point: the outputs are as many as the most need, and
    the others use the first ones.
    """

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        self.levels, self.strides = config.rpn_levels, config.strides
        for i, sizes in enumerate(config.anchor_sizes):
            self.register_buffer(f"cells_{i}", box.cells(sizes, config.aspect_ratios), persistent=False)
        most = max(len(self.get_buffer(f"cells_{i}")) for i in range(len(self.levels)))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness_logits, self.anchor_deltas = (
            nn.Conv2d(channels, most, 1),
            nn.Conv2d(channels, 4 * most, 1),
        )
        for layer in (self.conv, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Mapping[str, Tensor]) -> RPNOutput:
        output = RPNOutput([], [], [])
        for i, (level, stride) in enumerate(zip(self.levels, self.strides, strict=True)):
            cells = self.get_buffer(f"cells_{i}")
            x = F.relu(self.conv(maps[level]), inplace=True)
            number, _, height, width = x.shape
            scores = self.objectness_logits(x)[:, : len(cells)]
            deltas = self.anchor_deltas(x).view(number, -1, 4, height, width)[:, : len(cells)]
            output.anchors.append(box.anchors(height, width, stride, cells))
            output.objectness.append(scores.permute(0, 2, 3, 1).flatten(1).float())
            output.deltas.append(deltas.permute(0, 3, 4, 1, 2).reshape(number, -1, 4).float())
        return output


@torch.no_grad()
def propose(
    output: RPNOutput, sizes: Sequence[tuple[int, int]], pre_nms: int, post_nms: int, iou: float
) -> list[Proposals]:
    """The best proposals in images of `sizes` (height, width), clipped, without empty ones.

    Of each level the `pre_nms` best, without those that overlap a better one of the level by more than `iou`;
    of all levels the `post_nms` best.
    """
    boxes, objectness, levels = [], [], []
    for i, (anchors, scores, deltas) in enumerate(zip(*output, strict=True)):
        top, index = scores.topk(min(pre_nms, scores.shape[1]))
        chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4))
        decoded = box.decode(anchors[index].flatten(0, 1), chosen.flatten(0, 1), box.RPN_WEIGHTS)
        boxes.append(decoded.view(len(index), -1, 4))
        objectness.append(top)
        levels.append(torch.full_like(index[0], i))
    level = torch.cat(levels)
    return [
        _suppressed(of_image, scores, level, size, post_nms, iou)
        for of_image, scores, size in zip(torch.cat(boxes, 1), torch.cat(objectness, 1), sizes, strict=True)
    ]


def _suppressed(
    boxes: Tensor, objectness: Tensor, level: Tensor, size: tuple[int, int], most: int, iou: float
) -> Proposals:
    boxes = box.clip(boxes, size)
    valid = box.has_area(boxes) & objectness.isfinite()
    boxes, objectness, level = boxes[valid], objectness[valid], level[valid]
    keep = batched_nms(boxes, objectness, level, iou)[:most]
    return Proposals(boxes[keep], objectness[keep])
