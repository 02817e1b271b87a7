"""Stage 2: DeepLab, trained on the pseudo-masks as if they were ground truth, and judged on the val images.

The official repository leaves this stage out. Its authors say that they used kazuto1011/deeplab-pytorch with
other hyperparameters, which they do not tell (issues 10, 11). So these are that repository's own for
ResNet-101 on VOC (configs/voc12.yaml), and for VGG16 those of the DeepLab-v2 paper; a field says where its
value is a guess.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from cvpr21lib import runs
from cvpr21lib.eps import data, deeplab, deeplab_weights, optim, pseudo_masked, resnet38
from cvpr21lib.eps.deeplab import Backbone, DeepLab, Version, multi_scale
from cvpr21lib.eps.pseudo_masked import PseudoMasked
from cvpr21lib.eps.resnet38 import normalise
from cvpr21lib.eps.sources import Folders, Source
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.runs import Loss, Phase, Step
from cvpr21lib.segmentation import crf, masks, metrics, permutohedral
from cvpr21lib.segmentation.crf import CRF
from cvpr21lib.segmentation.layout import Layout
from cvpr21lib.segmentation.masks import VOID

CRFName = Literal["none", "psa", "deeplab"]
CRFS: dict[str, CRF | None] = {"none": None, "psa": crf.PSA, "deeplab": crf.DEEPLAB}


@dataclass(frozen=True)
class Settings:
    """All that makes a run of stage 2; the values here are DeepLab-v2 with ResNet-101 on VOC."""

    dataset: data.DatasetName = "voc12"
    version: Version = "v2"
    """v1 (LargeFOV) or v2 (ASPP)."""
    backbone: Backbone = "resnet101"
    """vgg16 or resnet101."""
    width_div: int = 1
    """Divides every number of channels, for small experiments."""
    init: str = "imagenet"
    """imagenet (torchvision's weights), random, or a file (`deeplab_weights.initialise`)."""
    crop: int = 321
    """Side of the training crops, pixels."""
    zoom: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5)
    """A training image is resized by one of these factors."""
    batch_size: int = 10
    """Samples a step over all devices (deeplab-pytorch: two batches of 5, as by accumulate=2)."""
    steps: int = 20_000
    lr: float = 2.5e-4
    """Learning rate of the backbone; the classifiers have ten times as much, biases twice."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    power: float = 0.9
    """Of the polynomial schedule, which falls in every tenth step (`LR_EVERY`)."""
    loss_scales: tuple[float, ...] = (0.5, 0.75)
    """Further sizes of a crop that have a loss of their own, as has the maximum over all; empty: one loss."""
    test_scales: tuple[float, ...] = (0.5, 0.75)
    """Further sizes of a test image; the maximum counts. That the paper did so is recalled, not verified."""
    crf: CRFName = "deeplab"
    """The CRF after the network, in the test: none, psa or deeplab; the numbers without it are given, too."""
    workers: int = 8
    """Loader processes a device; also the threads for the CRF."""


VOC_RESNET101 = Settings()
VOC_VGG16 = replace(VOC_RESNET101, backbone="vgg16", lr=1e-3, loss_scales=())
"""DeepLab-v2 paper, section 4.1: batches of 10, 20,000 steps, rate 0.001; for EPS this is a guess."""
COCO_STEPS = 100_000
"""Of deeplab-pytorch for COCO-Stuff; the EPS authors' number for COCO is not known (official issue 11)."""
LR_EVERY = 10
"""Steps between two changes of the learning rate (deeplab-pytorch)."""


@dataclass(frozen=True)
class Knobs:
    """What a reader may turn; None leaves the recipe's own value."""

    masks: Path | None = None
    """Folder with the pseudo-mask NAME.png of each training image; a must."""
    dataset: data.DatasetName = "voc12"
    """voc12 or coco14."""
    version: Version = "v2"
    """v1 or v2."""
    backbone: Backbone = "resnet101"
    """vgg16 or resnet101."""
    init: str = "imagenet"
    """imagenet, random, or a file of weights."""
    crf: CRFName | None = None
    """none, psa or deeplab (VOC: deeplab; COCO: none, as its 40,137 images take about 80 processor hours)."""
    width_div: int | None = None
    """Divides every number of channels."""
    crop: int | None = None
    """Side of the training crops, pixels."""
    batch_size: int | None = None
    """Samples a step over all devices."""
    steps: int | None = None
    """Length of the recipe, to which its schedule refers (VOC: 20,000; COCO: 100,000)."""
    lr: float | None = None
    """Learning rate (resnet101: 2.5e-4; vgg16: 1e-3)."""


def recipe(options: Options, knobs: Knobs | None = None) -> Segmentation:
    """The run that these options and knobs describe.

    Raises:
        InputError: a knob outside its range, missing masks, or a missing data set.
    """
    if options.profile == "demo":
        raise InputError('stage 2 has no demo, it needs the paper\'s data: set profile to "full"')
    knobs = knobs or Knobs()
    base = VOC_VGG16 if knobs.backbone == "vgg16" else VOC_RESNET101
    if knobs.dataset == "coco14":
        base = replace(base, steps=COCO_STEPS, crf="none")
    given = {name: value for name, value in asdict(knobs).items() if name != "masks" and value is not None}
    settings = replace(base, **given)
    _check(settings)
    if knobs.masks is None:
        raise InputError(
            "masks is not set: name the folder of pseudo-masks, one NAME.png for each training image"
        )
    run = Segmentation(settings, Path(knobs.masks), options.data_root, options.progress)
    _ = run.training, run.validation  # what is missing shows now, not after the training
    return run


@dataclass(frozen=True)
class Segmentation(runs.ChosenRecipe):
    """Train DeepLab on the pseudo-masks of the training images and judge it by ground truth on val."""

    chosen: Settings
    folder: Path
    """The pseudo-masks."""
    data_root: Path | None = None
    progress: bool = True

    paper = "eps"
    sources = (
        deeplab, deeplab_weights, optim, resnet38, pseudo_masked, masks, metrics, crf, permutohedral,
    )  # fmt: skip

    @property
    def name(self) -> str:  # type: ignore[override]
        """E.g. "deeplab-v2-resnet101-voc12"; what else differs stands in the settings."""
        return f"deeplab-{self.chosen.version}-{self.chosen.backbone}-{self.chosen.dataset}"

    def settings(self) -> Mapping[str, Any]:
        """The settings; the initial weights and the masks by what they are, not by where they lie."""
        return {
            **asdict(self.chosen),
            "init": deeplab_weights.describe(self.chosen.init),
            "masks": self.training.masks_fingerprint,
        }

    def networks(self) -> dict[str, nn.Module]:
        chosen = self.chosen
        net = DeepLab(chosen.version, chosen.backbone, self.training.num_classes, chosen.width_div)
        deeplab_weights.initialise(net, chosen.init)
        return {"deeplab": net}

    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        chosen, net = self.chosen, cast(Any, networks["deeplab"])
        groups = optim.parameter_groups(net, chosen.lr, chosen.weight_decay)
        return {"deeplab": SGD(groups, chosen.lr, momentum=chosen.momentum)}

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        return {"deeplab": poly(optimizers["deeplab"], self.steps, self.chosen.power)}

    def data(self) -> Dataset[Any]:
        return self.training

    @cached_property
    def layout(self) -> Layout:
        return data.find(self.data_root, self.chosen.dataset)

    @cached_property
    def training(self) -> PseudoMasked:
        split = {"voc12": "train_aug", "coco14": "train"}[self.chosen.dataset]
        return PseudoMasked(
            self.layout, split, self.folder, self.chosen.crop, self.chosen.zoom, self.progress
        )

    @cached_property
    def validation(self) -> Source:
        return Folders(self.layout, "val", masks=True)

    def phases(self) -> Sequence[Phase]:
        return [Phase("deeplab", self._loss)]

    def _loss(self, step: Step) -> Loss:
        logits = multi_scale(step.networks["deeplab"], step.batch["image"], self.chosen.loss_scales)
        names = ["1", *(f"{scale:g}" for scale in self.chosen.loss_scales), "max"][: len(logits)]
        mask = step.batch["mask"]
        return Loss(
            {f"ce_{name}": cross_entropy(each, mask) for name, each in zip(names, logits, strict=True)}
        )

    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """On val, by ground truth; see `evaluate` below."""
        net, classes = cast(DeepLab, networks["deeplab"]), ("background", *self.layout.classes)
        return evaluate(net, self.validation, classes, fabric, self.chosen, self.progress)


def cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """The mean over pixels that are not void, 0 if all are, of logits (N, K, h, w) and classes (N, H, W).

    The mask is made as small as the logits by taking the nearest pixel, measured between centres.
    """
    small = F.interpolate(mask[:, None].float(), logits.shape[2:], mode="nearest-exact")[:, 0].long()
    total = F.cross_entropy(logits, small, ignore_index=VOID, reduction="sum")
    return total / (small != VOID).sum().clamp(min=1)


def poly(optimizer: Optimizer, steps: int, power: float = 0.9) -> LambdaLR:
    """Learning rates times (1 - step / `steps`)^`power`, changed in every tenth step only (`LR_EVERY`)."""
    return LambdaLR(optimizer, lambda step: (1 - step // LR_EVERY * LR_EVERY / steps) ** power)


def evaluate(
    net: DeepLab, source: Source, classes: Sequence[str], fabric: Fabric, settings: Settings, progress: bool
) -> dict[str, float]:
    """In %: miou (without CRF), miou_crf (if there is one), and iou/CLASS after all that is done.

    Each process takes its share of the images. The network works in this thread, and `settings.workers`
    others apply the CRF to the images before.
    """
    setting, workers = CRFS[settings.crf], max(1, settings.workers)
    counts = np.zeros((2, len(classes), len(classes)), np.int64)
    waiting: deque[Future[np.ndarray]] = deque()
    mine = range(fabric.global_rank, len(source.names), fabric.world_size)
    shown = progress and fabric.global_rank == 0
    with ThreadPoolExecutor(workers) as pool:
        for index in tqdm(mine, "Judging segmentation", leave=False, disable=not shown):
            image, target = source.image(index), source.mask(index)
            p = probabilities(net, image, settings.test_scales)
            waiting.append(pool.submit(_confusions, image, p, target, setting))
            if len(waiting) > 2 * workers:
                counts += waiting.popleft().result()
        for last in waiting:
            counts += last.result()
    total = fabric.all_reduce(torch.from_numpy(counts), reduce_op="sum")
    plain, refined = (metrics.scores(each) for each in cast(Tensor, total).cpu().numpy())
    numbers = {"miou": plain.miou} | ({"miou_crf": refined.miou} if setting else {})
    numbers |= {f"iou/{name}": iou for name, iou in zip(classes, refined.iou.tolist(), strict=True)}
    return {name: 100 * value for name, value in numbers.items() if not math.isnan(value)}


@torch.no_grad()
def probabilities(net: DeepLab, image: np.ndarray, scales: Sequence[float]) -> np.ndarray:
    """Of each class at each pixel, (K, H, W) float32, for an image uint8 (H, W, 3) RGB."""
    parameter = next(net.parameters())
    batch = normalise(image)[None].to(parameter.device, parameter.dtype)
    logits = multi_scale(net, batch, scales)[-1].float()
    enlarged = F.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=False)
    return enlarged.softmax(1)[0].cpu().numpy()


def _confusions(image: np.ndarray, p: np.ndarray, target: np.ndarray, setting: CRF | None) -> np.ndarray:
    """Confusion matrices (2, K, K) of the plain prediction and of the one after the CRF."""
    plain = p.argmax(0)
    refined = plain if setting is None else setting(image, p).argmax(0)
    return np.stack([metrics.confusion(target, pred, len(p)) for pred in (plain, refined)])


def _check(settings: Settings) -> None:
    allowed = {
        "dataset": get_args(data.DatasetName),
        "version": get_args(Version),
        "backbone": get_args(Backbone),
        "crf": get_args(CRFName),
    }
    for name, values in allowed.items():
        if getattr(settings, name) not in values:
            raise InputError(f"{name} is {getattr(settings, name)!r}; it can be {', '.join(values)}")
    for name in ("width_div", "crop", "batch_size", "steps", "lr"):
        if not getattr(settings, name) > 0:
            raise InputError(f"{name} is {getattr(settings, name)!r}; it must be above 0")
    deeplab_weights.describe(settings.init)
