"""How the demo is judged: by panoptic maps of its scenes, and by what the exemplars really are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from cvpr21lib.eopsn import merge, quality, semantic_head, small
from cvpr21lib.eopsn.detections import Detections
from cvpr21lib.eopsn.masks import paste
from cvpr21lib.eopsn.model import PanopticFPN, Truth
from cvpr21lib.eopsn.proposals import Proposals, propose
from cvpr21lib.eopsn.pseudo_truth import Rows, absolute
from cvpr21lib.eopsn.quality import OpenQuality
from cvpr21lib.scenes import unknown_objects
from cvpr21lib.scenes.unknown_objects import KNOWN, SIDE, STUFF, UNKNOWN, Scene
from cvpr21lib.segmentation.panoptic import Category, Panoptic, Segment

SIZE = (SIDE, SIDE)
FIRST = {"known": 0, "stuff": len(KNOWN), "unknown": len(KNOWN) + len(STUFF)}
"""Where each kind of categories begins."""
CATEGORIES = {
    number: Category(name, name not in STUFF) for number, name in enumerate((*KNOWN, *STUFF, *UNKNOWN))
}


@dataclass(frozen=True)
class Seen:
    """Scenes, and what the parts of the start that stay as they are make of them."""

    scenes: list[Scene]
    maps: Tensor
    """p2, (n, 40, 24, 24)."""
    proposals: list[Proposals]
    semantic: np.ndarray[Any, Any]
    """The most probable class of each pixel, uint8 (n, 96, 96)."""
    truths: list[Truth]


@cache
def seen(seed: int, count: int, part: unknown_objects.Part, clutter: tuple[int, int]) -> Seen:
    """The first scenes of one part of a world, which all arms share."""
    net, scenes = small.load_base(seed), unknown_objects.scenes(seed, count, part, clutter)
    before, after = (most[0 if part == "train" else 1] for most in (net.config.pre_nms, net.config.post_nms))
    maps, proposals, semantic = [], [], []
    with torch.no_grad():
        for images in small.images(scenes).split(25):
            levels = net.trunk(images)
            maps.append(levels["p2"])
            proposals += propose(
                net.rpn(levels), [SIZE] * len(images), before, after, net.config.proposal_nms
            )
            semantic.append(semantic_head.upsample(net.semantic_head(levels), 4).argmax(1).byte())
    truths = [small.truth(scene) for scene in scenes]
    return Seen(scenes, torch.cat(maps), proposals, torch.cat(semantic).numpy(), truths)


def panoptic_maps(net: PanopticFPN, there: Seen, rule: merge.Rule) -> list[Panoptic]:
    """The final maps of the scenes."""
    stuff = {label + 1: FIRST["stuff"] + label for label in range(len(STUFF))}
    maps = {"p2": there.maps}
    found = net.detect(maps, there.proposals, [SIZE] * len(there.scenes))
    shapes = net.mask_probabilities(maps, [each.boxes for each in found])
    return [
        merge.merge(_instances(one, shape), semantic, stuff, rule).panoptic
        for one, shape, semantic in zip(found, shapes, there.semantic, strict=True)
    ]


def _instances(found: Detections, shapes: Tensor) -> list[merge.Instance]:
    patches = paste(shapes, found.boxes, SIZE)
    return [
        merge.Instance(patch.pixels.numpy(), patch.top, patch.left, score, label)
        for patch, score, label in zip(patches, found.scores.tolist(), found.labels.tolist(), strict=True)
    ]


def target(scene: Scene) -> Panoptic:
    """The panoptic ground truth; clutter is no object (see `quality`)."""
    segments = [
        quality.clutter(i + 1) if kind == "clutter" else Segment(i + 1, FIRST[kind] + category)
        for i, (kind, category) in enumerate(scene.segments)
    ]
    return Panoptic(scene.regions.astype(np.int32), tuple(segments))


def scores(scenes: Sequence[Scene], maps: Sequence[Panoptic]) -> dict[str, float]:
    """Panoptic quality in %, as of `OpenQuality.numbers`: "strict/...", where an unknown prediction on
    clutter is wrong, and "official/...", where it is excused."""
    unknown = range(FIRST["unknown"], len(CATEGORIES))
    judges = {name: OpenQuality(CATEGORIES, unknown) for name in ("strict", "official")}
    for scene, pred in zip(scenes, maps, strict=True):
        truth = target(scene)
        judges["strict"].add(truth, pred)
        judges["official"].add(quality.clutter_as_void(truth), pred)
    return {
        f"{name}/{number}": value
        for name, score in judges.items()
        for number, value in score.numbers().items()
        if not number.startswith("closed")
    }


def hidden(scene: Scene, box: Tensor) -> list[str]:
    """What boxes (n, 4), in [0, 1], really hold: an unknown class (IoU > 0.5), else "clutter"."""
    boxes = torch.from_numpy(scene.boxes("unknown"))
    iou, which = box_iou(absolute(box, SIZE), boxes).max(1)
    categories = scene.categories("unknown")
    return [
        UNKNOWN[categories[i]] if good else "clutter"
        for i, good in zip(which.tolist(), (iou > 0.5).tolist(), strict=True)
    ]


def purity(scenes: Sequence[Scene], rows: Rows) -> dict[str, float]:
    """How much of the pseudo ground truth is really unknown things.

    exemplars, labels       boxes, mined ones included; classes that were made of them
    classes                 hidden classes with at least two boxes
    purity                  share of the boxes that are on an unknown thing, %
    exemplars/<what>        boxes on each hidden class, and on none ("clutter")
    purity/<label>          share of a label's most frequent hidden class, %, and
    class/<label>           which that is: a position in `UNKNOWN`, or after it for clutter
    """
    what = np.array(
        [
            hidden(scenes[place], box[None])[0]
            for place, box in zip(rows.image.tolist(), rows.box, strict=True)
        ],
        dtype=object,
    )
    names = (*UNKNOWN, "clutter")
    counts = {name: int((what == name).sum()) for name in names}
    pure = len(what) - counts["clutter"]
    numbers = {
        "exemplars": float(len(what)),
        "labels": float(len(rows.label.unique())),
        "classes": float(sum(counts[name] > 1 for name in UNKNOWN)),
        "purity": 100 * pure / max(len(what), 1),
    } | {f"exemplars/{name}": float(count) for name, count in counts.items()}
    for label in rows.label.unique().tolist():
        own = what[(rows.label == label).numpy()]
        shares = [float((own == name).mean()) for name in names]
        numbers |= {f"purity/{label}": 100 * max(shares), f"class/{label}": float(np.argmax(shares))}
    return numbers


def ceiling(there: Seen) -> float:
    """Share of the unknown things that some proposal covers (IoU > 0.5): no arm can find more."""
    found = [
        (box_iou(torch.from_numpy(scene.boxes("unknown")), proposals.boxes).amax(1) > 0.5)
        for scene, proposals in zip(there.scenes, there.proposals, strict=True)
    ]
    return float(torch.cat(found).float().mean())
