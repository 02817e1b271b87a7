"""The first stage of CTRL-UDA on the paper's data: five experiments, with the paper's method or a baseline.

The official code evaluates on the validation images of the target every 5000 steps, and keeps the best model.
So do we. The labels that choose it are those that it is then judged by; the record says so, and has the
numbers of the last model as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset, Subset

from cvpr21lib import launch, runs
from cvpr21lib.ctrl_uda import (
    cross_task,
    data,
    deeplab,
    demo,
    discriminator,
    evaluation,
    label_maps,
    losses,
    model,
    optim,
    step,
    weights,
)
from cvpr21lib.ctrl_uda.cross_task import Kind
from cvpr21lib.ctrl_uda.data import TargetName, Training, Validation
from cvpr21lib.ctrl_uda.optim import BackboneRepeat
from cvpr21lib.ctrl_uda.step import METHODS, Adaptation, Method
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.runs import Phase
from cvpr21lib.segmentation import cityscapes, mapillary, metrics, streets, synthia

MethodName = Literal["source", "mtl", "advent", "mtl+advent", "dada", "ctrl-no-srh", "ctrl"]
Size = tuple[int, int]
"""(width, height), pixels."""


@dataclass(frozen=True)
class Experiment:
    """One of the paper's experiments: a target, classes, a resolution, and when the official runs stop."""

    target: TargetName
    num_classes: int
    resolution: Literal["full", "low"]
    source_size: Size
    target_size: Size
    """Of target images in training and in the test; scores are at the labels' own size."""
    early_stop: int
    """Steps of the first stage."""
    isl_stop: int
    """Steps of self-learning."""

    @property
    def name(self) -> str:
        """E.g. "cityscapes16-full"."""
        return f"{self.target}{self.num_classes}-{self.resolution}"

    @property
    def classes(self) -> tuple[str, ...]:
        return label_maps.CLASSES[self.num_classes]

    @property
    def scores(self) -> tuple[str, ...]:
        """What is measured; the first one chooses the best model."""
        thirteen = ("miou13",) if self.num_classes == 16 else ()
        return ("miou", *thirteen, *(f"iou/{name}" for name in self.classes))


EXPERIMENTS = {
    1: Experiment("cityscapes", 16, "full", (1280, 760), (1024, 512), 55_000, 20_000),
    2: Experiment("cityscapes", 7, "full", (1280, 760), (1024, 512), 45_000, 5_000),
    3: Experiment("cityscapes", 7, "low", (640, 320), (640, 320), 45_000, 5_000),
    4: Experiment("mapillary", 7, "full", (1280, 760), (1024, 768), 20_000, 10_000),
    5: Experiment("mapillary", 7, "low", (640, 320), (640, 320), 20_000, 10_000),
}
"""The source is SYNTHIA in all of them. In the official code the resolution is a flag of its own, and 3 and 5
without it silently run at the other one."""
SELECTION = "by mIoU on the target's validation images, whose labels are also those that it is judged by"


@dataclass(frozen=True)
class Settings:
    """All that makes a run of the first stage beside its experiment; the official configuration."""

    experiment: int
    method: MethodName
    steps: int
    """The official runs stop here, long before the schedule ends."""
    bins: Kind = "SID"
    num_depth_bins: int = 15
    lambda_seg: float = 1.0
    lambda_srh: float = 1.0
    """In the official code there is a weight of this name, which nothing reads; that of seg stands for it."""
    lambda_depth: float = 1e-3
    lambda_adv: float = 1e-3
    backbone_repeat: BackboneRepeat = "official"
    corrected_labels: bool = False
    batch_size: int = 1
    """Images of each domain a step, over all devices. Batch norm sees what is on one device at a time."""
    max_iters: int = 90_000
    """Where the learning rate would be 0."""
    lr: float = 2.5e-4
    """Of the backbone; decoder and heads have ten times as much."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    lr_discriminator: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    width_div: int = 1
    evaluate_every: int = 5_000
    workers: int = 4
    """Loader processes a device."""


@dataclass(frozen=True)
class Knobs:
    """What a reader may turn; None leaves the experiment's or the official value."""

    experiment: int | None = None
    """1 to 5, a must: Cityscapes with 16 classes; with 7, in full and in low resolution; Mapillary alike."""
    method: MethodName = "ctrl"
    """ctrl, ctrl-no-srh, or a baseline: source, mtl, advent, mtl+advent, dada."""
    init_weights: str | None = None
    """ImageNet weights of the backbone, a file, or random; None: the official file in the data root."""
    bins: Kind = "SID"
    """Depth bins: SID (released configurations) or SID2 (the paper, by a comment in the official code)."""
    num_depth_bins: int | None = None
    """K (15)."""
    lambda_seg: float | None = None
    """Weight of the cross-entropy of P (1)."""
    lambda_srh: float | None = None
    """Weight of the cross-entropy of R (1)."""
    lambda_depth: float | None = None
    """Weight of the depth's loss (0.001)."""
    lambda_adv: float | None = None
    """Weight of the adversarial loss (0.001)."""
    backbone_repeat: BackboneRepeat | None = None
    """official (each step updates backbone weights three to four times, as in the published runs) or once."""
    corrected_labels: bool | None = None
    """7 classes: count walls, riders, buses and motorcycles in the source too (official: no)."""
    batch_size: int | None = None
    """Images of each domain a step, over all devices (1)."""
    early_stop: int | None = None
    """Steps (55,000, 45,000 or 20,000, by the experiment)."""
    max_iters: int | None = None
    """Length of the learning rate's schedule (90,000)."""
    lr: float | None = None
    """Learning rate of the backbone (2.5e-4)."""
    evaluate_every: int | None = None
    """Steps between two evaluations, of which the best model is kept (5,000)."""
    width_div: int | None = None
    """Divides every number of channels (1)."""


def recipe(options: Options, knobs: Knobs | None = None) -> runs.Recipe:
    """The run that these options and knobs describe. In the demo profile only the method can be chosen.

    Raises:
        InputError: a knob outside its range, or missing data or weights.
    """
    knobs = knobs or Knobs()
    if options.profile == "demo":
        others = [
            name
            for name, value in asdict(knobs).items()
            if name != "method" and value != getattr(Knobs, name)
        ]
        if others:
            raise InputError(f'the demo has no {", ".join(others)}; set profile to "full", or leave it out')
        return demo.recipe(options, demo.Settings(method=knobs.method))
    chosen = experiment(options, knobs.experiment)
    assert knobs.experiment is not None
    steps = chosen.early_stop if knobs.early_stop is None else knobs.early_stop
    base = Settings(knobs.experiment, knobs.method, steps)
    given = {name: value for name, value in asdict(knobs).items() if value is not None}
    settings = replace(base, **{name: value for name, value in given.items() if hasattr(base, name)})
    check(settings)
    init = knobs.init_weights or str((options.data_root or Path("data")) / weights.IMAGENET)
    loaders = settings.workers if options.workers is None else options.workers
    made = SyntheticToReal(settings, chosen, init, options.data_root, loaders, options.progress)
    _ = weights.describe(init), made.training, made.validation  # what is missing shows now, not after hours
    return made


def experiment(options: Options, number: int | None) -> Experiment:
    """The experiment that was asked for; `InputError` if none was, or if it is to be a demo."""
    if options.profile == "demo":
        raise InputError('the experiments need the paper\'s data: set profile to "full"')
    if number not in EXPERIMENTS:
        listed = ", ".join(f"{key} ({value.name})" for key, value in EXPERIMENTS.items())
        raise InputError(f"experiment is {number}; it decides classes and resolution, and can be {listed}")
    return EXPERIMENTS[number]


class Best(model.CTRL):
    """The best model so far, and with which scores; part of the run's networks, so it is saved with them."""

    def __init__(self, num_classes: int, width_div: int, names: Sequence[str]) -> None:
        super().__init__(num_classes, width_div)
        self.names = tuple(names)
        self.register_buffer(weights.SCORES, torch.full((len(names),), math.nan, dtype=torch.float64))
        self.scores: Tensor

    def update(self, net: nn.Module, numbers: Mapping[str, float]) -> None:
        """Become `net` if the first of its numbers is above that of the best one."""
        if not self.scores[0] >= numbers[self.names[0]]:  # NaN, in the beginning, is not above anything
            found = [numbers.get(name, math.nan) for name in self.names]
            scores = torch.tensor(found, dtype=self.scores.dtype)
            self.load_state_dict(net.state_dict() | {weights.SCORES: scores})

    @property
    def numbers(self) -> dict[str, float]:
        """best_miou and so on; a class that is not there has none."""
        found = zip(self.names, self.scores.tolist(), strict=True)
        return {f"best_{name}": value for name, value in found if not math.isnan(value)}


@dataclass(frozen=True)
class SyntheticToReal(runs.ChosenRecipe):
    """Learn streets from SYNTHIA, adapt to real ones, and be judged on them."""

    chosen: Settings
    experiment: Experiment
    init: str
    data_root: Path | None = None
    loaders: int = 0
    """Loader processes of the evaluation."""
    progress: bool = True

    paper = "ctrl_uda"
    sources = (
        model, deeplab, discriminator, weights, optim, step, cross_task, losses, data, label_maps, evaluation,
        metrics, streets, synthia, cityscapes, mapillary,
    )  # fmt: skip

    @property
    def name(self) -> str:  # type: ignore[override]
        """E.g. "ctrl-cityscapes16-full"; what else differs stands in the settings."""
        return f"{self.chosen.method}-{self.experiment.name}"

    @property
    def method(self) -> Method:
        return METHODS[self.chosen.method]

    def settings(self) -> Mapping[str, Any]:
        """The settings and the experiment; initial weights by what they are, not by where they lie."""
        return {
            **asdict(self.chosen),
            "data": asdict(self.experiment),
            "init": weights.describe(self.init),
            "model_selection": SELECTION,
        }

    def networks(self) -> dict[str, nn.Module]:
        """The network without what its method never trains, the best one so far, and the discriminator."""
        c, classes = self.chosen, self.experiment.num_classes
        net = model.CTRL(classes, c.width_div)
        weights.initialise(net, self.init)
        seen = step.SEEN[self.method.space]
        net.head_dep.requires_grad_(self.method.depth or "depth" in seen)
        net.head_srh.requires_grad_(self.method.refined or "refined" in seen)
        found: dict[str, nn.Module] = {
            "net": net,
            "best": Best(classes, c.width_div, self.experiment.scores),
        }
        channels = step.channels(self.method, classes, c.num_depth_bins)
        return found | (
            {"discriminator": discriminator.Discriminator(channels, max(1, 64 // c.width_div))}
            if channels
            else {}
        )

    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        c, net = self.chosen, cast(model.CTRL, networks["net"])
        found: dict[str, Optimizer] = {
            "net": optim.sgd(net, c.lr, c.momentum, c.weight_decay, c.backbone_repeat)
        }
        if "discriminator" in networks:
            found["discriminator"] = Adam(
                networks["discriminator"].parameters(), c.lr_discriminator, betas=c.betas
            )
        return found

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        return {name: optim.poly(optimizer, self.chosen.max_iters) for name, optimizer in optimizers.items()}

    def data(self) -> Dataset[Any]:
        return self.training

    @cached_property
    def training(self) -> Training:
        e, c = self.experiment, self.chosen
        return data.open_training(
            self.data_root,
            e.target,
            e.num_classes,
            e.source_size,
            e.target_size,
            depth=self.method.depth,
            corrected=c.corrected_labels,
        )

    @cached_property
    def validation(self) -> Validation:
        e = self.experiment
        return data.open_validation(self.data_root, e.target, e.num_classes, e.target_size)

    def phases(self) -> Sequence[Phase]:
        c = self.chosen
        return Adaptation(
            self.method,
            cross_task.bins(c.bins, c.num_depth_bins),
            c.lambda_seg,
            c.lambda_srh,
            c.lambda_depth,
            c.lambda_adv,
        ).phases()

    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """In %: miou, miou13 (of 16 classes), iou/CLASS; and best_miou and so on of the best model so far."""
        loaders, progress = self.loaders, self.progress
        return evaluate(networks, self.validation, self.experiment, fabric, loaders, progress)


def evaluate(
    networks: Mapping[str, nn.Module],
    validation: Validation,
    experiment: Experiment,
    fabric: Fabric,
    workers: int = 0,
    progress: bool = False,
) -> dict[str, float]:
    """The numbers of networks["net"], and those of networks["best"], which becomes it if it is better.

    Each process takes its share of the images.
    """
    share = Subset(validation, range(fabric.global_rank, len(validation), fabric.world_size))
    report = evaluation.evaluate(
        networks["net"],
        _in_turn(share, workers, next(networks["net"].parameters()).dtype),
        experiment.classes,
        device=fabric.device,
        progress=progress and fabric.global_rank == 0,
    )
    total = fabric.all_reduce(torch.from_numpy(report.confusion).to(fabric.device), reduce_op="sum")
    numbers = replace(report, confusion=cast(Tensor, total).cpu().numpy()).numbers
    best = cast(Best, networks["best"])
    best.update(networks["net"], numbers)
    return numbers | best.numbers


def _in_turn(
    share: Dataset[Any], workers: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, np.ndarray, str]]:
    loader: DataLoader[Any] = DataLoader(
        share,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=launch.ignore_interrupts,
    )
    for sample in loader:
        yield sample["image"].to(dtype), sample["label"], sample["name"]


def _as_it_is(sample: Any) -> Any:
    return sample


def check(settings: Settings) -> None:
    """`InputError` for the first setting outside its range."""
    allowed: dict[str, Sequence[Any]] = {
        "method": get_args(MethodName),
        "bins": ("SID", "SID2"),
        "backbone_repeat": get_args(BackboneRepeat),
    }
    for name, values in allowed.items():
        if getattr(settings, name) not in values:
            raise InputError(f"{name} is {getattr(settings, name)!r}; it can be {', '.join(values)}")
    for name in ("steps", "batch_size", "max_iters", "lr", "evaluate_every", "width_div"):
        if not getattr(settings, name) > 0:
            shown = "early_stop" if name == "steps" else name
            raise InputError(f"{shown} is {getattr(settings, name)!r}; it must be above 0")
    for name in ("lambda_seg", "lambda_srh", "lambda_depth", "lambda_adv"):
        if not getattr(settings, name) >= 0:
            raise InputError(f"{name} is {getattr(settings, name)!r}; it must be 0 or more")
    if settings.num_depth_bins < 2:
        raise InputError(f"num_depth_bins is {settings.num_depth_bins}; it must be 2 or more")
    if settings.steps > settings.max_iters:
        raise InputError(
            f"early_stop is {settings.steps}, beyond max_iters ({settings.max_iters}), where the learning "
            "rate is 0; make it less, or max_iters more"
        )
