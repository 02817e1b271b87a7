"""A narrow network of the official kind, and truths to train it on."""

from __future__ import annotations

from typing import Any

import torch

from cvpr21lib.eopsn import masks, model
from cvpr21lib.eopsn.config import Config

WIDTHS = model.Widths(stem=8, res2=16, bottleneck=4, pyramid=16, semantic=32)
SIZE = (64, 96)


def config(**changes: Any) -> Config:
    small: dict[str, Any] = {
        "known": 3,
        "stuff": 2,
        "anchor_sizes": ((8,), (16,), (32,), (64,), (128,)),
        "pre_nms": (50, 50),
        "post_nms": (30, 30),
        "box_fc": (12, 10),
        "mask_convs": (8,),
        "rpn_batch": 64,
        "roi_batch": 32,
    }
    return Config(**(small | changes))


def network(**changes: Any) -> model.PanopticFPN:
    torch.manual_seed(0)
    net = model.panoptic_fpn(config(**changes), WIDTHS)
    for name, module in net.named_modules():
        if name.endswith("bn3"):
            module.weight.fill_(0.2)  # as in a trained network, blocks do not blow the values up
    return net


def images(count: int = 2) -> model.Batch:
    values = torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return model.stack(list(values), divisor=32)


def truth(boxes: list[list[float]] | None = None, void: str = "some") -> model.Truth:
    """Objects of the classes 0, 1, ... on stuff 1; void is the right third, "none", or "all" of the image."""
    boxes = [[10, 10, 40, 40], [30, 20, 60, 60]] if boxes is None else boxes
    semantic = torch.ones(SIZE, dtype=torch.int64)
    pixels = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(pixels, boxes, strict=True):
        mask[max(0, int(y1)) : max(0, int(y2)), max(0, int(x1)) : max(0, int(x2))] = True
    semantic[pixels.any(0)] = 0
    if void == "some":
        semantic[:, 64:] = 3
    if void == "all":
        semantic[:] = 3
    objects = model.Objects(torch.tensor(boxes).view(-1, 4).float(), torch.arange(len(boxes)))
    return model.Truth(semantic, objects, masks.Bitmaps(pixels))
