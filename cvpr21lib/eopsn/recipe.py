"""EOPSN and its baselines, trained and judged: on COCO as in the paper (full), and the demo's scenes.

The paper's recipe has two parts: one of four treatments of void, from ImageNet weights; then EOPSN, from what
void suppression left, with the same classes unknown.

    cvpr21 run eopsn --profile full --method suppression --k 20 --data-root data --output-dir runs/suppression
    cvpr21 run eopsn --profile full --k 20 --weights runs/suppression/net.safetensors --data-root data
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset

from cvpr21lib import runs
from cvpr21lib.eopsn import (
    boxes,
    classes,
    clustering,
    data,
    demo,
    detections,
    discoveries,
    exemplars,
    fpn,
    heads,
    kmeans,
    losses,
    masks,
    memory,
    merge,
    mining,
    model,
    open_set,
    predict,
    processes,
    proposals,
    pseudo_truth,
    quality,
    resnet,
    roi,
    search,
    semantic_head,
    targets,
    trained,
    void,
    weights,
)
from cvpr21lib.eopsn import config as config_module
from cvpr21lib.eopsn.clustering import Schedule, Selection
from cvpr21lib.eopsn.config import Config
from cvpr21lib.eopsn.data import Augmentation, Example, Examples, Test, Training
from cvpr21lib.eopsn.discoveries import Discoveries
from cvpr21lib.eopsn.model import PanopticFPN, Widths
from cvpr21lib.eopsn.open_set import AsIs, OpenSet
from cvpr21lib.eopsn.trained import Method
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.runs import Loss, Phase, Step
from cvpr21lib.sampling import Draw
from cvpr21lib.segmentation import coco2017, panoptic, panoptic_quality

BACKBONE = "R-50.pkl"
"""MSRA's ResNet-50, as detectron2 offers it; expected in the data root."""
RANDOM = "random"
"""Instead of a file of weights: none, for small experiments."""
BATCH = 32
"""The batch for which the paper's learning rates are meant."""


@dataclass(frozen=True)
class Settings:
    """All that makes a run on COCO; the values here are EOPSN's with K = 20 %."""

    method: Method = "eopsn"
    """A treatment of void (background, ignorance, suppression or train), or eopsn."""
    k: int = 20
    """K, the share of the things that are unknown, %: 5, 10 or 20."""
    steps: int = 30_000
    batch_size: int = BATCH
    """Images a step over all devices. With `Options.devices` and `accumulate`, 4 at a time are official."""
    lr: float = 4e-4
    milestones: tuple[int, ...] = ()
    """Steps at which the learning rate falls to a tenth."""
    warmup: int = 1000
    """Steps in which the learning rate grows evenly, from a thousandth."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    """Not of normalisations."""
    clusters: int = trained.CLUSTERS
    """M, clusters and most classes discovered."""
    interval: int = 200
    """Steps between two clusterings."""
    remembered: int = memory.SAMPLE
    """Void proposals that are remembered of each batch that a device computes at a time."""
    density_rank: float = 0.1
    """Share of the clusters that count as dense."""
    cluster_objectness: float = Schedule.cluster_objectness
    member_objectness: float = Schedule.member_objectness
    pair_distance: float = Schedule.pair_distance
    mine_distance: float = Schedule.mine_distance
    """Where thresholds begin (`clustering.Schedule`)."""
    mining: bool = True
    selection: Selection = field(default_factory=Selection)
    official: bool = False
    """With those bugs of the official code that change its numbers."""
    augmentation: Augmentation = data.OFFICIAL
    test_side: int = 800
    """Shorter side of a test image, pixels."""
    network: Config = field(default_factory=Config)
    """Its classes and its treatment of void come from `method` and `k`."""
    widths: Widths = field(default_factory=Widths)
    workers: int = 4
    """Loader processes a device."""


EOPSN = Settings()
BASELINE = replace(EOPSN, steps=45_000, lr=0.04, milestones=(30_000, 40_000))
"""Of all four treatments of void."""


@dataclass(frozen=True)
class Knobs(demo.Knobs):
    """What a reader may turn; None leaves the profile's own value."""

    method: Method = "eopsn"  # type: ignore[assignment]
    """suppression, train or eopsn; full profile: also background and ignorance."""
    k: int = 20
    """Full profile, as all below: K, the share of the things that are unknown, %: 5, 10 or 20."""
    weights: str | None = None
    """What to start from: a file, or "random". eopsn: what void suppression left, a must; the others: MSRA's
    ResNet-50 (None: R-50.pkl in the data root)."""
    steps: int | None = None
    """Length of the training (45,000; eopsn: 30,000)."""
    batch_size: int | None = None
    """Images a step over all devices (32); the learning rate grows with it."""
    lr: float | None = None
    """Learning rate, whatever the batch (0.04; eopsn: 0.0004)."""
    clusters: int | None = None
    """M, clusters and most classes discovered (128)."""
    interval: int | None = None
    """Steps between two clusterings (200)."""
    cluster_objectness: float | None = None
    """Mean objectness that makes a cluster a class, at first (0.90)."""
    member_objectness: float | None = None
    """Objectness that makes its member an exemplar, at first (0.95)."""
    pair_distance: float | None = None
    """Largest cosine distance of a pair of exemplars, at first (0.15)."""
    mine_distance: float | None = None
    """Cosine distance to an exemplar up to which a proposal joins it, at first (0.15)."""
    official: bool | None = None
    """With those bugs of the official code that change its numbers (no)."""
    side: int | None = None
    """Shorter side of all images, pixels (training: 640 to 800; test: 800)."""
    width_div: int = 1
    """Divides every number of channels, for small experiments; goes with weights="random"."""


def recipe(options: Options, knobs: Knobs | None = None) -> demo.Demo | OpenSetCOCO:
    """The run that these options and knobs describe.

    Raises:
        InputError: a knob outside its range; missing data or weights, or weights of another K.
    """
    knobs = knobs or Knobs()
    if options.profile == "demo":
        return demo.recipe(options, knobs)
    run = OpenSetCOCO(
        _settings(knobs), knobs.weights, options.data_root, options.seed, options.progress, options.workers
    )
    _ = run.training, run.test, run.start  # what is missing shows now, not after the training
    return run


def _settings(knobs: Knobs) -> Settings:
    if knobs.method not in get_args(Method):
        raise InputError(f"method is {knobs.method!r}; it can be {', '.join(get_args(Method))}")
    if knobs.k not in classes.UNKNOWN_THINGS:
        raise InputError(f"k is {knobs.k}; it can be {', '.join(map(str, classes.UNKNOWN_THINGS))}")
    base = EOPSN if knobs.method == "eopsn" else BASELINE
    selection = Selection(knobs.density, knobs.objectness, knobs.objectness, knobs.pairs)
    names = (
        "method", "k", "mining", "steps", "batch_size", "lr", "clusters", "interval", "density_rank",
        "cluster_objectness", "member_objectness", "pair_distance", "mine_distance", "official",
    )  # fmt: skip
    turned = {name: getattr(knobs, name) for name in names if getattr(knobs, name) is not None}
    _check({**turned, "width_div": knobs.width_div} | ({} if knobs.side is None else {"side": knobs.side}))
    turned.setdefault("lr", base.lr * turned.get("batch_size", BATCH) / BATCH)
    settings = replace(base, selection=selection, **turned)
    if knobs.side is not None:
        settings = replace(
            settings,
            augmentation=replace(settings.augmentation, sides=(knobs.side,)),
            test_side=knobs.side,
        )
    return _narrowed(settings, knobs.width_div)


def _narrowed(settings: Settings, div: int) -> Settings:
    """All numbers of channels divided; the semantic head keeps the least that its normalisation allows."""
    network, widths = settings.network, settings.widths
    if widths.stem % div:
        raise InputError(f"width_div is {div}; it must be a divisor of {widths.stem}")
    return replace(
        settings,
        network=replace(
            network,
            box_fc=tuple(width // div for width in network.box_fc),
            mask_convs=tuple(width // div for width in network.mask_convs),
        ),
        widths=Widths(
            widths.stem // div,
            widths.res2 // div,
            widths.bottleneck // div,
            widths.pyramid // div,
            max(32, widths.semantic // div),
        ),
    )


def _check(turned: Mapping[str, Any]) -> None:
    for name, value in turned.items():
        if isinstance(value, bool) or name == "method":
            continue
        if name.endswith(("objectness", "distance", "rank")):
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value!r}; it must be in [0, 1]")
        elif not value > 0:
            raise InputError(f"{name} is {value!r}; it must be above 0")


@dataclass(frozen=True)
class OpenSetCOCO(runs.ChosenRecipe):
    """Train a panoptic network on COCO without some of its things, and judge it with all of them."""

    chosen: Settings
    initial: str | None = None
    """What to start from, as in `Knobs.weights`."""
    data_root: Path | None = None
    seed: int = 0
    """Of the points at which k-means starts."""
    progress: bool = True
    loaders: int | None = None
    """Processes that load test images; None: as many as load training images."""

    paper = "eopsn"
    sources = (
        boxes, classes, clustering, config_module, data, detections, discoveries, exemplars, fpn, heads,
        kmeans, losses, masks, memory, merge, mining, model, open_set, predict, processes, proposals,
        pseudo_truth, quality, resnet, roi, search, semantic_head, targets, trained, void, weights, coco2017,
        panoptic, panoptic_quality,
    )  # fmt: skip

    @property
    def name(self) -> str:  # type: ignore[override]
        """E.g. "eopsn-K20"; what else differs stands in the settings."""
        return f"{self.chosen.method}-K{self.chosen.k}"

    def settings(self) -> Mapping[str, Any]:
        """The settings; the initial weights by what they are, not by where they lie."""
        return {"profile": "full", **asdict(self.chosen), "weights": _described(self.start)}

    @property
    def config(self) -> Config:
        c = self.chosen
        return trained.config(c.method, c.k, c.clusters, c.network)

    @property
    def is_eopsn(self) -> bool:
        return self.chosen.method == "eopsn"

    @cached_property
    def start(self) -> Path | None:
        """The file of weights to start from; None for none.

        Raises:
            InputError: it is not there, or, before EOPSN, not a network of void suppression with this K.
        """
        if self.initial == RANDOM:
            return None
        if self.initial is None and self.is_eopsn:
            raise InputError(
                "weights is not set: EOPSN starts from what void suppression left; name its net.safetensors, "
                f"which `cvpr21 run eopsn --profile full --method suppression --k {self.chosen.k}` makes, or "
                "an official checkpoint"
            )
        path = (
            Path(self.initial).expanduser() if self.initial else (self.data_root or Path("data")) / BACKBONE
        )
        if not path.is_file():
            raise InputError(
                f"there are no weights at {path}; name the file in weights"
                + ("" if self.is_eopsn else f", MSRA's {BACKBONE} (ResNet-50 of detectron2's model zoo)")
            )
        if self.is_eopsn:
            self._suppressed(path)
        return path

    def _suppressed(self, path: Path) -> PanopticFPN:
        """What void suppression left."""
        c = self.chosen
        return trained.load(path, trained.config("suppression", c.k, base=c.network), c.k, c.widths)

    def networks(self) -> dict[str, nn.Module]:
        c, start = self.chosen, self.start
        if self.is_eopsn and start is not None:
            net = self._suppressed(start)
        else:
            method: Method = "suppression" if self.is_eopsn else c.method
            net = model.panoptic_fpn(trained.config(method, c.k, base=c.network), c.widths)
            body: resnet.ResNet = net.trunk.body  # type: ignore[assignment]
            if start is None:
                damp(body)
            else:
                weights.load_imagenet(body, start)
        if not self.is_eopsn:
            return {"net": net}
        rules = Schedule(
            known=self.config.known,
            clusters=c.clusters,
            density_rank=int(c.density_rank * c.clusters) + 1,
            cluster_objectness=c.cluster_objectness,
            member_objectness=c.member_objectness,
            pair_distance=c.pair_distance,
            mine_distance=c.mine_distance,
            official=c.official,
        )
        found = OpenSet(self.training.images, rules, c.remembered, self.seed, c.official)
        return {"net": weights.widen(net, c.clusters), "search": found}

    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        c = self.chosen
        return {"net": sgd(networks["net"], c.lr, c.momentum, c.weight_decay)}

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        c = self.chosen
        return {"net": warmup_multistep(optimizers["net"], c.warmup, c.milestones)}

    def data(self) -> Dataset[Any]:
        return self.training

    @cached_property
    def training(self) -> Training:
        return Training(self.data_root, self.chosen.k, self.chosen.augmentation)

    @cached_property
    def test(self) -> Test:
        c, layout = self.chosen, self.training.layout
        test = Test(layout, c.test_side, c.augmentation.longest)
        truth = layout.panoptic("val").with_suffix("")
        layout.require(truth, [one.png for one in test.files], "panoptic annotations")
        return test

    @cached_property
    def discoveries(self) -> Discoveries | None:
        """Judges exemplars by hidden labels, for the log; None without COCO's own instances."""
        hidden = discoveries.hidden(self.training)
        return None if hidden is None else Discoveries(hidden)

    def phases(self) -> Sequence[Phase]:
        return [Phase("net", self._loss)]

    def _loss(self, step: Step) -> Loss:
        """The official losses. With EOPSN, watched are the classes and boxes found, and what they are."""
        c, batch = self.chosen, step.batch
        assert isinstance(batch, Examples)
        if not self.is_eopsn:
            return Loss(step.networks["net"](batch.batch, AsIs(batch.truths)).losses)
        found = step.networks["search"]
        assert isinstance(found, OpenSet)
        device = batch.batch.images.device
        found.begin(step.number, c.interval, c.selection, device)
        terms = open_set.learn(step.networks["net"], found, batch, self._another, c.mining)
        seen = _counted(found)
        if self.discoveries is not None and len(found.table):
            seen |= self.discoveries.summary(found.table.rows)
        return Loss(terms, {name: torch.tensor(value, device=device) for name, value in seen.items()})

    def _another(self, place: int) -> Example:
        """A training image for its exemplars, seen in a random way."""
        return self.training[Draw(place, int(torch.randint(2**62, ())))]

    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """The numbers of `OpenQuality.numbers` on val; with EOPSN those of `Discoveries.details`."""
        c, net = self.chosen, networks["net"]
        assert isinstance(net, PanopticFPN)
        workers = c.workers if self.loaders is None else self.loaders
        numbers = predict.score(
            net, self.test, self.training.classes, fabric,
            official=c.official, workers=workers, progress=self.progress,
        )  # fmt: skip
        if not self.is_eopsn:
            return numbers
        found = networks["search"]
        assert isinstance(found, OpenSet)
        numbers |= _counted(found)
        if self.discoveries is not None:
            numbers |= self.discoveries.details(found.table.rows)
        return numbers


def _counted(found: OpenSet) -> dict[str, float]:
    """Classes that were discovered, and boxes of theirs."""
    return {"labels": float(found.table.classes), "exemplars": float(len(found.table))}


def damp(body: resnet.ResNet) -> None:
    """Let blocks of an untrained trunk add little to what goes by: its frozen normalisations, which have seen
    nothing, would not stop values that grow from block to block."""
    for name, module in body.named_modules():
        if name.endswith("bn3"):
            module.weight.fill_(0.2)


def sgd(net: nn.Module, lr: float, momentum: float, weight_decay: float) -> SGD:
    """All that is trained; normalisations do not decay."""
    norms = {
        id(parameter)
        for module in net.modules()
        if isinstance(module, nn.GroupNorm)  # batch normalisations are frozen
        for parameter in module.parameters()
    }
    there = [parameter for parameter in net.parameters() if parameter.requires_grad]
    groups = [
        {"params": [each for each in there if id(each) not in norms], "weight_decay": weight_decay},
        {"params": [each for each in there if id(each) in norms], "weight_decay": 0.0},
    ]
    return SGD(groups, lr, momentum=momentum)


def warmup_multistep(optimizer: Optimizer, warmup: int, milestones: Sequence[int]) -> LambdaLR:
    """The learning rate grows evenly from a thousandth, and falls to a tenth at each milestone."""

    def factor(step: int) -> float:
        grown = 1.0 if step >= warmup else 0.001 + 0.999 * step / warmup
        return float(grown * 0.1 ** sum(step >= milestone for milestone in milestones))

    return LambdaLR(optimizer, factor)


def _described(path: Path | None) -> str:
    if path is None:
        return RANDOM
    with path.open("rb") as file:
        return f"{path.name} (sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]})"
