"""A trained network on the target's validation images, for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from cvpr21lib import inference
from cvpr21lib.ctrl_uda import data, depth_metrics, evaluation, label_maps, weights
from cvpr21lib.ctrl_uda.data import TargetName
from cvpr21lib.ctrl_uda.recipe import EXPERIMENTS
from cvpr21lib.errors import InputError
from cvpr21lib.papers import pages


def command(
    checkpoint: Path,
    data_root: Path,
    target: TargetName = "cityscapes",
    resolution: Literal["full", "low"] = "full",
    *,
    depth: bool = False,
    device: str | None = None,
) -> str:
    """IoU of each class and their means, and with `depth` its errors, as Markdown.

    The checkpoint says how many classes there are. Images have the size of the experiment with this target
    and resolution, labels and depth their own.

    Raises:
        InputError: no such checkpoint, data set or experiment, or depth of Mapillary, which has none.
    """
    net = weights.open_network(checkpoint)
    sizes = {
        (each.target, each.num_classes, each.resolution): each.target_size for each in EXPERIMENTS.values()
    }
    wanted = (target, net.num_classes, resolution)
    if wanted not in sizes:
        listed = ", ".join(f"{name} with {count} classes in {of} resolution" for name, count, of in sizes)
        raise InputError(
            f"{checkpoint} has {net.num_classes} classes; there is no experiment on {target} with these in "
            f"{resolution} resolution, but on {listed}"
        )
    if depth and target != "cityscapes":
        raise InputError(f"{target} has no depth to compare with; only cityscapes has")
    there = data.open_validation(data_root, target, net.num_classes, sizes[wanted], depth=depth)
    used = inference.device(device)
    net.to(used)

    def samples(part: str) -> Iterator[tuple[Tensor, np.ndarray, str]]:
        for index in range(len(there)):
            one = there[index]
            yield one["image"], one[part], one["name"]

    classes = label_maps.CLASSES[net.num_classes]
    parts = [evaluation.evaluate(net, samples("label"), classes, device=used).table()]
    if depth:
        errors = depth_metrics.evaluate(net, samples("depth"), device=used)
        parts.append(pages.markdown(("depth", "error"), [(name, f"{v:.3f}") for name, v in errors.items()]))
    return "\n\n".join(parts)
