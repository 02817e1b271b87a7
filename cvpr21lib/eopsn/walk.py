"""What EOPSN did with each training scene of the demo, step by step, for the chapter's figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from cvpr21lib.eopsn.demo import Demo
from cvpr21lib.eopsn.judge import SIZE, hidden
from cvpr21lib.eopsn.model import PanopticFPN
from cvpr21lib.eopsn.pseudo_truth import Rows, absolute
from cvpr21lib.eopsn.search import Search
from cvpr21lib.scenes.unknown_objects import Scene
from cvpr21lib.segmentation.panoptic import Panoptic

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Points:
    """m void proposals that were clustered together."""

    step: int
    """After which the clustering was."""
    plane: Array
    """(m, 2): the two directions in which their features differ most."""
    scene: Array
    """(m,), the scene of each."""
    boxes: Array
    """(m, 4), pixels."""
    cluster: Array
    """(m,)."""
    selected: Array
    """The clusters that passed; some may give no exemplar."""
    exemplars: Array
    """Which of the m became exemplars."""
    hidden: list[str]
    """What they really are: an unknown class, or clutter. EOPSN never sees this."""


@dataclass(frozen=True)
class Walk:
    """From proposals to panoptic maps, for n training scenes."""

    scenes: list[Scene]
    proposals: list[Array]
    """Of each scene, (p, 4), pixels; annotated boxes come last."""
    void: list[Array]
    """Which of them lie on void, (p,)."""
    rounds: list[Points]
    exemplars: list[Array]
    mined: list[Array]
    """Boxes of each scene, (e, 5): x1, y1, x2, y2 in pixels, and the label, 0 for the first found."""
    maps: list[Panoptic]


def walk(recipe: Demo, networks: Mapping[str, nn.Module]) -> Walk:
    """Look back on a finished run of EOPSN; `networks` as of `runs.weights`."""
    net, search, there = networks["net"], networks["search"], recipe.training
    assert isinstance(net, PanopticFPN)
    assert isinstance(search, Search)
    sampled = net.sample(there.proposals, [SIZE] * len(there.scenes), there.truths)
    boxes = [torch.cat([each.boxes, each.void.boxes]).numpy() for each in sampled]
    void = [np.arange(len(own)) >= len(each.boxes) for own, each in zip(boxes, sampled, strict=True)]
    rows = search.table.rows
    chosen = {
        (int(one["image"][i]), tuple(one["box"][i].tolist()))
        for one in search.rounds
        for i in one["exemplars"]
    }
    first = torch.tensor(
        [
            (int(image), tuple(box.tolist())) in chosen
            for image, box in zip(rows.image, rows.box, strict=True)
        ],
        dtype=torch.bool,
    )
    return Walk(
        there.scenes,
        boxes,
        void,
        [_points(there.scenes, one) for one in search.rounds],
        _by_scene(rows.take(first), len(there.scenes)),
        _by_scene(rows.take(~first), len(there.scenes)),
        recipe.maps(net, there),
    )


def _points(scenes: list[Scene], one: Mapping[str, Any]) -> Points:
    features = one["features"] - one["features"].mean(0)
    _, _, directions = torch.linalg.svd(features, full_matrices=False)
    signs = directions[:2].sum(1, keepdim=True).sign()  # a direction and its opposite are the same
    really = [
        hidden(scenes[place], box[None])[0] for place, box in zip(one["image"], one["box"], strict=True)
    ]
    return Points(
        one["step"],
        (features @ (signs * directions[:2]).T).numpy(),
        one["image"].numpy(),
        absolute(one["box"], SIZE).numpy(),
        one["cluster"].numpy(),
        one["selected"].numpy(),
        one["exemplars"].numpy(),
        really,
    )


def _by_scene(rows: Rows, count: int) -> list[Array]:
    boxes = torch.cat([absolute(rows.box, SIZE), rows.label[:, None]], 1)
    return [boxes[rows.image == place].numpy() for place in range(count)]
