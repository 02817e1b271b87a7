"""The demo's start: a small network, trained by void suppression on scenes of its own.

    cvpr21 run eopsn-start --seed 0 --out book/records/eopsn/base-0.safetensors

The paper's EOPSN starts from such a network, too; its own was never released with the script that made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import Dataset

from cvpr21lib import atomic, runs
from cvpr21lib.eopsn import (
    boxes,
    config,
    heads,
    losses,
    masks,
    model,
    proposals,
    roi,
    semantic_head,
    small,
    targets,
    void,
)  # fmt: skip
from cvpr21lib.eopsn.model import Batch
from cvpr21lib.options import Options
from cvpr21lib.runs import Loss, Phase, Step
from cvpr21lib.sampling import Draw
from cvpr21lib.scenes import unknown_objects
from cvpr21lib.scenes.unknown_objects import SIDE

NETWORK = (
    boxes, config, heads, losses, masks, model, proposals, roi, semantic_head, small, targets, void,
)  # fmt: skip
"""Modules that a small network is made of.

:meta hide-value:
"""
FIRST_WORLD = 10_000
"""Its scenes are those of the worlds from here on, which nothing else uses."""


@dataclass(frozen=True)
class Settings:
    """All that makes the start, with the small network's `CONFIG`."""

    steps: int = 1000
    batch_size: int = 12
    scenes: int = 400
    lr: float = 3e-3
    """The highest of a one-cycle schedule."""
    weight_decay: float = 1e-3
    clip: float = 5.0
    """Longest gradient, over all parameters."""
    workers: int = 0


@dataclass(frozen=True)
class Knobs:
    """What a reader may turn."""

    out: Path | None = None
    """Where the weights go, with half the bits; None: only the run's own are left."""


def recipe(options: Options, knobs: Knobs | None = None) -> Start:
    """The training of the start with this seed."""
    knobs = knobs or Knobs()
    return Start(Settings(), options.seed, None if knobs.out is None else Path(knobs.out))


@dataclass(frozen=True)
class Start(runs.ChosenRecipe):
    """Train a whole small network by void suppression."""

    chosen: Settings
    seed: int = 0
    out: Path | None = None

    paper = "eopsn"
    name = "start"
    sources = (*NETWORK, unknown_objects)

    def settings(self) -> Mapping[str, Any]:
        return {**asdict(self.chosen), "network": asdict(small.CONFIG)}

    def networks(self) -> dict[str, nn.Module]:
        return {"net": small.network()}

    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        c = self.chosen
        return {
            "net": clipped(AdamW(networks["net"].parameters(), c.lr, weight_decay=c.weight_decay), c.clip)
        }

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        return {name: OneCycleLR(each, self.chosen.lr, self.steps) for name, each in optimizers.items()}

    def data(self) -> Dataset[Any]:
        return Places(self.chosen.scenes)

    @cached_property
    def scenes(self) -> list[unknown_objects.Scene]:
        return unknown_objects.scenes(FIRST_WORLD + self.seed, self.chosen.scenes)

    @cached_property
    def images(self) -> Tensor:
        return small.images(self.scenes)

    @cached_property
    def truths(self) -> list[model.Truth]:
        return [small.truth(scene) for scene in self.scenes]

    def phases(self) -> Sequence[Phase]:
        return [Phase("net", self._loss)]

    def _loss(self, step: Step) -> Loss:
        return Loss(self.losses(step.networks["net"], step.batch["place"].tolist()))

    def losses(self, net: nn.Module, places: Sequence[int]) -> dict[str, Tensor]:
        """The losses of these scenes."""
        batch = Batch(self.images[places], [(SIDE, SIDE)] * len(places))
        return net(batch, [self.truths[place] for place in places]).losses

    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """The losses on its own first 24 scenes. Writes the weights, if they are wanted."""
        torch.manual_seed(0)
        found = self.losses(networks["net"], range(24))
        if self.out is not None:
            write(self.out, networks["net"])
        return {name: float(value) for name, value in found.items()}


class Places(Dataset[dict[str, int]]):
    """Numbers of scenes, which the run itself holds."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, draw: Draw) -> dict[str, int]:
        return {"place": draw.index}


def clipped(optimizer: Optimizer, most: float) -> Optimizer:
    """The optimiser, which from now on shortens gradients to the norm `most` before each of its steps."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def shorten(*_: Any) -> None:
        nn.utils.clip_grad_norm_(parameters, most)

    optimizer.register_step_pre_hook(shorten)
    return optimizer


def write(path: Path, net: nn.Module) -> None:
    """Keep the weights with 16 bits each: half the size, the same scores."""
    state = {
        name: value.detach().cpu().half().contiguous() if value.is_floating_point() else value.cpu()
        for name, value in net.state_dict().items()
    }
    with atomic.write(path) as temporary:
        save_file(state, temporary)
