"""The second stage, iterative self-learning: confident predictions on the target become its labels.

It starts from a network of the first stage, with a fresh optimiser and a learning rate that starts anew. As
released it learns from the pseudo-labels alone, without source, depth, refinement or adversary.

The labels are those of a teacher, which is the network as it was at the start, and is replaced by the network
before the steps 10001, 20001, ... (counted from 0). With the official lengths that happens once for the
16 classes, and never in the other experiments. `isl_period` makes it as often as the word iterative promises.

A label is made when it is first needed, at the size that the network sees, and kept as a PNG in a folder with
the teacher's fingerprint as its name. The teacher is one of the run's networks, so it is resumed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from cvpr21lib import inference, runs
from cvpr21lib.ctrl_uda import data, model, optim, pseudo_labels, weights
from cvpr21lib.ctrl_uda import recipe as first_stage
from cvpr21lib.ctrl_uda.data import Target, Validation
from cvpr21lib.ctrl_uda.optim import BackboneRepeat
from cvpr21lib.ctrl_uda.recipe import Best, Experiment
from cvpr21lib.ctrl_uda.step import SelfLearning
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.runs import Phase, Step
from cvpr21lib.sampling import Draw
from cvpr21lib.segmentation import stored


@dataclass(frozen=True)
class Settings:
    """All that makes a run of self-learning beside its experiment; the official configuration."""

    experiment: int
    steps: int
    threshold: float = pseudo_labels.THRESHOLD
    """A pixel is labelled where the likeliest class has at least this probability."""
    period: int = 10_000
    """Steps between two teachers; 0: there is only the first one."""
    backbone_repeat: BackboneRepeat = "official"
    batch_size: int = 1
    max_iters: int = 90_000
    lr: float = 2.5e-4
    momentum: float = 0.9
    weight_decay: float = 5e-4
    evaluate_every: int = 5_000
    workers: int = 4
    """Loader processes a device."""


@dataclass(frozen=True)
class Knobs:
    """What a reader may turn; None leaves the experiment's or the official value."""

    experiment: int | None = None
    """1 to 5, a must: that of the first stage."""
    start: Path | None = None
    """Weights of the first stage, a must: best.safetensors of its run, or an official checkpoint."""
    isl_threshold: float | None = None
    """Probability from which on a pixel is labelled (0.9)."""
    isl_period: int | None = None
    """Steps between two teachers; 0: there is only the first one (10,000)."""
    isl_stop: int | None = None
    """Steps (20,000, 5,000 or 10,000, by the experiment)."""
    max_iters: int | None = None
    """Length of the learning rate's schedule (90,000)."""
    backbone_repeat: BackboneRepeat | None = None
    """official (each step updates backbone weights three to four times, as in the published runs) or once."""
    batch_size: int | None = None
    """Images a step, over all devices (1)."""
    lr: float | None = None
    """Learning rate of the backbone (2.5e-4)."""
    evaluate_every: int | None = None
    """Steps between two evaluations, of which the best model is kept (5,000)."""


def recipe(options: Options, knobs: Knobs | None = None) -> SelfTraining:
    """The run that these options and knobs describe.

    Raises:
        InputError: a knob outside its range, or missing data or weights.
    """
    knobs = knobs or Knobs()
    chosen = first_stage.experiment(options, knobs.experiment)
    assert knobs.experiment is not None
    if knobs.start is None:
        raise InputError(
            "start is not set: name the weights of the first stage, best.safetensors in the folder of its "
            "run, or an official checkpoint"
        )
    steps = chosen.isl_stop if knobs.isl_stop is None else knobs.isl_stop
    given = {name.removeprefix("isl_"): value for name, value in asdict(knobs).items() if value is not None}
    base = Settings(knobs.experiment, steps)
    settings = replace(base, **{name: value for name, value in given.items() if hasattr(base, name)})
    _check(settings)
    labels = options.folder("ctrl_uda", f"isl-{chosen.name}") / "pseudo_labels"
    loaders = settings.workers if options.workers is None else options.workers
    made = SelfTraining(
        settings, chosen, Path(knobs.start), labels, options.data_root, loaders, options.progress
    )
    _ = made.settings(), made.training, made.validation  # what is missing shows now, not after hours
    return made


@dataclass(frozen=True)
class SelfTraining(runs.ChosenRecipe):
    """Learn the target from what the network was sure of."""

    chosen: Settings
    experiment: Experiment
    start: Path
    labels: Path
    """Where the pseudo-labels go."""
    data_root: Path | None = None
    loaders: int = 0
    """Loader processes of the evaluation."""
    progress: bool = True

    paper = "ctrl_uda"
    sources = (*first_stage.SyntheticToReal.sources, first_stage, pseudo_labels, stored, inference)

    @property
    def name(self) -> str:  # type: ignore[override]
        """E.g. "isl-cityscapes16-full"; what it starts from stands in the settings."""
        return f"isl-{self.experiment.name}"

    def settings(self) -> Mapping[str, Any]:
        """The settings and the experiment; the start by what it is, not by where it lies."""
        return {
            **asdict(self.chosen),
            "data": asdict(self.experiment),
            "start": weights.describe(self.start),
            "model_selection": first_stage.SELECTION,
        }

    def networks(self) -> dict[str, nn.Module]:
        """The network without heads for depth and refinement to train, its teacher, and the best so far."""
        net, classes = weights.open_network(self.start), self.experiment.num_classes
        if net.num_classes != classes:
            raise InputError(
                f"{self.start} holds a network for {net.num_classes} classes, and experiment "
                f"{self.chosen.experiment} has {classes}; start from its own first stage"
            )
        teacher, best = copy.deepcopy(net), Best(classes, net.width_div, self.experiment.scores)
        for head in (net.head_dep, net.head_srh):
            head.requires_grad_(False)
        return {"net": net, "teacher": teacher, "best": best}

    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        c, net = self.chosen, cast(model.CTRL, networks["net"])
        return {"net": optim.sgd(net, c.lr, c.momentum, c.weight_decay, c.backbone_repeat)}

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        return {"net": optim.poly(optimizers["net"], self.chosen.max_iters)}

    def data(self) -> Dataset[Any]:
        return self.training

    @cached_property
    def training(self) -> Images:
        e = self.experiment
        return Images(data.open_target(self.data_root, e.target, e.target_size))

    @cached_property
    def validation(self) -> Validation:
        e = self.experiment
        return data.open_validation(self.data_root, e.target, e.num_classes, e.target_size)

    def phases(self) -> Sequence[Phase]:
        c = self.chosen
        return SelfLearning(Teacher(self.labels, c.threshold, c.period, self.experiment.num_classes)).phases()

    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """As in the first stage."""
        loaders, progress = self.loaders, self.progress
        return first_stage.evaluate(networks, self.validation, self.experiment, fabric, loaders, progress)


class Images(Dataset[dict[str, Any]]):
    """The target's training images: `dataset[Draw]` is {"target": (3, h, w), "name": str}."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        return {**self.target[draw.index], "name": self.target.frames.names[draw.index]}

    def fingerprint(self) -> str:
        """The frames' (for the record)."""
        return self.target.fingerprint()


class Teacher:
    """Pseudo-labels of a batch, by the teacher among the networks; it is replaced when its time is over."""

    def __init__(self, folder: Path, threshold: float, period: int, num_classes: int) -> None:
        self.folder, self.threshold, self.period, self.num_classes = folder, threshold, period, num_classes
        self._replaced: int | None = None
        self._fingerprint: str | None = None

    def __call__(self, step: Step) -> Tensor:
        """(B, h, w) int64, 255 where the teacher is not sure."""
        teacher = step.networks["teacher"]
        if self.is_replaced_before(step.number) and self._replaced != step.number:
            teacher.load_state_dict(step.networks["net"].state_dict())
            self._replaced, self._fingerprint = step.number, None
        if self._fingerprint is None:
            self._fingerprint = pseudo_labels.fingerprint(teacher, self.threshold, "one by one")
        found = [
            self._label(teacher, name, image)
            for name, image in zip(step.batch["name"], step.batch["target"], strict=True)
        ]
        return torch.from_numpy(np.stack(found)).to(step.batch["target"].device, torch.int64)

    def is_replaced_before(self, number: int) -> bool:
        """Whether the step `number`, from 0, has a new teacher: 10001, 20001, ... in the official code."""
        return self.period > 0 and number > 1 and number % self.period == 1 % self.period

    def _label(self, teacher: nn.Module, name: str, image: Tensor) -> np.ndarray:
        assert self._fingerprint is not None
        folder = self.folder / self._fingerprint
        if not (folder / f"{name}.png").is_file():
            dtype = next(teacher.parameters()).dtype
            with inference.evaluating(teacher):
                logits = teacher(image[None].to(dtype))[0]
            label = pseudo_labels.confident(logits, image.shape[1:], self.threshold)[0].cpu().numpy()
            pseudo_labels.write(folder / f"{name}.png", label, self.num_classes, self._fingerprint)
        return pseudo_labels.read(folder, name, self.num_classes)


def _check(settings: Settings) -> None:
    for name, shown in {"steps": "isl_stop", "batch_size": "", "max_iters": "", "lr": ""}.items():
        if not getattr(settings, name) > 0:
            raise InputError(f"{shown or name} is {getattr(settings, name)!r}; it must be above 0")
    if not 0 < settings.threshold <= 1:
        raise InputError(f"isl_threshold is {settings.threshold}; it is a probability, above 0 and up to 1")
    if settings.period < 0:
        raise InputError(f"isl_period is {settings.period}; it must be above 0, or 0 for one teacher only")
    if settings.steps > settings.max_iters:
        raise InputError(
            f"isl_stop is {settings.steps}, beyond max_iters ({settings.max_iters}), where the learning rate "
            "is 0; make it less, or max_iters more"
        )
