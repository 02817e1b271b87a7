"""Stage 1 of EPS, trained and judged: the official recipes for VOC and COCO, and the demo."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from cvpr21lib import record, runs
from cvpr21lib.eps import (
    data,
    evaluation,
    losses,
    mask_folder,
    model,
    mxnet_params,
    optim,
    pseudo_masks,
    resnet38,
    saved_maps,
    small,
    sources,
)
from cvpr21lib.eps.data import Augmentation, DatasetName, OnDamage, Training
from cvpr21lib.eps.evaluation import Judge
from cvpr21lib.eps.mask_folder import Filled
from cvpr21lib.eps.optim import Momentum
from cvpr21lib.eps.pseudo_masks import ClassMaps
from cvpr21lib.eps.sources import Folders, Scenes, Source
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.runs import Loss, Phase, Step
from cvpr21lib.scenes import cooccurrence
from cvpr21lib.segmentation import crops, metrics

Method = Literal["eps", "naive", "predefined", "cam"]
Schedule = Literal["official", "corrected"]
Warmup = Literal["naive", "labels"]


@dataclass(frozen=True)
class Settings:
    """All that makes a run of stage 1; the values here are the official recipe for VOC."""

    method: Method = "eps"
    """eps, or a baseline: cam (no saliency); which labelled classes are foreground: all (naive), or all but
    some that were picked by hand (predefined)."""
    dataset: DatasetName = "voc12"
    tau: float = 0.4
    """τ, the overlap with saliency above which a labelled class is foreground."""
    lam: float = 0.5
    """λ, the weight of the foreground in the blend."""
    warmup: float = 0.0
    """Share of the steps, at the start, in which the rule of eps does not act yet (ours)."""
    warmup_by: Warmup = "naive"
    """What acts instead: the choice of naive, or labels, without any saliency."""
    width_div: int = 1
    """Divides the channels of ResNet38."""
    pretrained: bool = True
    """Start from ImageNet weights."""
    augmentation: Augmentation = data.VOC_CROPS
    batch_size: int = 8
    """Images a step over all devices."""
    steps: int = 20_000
    schedule_steps: int = 20_000
    """Where the learning rate, falling as (1 - step / schedule_steps)^0.9, reaches its end."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.01
    """Learning rate of the backbone; that of fc8 is ten times as high."""
    weight_decay: float = 5e-4
    momentum: Momentum = "official"
    """Of SGD: 0.0005, as in the official code (official), or 0.9 (corrected)."""
    scales: tuple[float, ...] = pseudo_masks.SCALES
    """Sizes in which an image is looked at for its pseudo-mask."""
    thresholds: tuple[float, ...] = tuple(hundredths / 100 for hundredths in range(10, 61))
    """Those of the scan."""
    on_damage: OnDamage = "stop"
    """What a damaged image does in training: stop, or skip."""
    workers: int = 8
    """Loader processes a device."""


VOC = Settings()
COCO = Settings(
    dataset="coco14",
    lam=0.9,
    augmentation=data.COCO_CROPS,
    batch_size=16,
    steps=256_500,
    schedule_steps=76_950,
)
DEMO = Settings(
    warmup=0.25,
    pretrained=False,
    augmentation=Augmentation(long_side=None, crop=None, jitter=None),
    batch_size=16,
    steps=400,
    schedule_steps=400,
    optimizer="adam",
    lr=2e-3,
    weight_decay=0.0,
    scales=(1.0, 1.5),
    thresholds=tuple(hundredths / 100 for hundredths in range(10, 81, 5)),
    workers=0,
)


@dataclass(frozen=True)
class Knobs:
    """What a reader may turn; None leaves the profile's own value."""

    method: Method = "eps"
    """eps, naive, predefined or cam."""
    dataset: DatasetName = "voc12"
    """Full profile: voc12 or coco14."""
    tau: float | None = None
    """τ (0.4)."""
    lam: float | None = None
    """λ (0.5; COCO: 0.9)."""
    warmup: float | None = None
    """Share of the steps, at the start, in which the rule of eps does not act yet (demo: 0.25; full: 0)."""
    warmup_by: Warmup | None = None
    """What acts instead: naive (default) or labels, without any saliency."""
    momentum: Momentum | None = None
    """official (0.0005, as all published numbers were made) or corrected (0.9)."""
    schedule: Schedule = "official"
    """COCO: official (to step 256,500, the last 179,550 without learning rate, as in the published logs) or
    corrected (training ends where the schedule does, at 76,950)."""
    steps: int | None = None
    """Length of the training; the schedule gets the same length, unless schedule_steps is turned as well."""
    schedule_steps: int | None = None
    """Length of the schedule alone."""
    batch_size: int | None = None
    """Images a step over all devices (VOC: 8; COCO and demo: 16)."""
    lr: float | None = None
    """Learning rate of the backbone, a tenth of fc8's (demo: 0.002; full: 0.01)."""
    width_div: int | None = None
    """Divides the channels of ResNet38 (1)."""
    pretrained: bool | None = None
    """Full profile: start from the ImageNet weights in backbone_weights (yes)."""
    backbone_weights: Path | None = None
    """The file of these weights; None: ilsvrc-cls_rna-a1_cls1000_ep-0001.params in the data root."""
    saliency_root: Path | None = None
    """The folder of saliency maps; None: where data_scripts.saliency puts your own."""
    masks: Path | None = None
    """Folder in which the run leaves the pseudo-masks of all training images; None: it makes none."""
    on_damage: OnDamage | None = None
    """What a damaged image does in training: stop, or skip."""


ARMS = {
    "cam": Knobs(method="cam"),
    "naive": Knobs(method="naive"),
    "eps": Knobs(),
    "predefined": Knobs(method="predefined"),
    "eps-no-warmup": Knobs(warmup=0.0),
    "eps-after-labels": Knobs(warmup=0.5, warmup_by="labels"),
    "eps-lambda-0": Knobs(lam=0.0),
    "eps-lambda-1": Knobs(lam=1.0),
}
"""The demo's arms. In eps-after-labels the rule comes when maps lie on rails and water, where they stay."""
LIVE = ("cam", "naive", "eps")
"""The arms that the chapter trains before the reader's eyes."""
PREDEFINED = {
    "demo": ("sofa",),
    "voc12": ("chair", "diningtable", "sofa"),
    "coco14": ("chair", "couch", "dining table"),
}
"""Classes that saliency misses, picked by hand: in the paper for VOC, by us for COCO."""
BACKBONE = "ilsvrc-cls_rna-a1_cls1000_ep-0001.params"


def recipe(options: Options, knobs: Knobs | None = None) -> PseudoMasks:
    """The run that these options and knobs describe.

    Raises:
        InputError: a knob outside its range.
    """
    knobs = knobs or Knobs()
    _allow("dataset", knobs.dataset, get_args(DatasetName))
    _allow("schedule", knobs.schedule, get_args(Schedule))
    base = DEMO if options.profile == "demo" else COCO if knobs.dataset == "coco14" else VOC
    if knobs.schedule == "corrected":
        base = replace(base, steps=base.schedule_steps)
    if knobs.steps is not None:
        base = replace(base, schedule_steps=knobs.steps)
    turned = {name: value for name, value in asdict(knobs).items() if value is not None}
    settings = replace(base, **{name: value for name, value in turned.items() if hasattr(base, name)})
    _check(settings)
    return PseudoMasks(
        settings,
        options.profile,
        options.data_root,
        options.seed,
        options.progress,
        *(_path(given) for given in (knobs.backbone_weights, knobs.saliency_root, knobs.masks)),
    )


@dataclass(frozen=True)
class PseudoMasks(runs.ChosenRecipe):
    """Train a classifier on image labels (and saliency), and judge the pseudo-masks that it makes."""

    chosen: Settings
    profile: str = "full"
    data_root: Path | None = None
    seed: int = 0
    """Of the demo's scenes."""
    progress: bool = True
    backbone_weights: Path | None = None
    saliency_root: Path | None = None
    masks: Path | None = None

    paper = "eps"
    sources = (
        model, resnet38, mxnet_params, small, losses, optim, data, sources, pseudo_masks, evaluation,
        crops, metrics, cooccurrence,
    )  # fmt: skip

    @property
    def name(self) -> str:  # type: ignore[override]
        """E.g. "eps-voc12"; what else differs stands in the settings."""
        where = "scenes" if self.profile == "demo" else self.chosen.dataset
        return f"{self.chosen.method}-{where}"

    def settings(self) -> Mapping[str, Any]:
        return {"profile": self.profile, **asdict(self.chosen)}

    def networks(self) -> dict[str, nn.Module]:
        head = model.CAM if self.chosen.method == "cam" else model.EPS
        return {"classifier": head(self._backbone(), len(self.classes))}

    def _backbone(self) -> nn.Module:
        if self.profile == "demo":
            return small.SmallBackbone()
        backbone = resnet38.ResNet38(self.chosen.width_div)
        if self.chosen.pretrained:
            weights = self.backbone_weights or (self.data_root or Path("data")) / BACKBONE
            mxnet_params.load_backbone(backbone, weights)
        return backbone

    @property
    def classes(self) -> Sequence[str]:
        """The names of the C classes."""
        return cooccurrence.CLASSES if self.profile == "demo" else data.LAYOUTS[self.chosen.dataset].classes

    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        c, net = self.chosen, networks["classifier"]
        assert isinstance(net, model.Classifier)
        if c.optimizer == "adam":
            return {"classifier": Adam(optim.parameter_groups(net, c.lr, c.weight_decay))}
        return {"classifier": optim.sgd(net, c.lr, c.weight_decay, c.momentum)}

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        return {
            name: optim.poly(optimizer, self.chosen.schedule_steps) for name, optimizer in optimizers.items()
        }

    def data(self) -> Dataset[Any]:
        return self.training

    @cached_property
    def training(self) -> Training:
        """The crops that the classifier learns from."""
        c = self.chosen
        return Training(self.training_source, c.augmentation, c.method != "cam", c.on_damage)

    @cached_property
    def training_source(self) -> Source:
        """The images that masks are for."""
        return self._source(data.TRAINING_SPLIT)

    @cached_property
    def judged(self) -> Source:
        """The images on which the masks are judged: they have ground truth."""
        return self._source(data.VALIDATION_SPLIT, masks=True)

    def _source(self, split: Mapping[str, str], masks: bool = False) -> Source:
        if self.profile == "demo":
            return World(self.seed)
        layout = data.find(self.data_root, self.chosen.dataset)
        wanted = self.chosen.method != "cam" or (masks and self.saliency_root is not None)
        saliency = data.find_saliency(layout, self.saliency_root) if wanted else None
        return Folders(layout, split[self.chosen.dataset], saliency, masks)

    def phases(self) -> Sequence[Phase]:
        return [Phase("classifier", self._loss)]

    def _loss(self, step: Step) -> Loss:
        """L_cls + L_sal; watched is the share of the labelled classes that count as background."""
        batch, output = step.batch, step.networks["classifier"](step.batch["image"])
        if self.chosen.method == "cam":
            return Loss({"classification": losses.classification(output, batch["label"])})
        found = self.estimate(output.cam, batch["saliency"], batch["label"], step.number)
        classification = {"classification": losses.classification(output.pred, batch["label"])}
        saliency = {"saliency": F.mse_loss(found.estimate, found.saliency)}
        rejected = {"rejected": found.rejected.sum() / batch["label"].sum().clamp(min=1)}
        if self.chosen.warmup_by == "labels" and self._is_warmup(step.number):
            # its gradient is asked for, but zero, as no parameter may be left out on many devices
            saliency["saliency"] = 0 * saliency["saliency"]
        return Loss(classification | saliency, rejected)

    def _is_warmup(self, step: int) -> bool:
        return step < self.chosen.warmup * self.chosen.steps

    def estimate(self, cam: Tensor, saliency: Tensor, label: Tensor, step: int) -> losses.Estimate:
        """`losses.estimate` as it is in this run after `step` steps."""
        c = self.chosen
        selection: losses.Selection = "naive"
        by_hand: list[int] = []
        if c.method == "predefined":
            names = PREDEFINED["demo" if self.profile == "demo" else c.dataset]
            selection, by_hand = "predefined", [self.classes.index(name) for name in names]
        elif c.method == "eps" and not self._is_warmup(step):
            selection = "overlap"
        return losses.estimate(cam, saliency, label, c.tau, c.lam, selection, by_hand)

    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """The numbers of `evaluation.evaluate`. Writes the masks, if they are wanted."""
        network, source = networks["classifier"], self.judged
        target = source.regions if isinstance(source, World) else source.mask
        shown = self.progress and fabric.global_rank == 0
        numbers = evaluation.evaluate(
            evaluation.for_inference(network), source, target, self.judge, fabric, shown
        )
        if self.masks is not None:
            share = slice(fabric.global_rank, None, fabric.world_size)
            on_damage = self.chosen.on_damage
            write_masks(self, network, self.masks, share=share, on_damage=on_damage, progress=shown)
        if self.chosen.on_damage == "skip":
            numbers["damaged"] = self._damaged(fabric)
        return numbers

    @property
    def judge(self) -> Judge:
        """How the masks are judged."""
        c, context = self.chosen, cooccurrence.CONTEXT if self.profile == "demo" else {}
        return Judge(self.classes, c.thresholds, c.scales, c.tau, context)

    def _damaged(self, fabric: Fabric) -> float:
        """How many training images could not be decoded since the run started, or was resumed."""
        met = set(self.training.damaged)
        flags = torch.tensor([int(name in met) for name in self.training_source.names])
        summed = fabric.all_reduce(flags, reduce_op="sum")
        assert isinstance(summed, Tensor)
        return float(summed.count_nonzero())


def write_masks(
    recipe: PseudoMasks,
    network: nn.Module,
    folder: Path,
    threshold: float | None = pseudo_masks.THRESHOLD,
    share: slice = slice(None),
    **how: Any,
) -> Filled:
    """The pseudo-masks of the training images, NAME.png, which stage 2 learns from.

    With None for the threshold, their class maps, NAME.npz, which a CRF makes masks of (`saved_maps`). A file
    is kept if weights, labels, threshold, scales and code are still what made it.

    `network` is a trained one (`runs.weights`), on the device on which to compute; `share` says which of the
    images; `how` goes to `mask_folder.fill`.
    """
    twin, source, scales = evaluation.for_inference(network), recipe.training_source, recipe.chosen.scales
    positions = {name: index for index, name in enumerate(source.names)}
    code = record.code_fingerprint((model, resnet38, small, pseudo_masks))
    common = (_digest(network), threshold, scales, code)

    def make(name: str) -> np.ndarray | ClassMaps:
        index = positions[name]
        maps = pseudo_masks.class_maps(twin, source.image(index), source.label(index), scales)
        return maps if threshold is None else pseudo_masks.mask(maps, threshold)

    def made_by(name: str) -> str:
        return mask_folder.digest(*common, source.label(positions[name]).nonzero()[0].tolist())

    kind = saved_maps.CLASS_MAPS if threshold is None else mask_folder.MASKS
    return mask_folder.fill(folder, source.names[share], make, made_by, kind=kind, **how)


class World(Scenes):
    """The demo's scenes, and their regions besides."""

    def __init__(self, seed: int, count: int = 300) -> None:
        self.seed = seed
        self.scenes = cooccurrence.scenes(seed, count)
        super().__init__(
            [each.image for each in self.scenes],
            [each.label for each in self.scenes],
            len(cooccurrence.CLASSES),
            [each.saliency for each in self.scenes],
            [each.mask for each in self.scenes],
        )

    def regions(self, index: int) -> np.ndarray:
        """As `cooccurrence.Scene.regions`."""
        return self.scenes[index].regions

    def fingerprint(self) -> str:
        """That of world 0, whatever the seed: a record, which has many worlds, is held against this one."""
        return super().fingerprint() if self.seed == 0 else World(0, len(self.scenes)).fingerprint()


def _digest(network: nn.Module) -> str:
    """Of all weights."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


def _check(settings: Settings) -> None:
    _allow("method", settings.method, get_args(Method))
    _allow("warmup_by", settings.warmup_by, get_args(Warmup))
    _allow("momentum", settings.momentum, get_args(Momentum))
    _allow("on_damage", settings.on_damage, get_args(OnDamage))
    for name in ("lam", "warmup"):
        if not 0 <= getattr(settings, name) <= 1:
            raise InputError(f"{name} is {getattr(settings, name)!r}; it must be in [0, 1]")
    for name in ("batch_size", "steps", "schedule_steps", "lr", "width_div"):
        if not getattr(settings, name) > 0:
            raise InputError(f"{name} is {getattr(settings, name)!r}; it must be above 0")


def _allow(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; it can be {', '.join(allowed)}")
