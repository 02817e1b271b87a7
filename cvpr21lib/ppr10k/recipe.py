"""Training and judging PPR10K's retoucher: the paper's recipe and the demo, other in size and data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset

from cvpr21lib import runs
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.ppr10k import data, losses, lut, metrics, model, photographs, sliders, views, xmp
from cvpr21lib.ppr10k.data import Photos, Resize
from cvpr21lib.ppr10k.index import EXPERTS, VERSIONS, Expert
from cvpr21lib.ppr10k.photographs import Shot
from cvpr21lib.ppr10k.sliders import Sliders
from cvpr21lib.runs import Loss, Phase, Step
from cvpr21lib.sampling import mix
from cvpr21lib.scenes import portraits

Backbone = Literal["resnet18", "light", "light_unpaired"]


@dataclass(frozen=True)
class Settings:
    """All that makes a run of PPR10K; the values here are the official recipe."""

    hrp: bool = True
    """Human-region priority: errors on people count more."""
    glc: bool = True
    """Group-level consistency: two views of each photograph, which must come out in the same colours."""
    expert: Expert = "a"
    """Whose retouching is learned: a, b or c."""
    backbone: Backbone = "resnet18"
    """The predictor: resnet18 (PPR10K), or one of 3DLUT's: light, light_unpaired."""
    pretrained: bool = True
    """Start ResNet-18 from ImageNet weights."""
    thumbnail: int = 256
    """Side of what a light predictor looks at, pixels; ResNet-18 looks at 224."""
    widths: tuple[int, ...] = (16, 32, 64, 128, 128)
    """Channels of a light predictor."""
    num_luts: int = 5
    """K."""
    lut_size: int = 33
    """D, points along an axis."""
    identity_start: bool = False
    """Start with weights that leave every photograph as it is (ours; a start value only)."""
    hrp_weight: float = 5.0
    """Weight of a person's pixel; it enters squared."""
    glc_weight: float = 1.0
    """Weight of the consistency term; 0 trains on its views without asking for consistency."""
    lambda_smooth: float = losses.SMOOTH
    """Weight of total variation and weight norm."""
    lambda_monotone: float = losses.MONOTONE
    """Weight of monotonicity."""
    size: int = 448
    """Side to which windows (with glc: whole photographs) are resized, pixels."""
    crop: int = 336
    """Side of the two crops of glc, pixels."""
    resize: Resize = "official"
    """Without glc: official (cubic sources, antialiased targets), or everything bilinear."""
    versions: int = VERSIONS
    """Source versions of each photograph: 6, or 1, the original alone."""
    batch_size: int = 16
    """Photographs a step over all devices."""
    steps: int = 665_625
    """200 epochs of 53,250 versions (the official last batch of an epoch is short; here none is)."""
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    decay: bool = False
    """Let the learning rate fall linearly to zero over the second half (official: constant)."""
    evaluate_every: int | None = 33_281
    """Steps between evaluations: ten epochs."""
    workers: int = 8
    """Loader processes a device."""


OFFICIAL = Settings()
DEMO = Settings(
    backbone="light",
    pretrained=False,
    thumbnail=32,
    widths=(16, 32, 64, 64),
    num_luts=3,
    lut_size=9,
    identity_start=True,
    size=40,
    crop=30,
    resize="bilinear",
    steps=800,
    lr=5e-3,
    decay=True,
    evaluate_every=None,
    workers=0,
)


@dataclass(frozen=True)
class Knobs:
    """What a reader may turn; None leaves the profile's own value."""

    hrp: bool = True
    """Human-region priority."""
    glc: bool = True
    """Group-level consistency."""
    expert: Expert | None = None
    """Full profile: whose retouching is learned, a, b or c."""
    backbone: Backbone | None = None
    """resnet18, light or light_unpaired (demo: light; full: resnet18)."""
    pretrained: bool | None = None
    """Start ResNet-18 from ImageNet weights (demo: no; full: yes)."""
    num_luts: int | None = None
    """K (demo: 3; full: 5)."""
    lut_size: int | None = None
    """D (demo: 9; full: 33)."""
    identity_start: bool | None = None
    """Start with weights that change nothing (demo: yes; full: no)."""
    hrp_weight: float | None = None
    """Weight of a person's pixel, which enters squared (5)."""
    glc_weight: float | None = None
    """Weight of the consistency term (1)."""
    resize: Resize | None = None
    """Without glc: official or bilinear (demo: bilinear; full: official)."""
    versions: int | None = None
    """Source versions of each photograph, 1 to 6 (6)."""
    batch_size: int | None = None
    """Photographs a step over all devices (16)."""
    steps: int | None = None
    """Length of the recipe, to which its schedule refers."""
    lr: float | None = None
    """Learning rate."""


TRAIN, TEST = range(24), range(1356, 1372)
"""The demo's groups, numbered as PPR10K's."""
ARMS = {
    "3dlut": Knobs(hrp=False, glc=False),
    "hrp": Knobs(hrp=True, glc=False),
    "glc": Knobs(hrp=False, glc=True),
    "hrp-glc": Knobs(hrp=True, glc=True),
    "3dlut-two-views": Knobs(hrp=False, glc=True, glc_weight=0.0),
    "hrp-two-views": Knobs(hrp=True, glc=True, glc_weight=0.0),
    "hrp-2": Knobs(hrp=True, glc=False, hrp_weight=2.0),
    "glc-3": Knobs(hrp=False, glc=True, glc_weight=3.0),
    "hrp-glc-10": Knobs(hrp=True, glc=True, glc_weight=10.0),
}
"""The demo's arms. Those of two views see what the arms with glc see, without its loss; a number at the end
is the weight of hrp or glc where it is not the paper's."""
LIVE = ("3dlut", "hrp", "hrp-glc")
"""The arms that the chapter trains before the reader's eyes."""


def recipe(options: Options, knobs: Knobs | None = None) -> Retouching:
    """The run that these options and knobs describe.

    Raises:
        InputError: a knob outside its range.
    """
    base = DEMO if options.profile == "demo" else OFFICIAL
    turned = {name: value for name, value in asdict(knobs or Knobs()).items() if value is not None}
    settings = replace(base, **turned)
    _check(settings)
    return Retouching(settings, options.profile, options.data_root)


@dataclass(frozen=True)
class Retouching(runs.ChosenRecipe):
    """Train a retoucher on views of portraits, and judge it on whole photographs of other sessions."""

    chosen: Settings
    profile: str = "full"
    data_root: Path | None = None

    paper = "ppr10k"
    sources = (model, lut, losses, data, views, photographs, metrics, sliders, xmp, portraits)

    @property
    def name(self) -> str:  # type: ignore[override]
        """E.g. "3dlut-hrp-glc-a"; what else differs stands in the settings."""
        parts = ("3dlut", "hrp" * self.chosen.hrp, "glc" * self.chosen.glc, self.chosen.expert)
        return "-".join(part for part in parts if part)

    def settings(self) -> Mapping[str, Any]:
        return {"profile": self.profile, **asdict(self.chosen)}

    def networks(self) -> dict[str, nn.Module]:
        return {"retoucher": retoucher(self.chosen)}

    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        parameters = networks["retoucher"].parameters()
        return {"retoucher": Adam(parameters, lr=self.chosen.lr, betas=self.chosen.betas)}

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        if not self.chosen.decay:
            return {}
        schedule = partial(_half_then_linear, self.steps)
        return {name: LambdaLR(optimizer, schedule) for name, optimizer in optimizers.items()}

    def data(self) -> Dataset[Any]:
        c = self.chosen
        source = _sessions("train") if self.profile == "demo" else data.find(self.data_root)
        return data.Views(source, c.expert, c.glc, c.size, c.crop, c.resize, c.versions)

    @cached_property
    def test(self) -> Photos:
        """The whole photographs that the run is judged on."""
        source = _sessions("val") if self.profile == "demo" else data.find(self.data_root)
        return Photos(source, self.chosen.expert)

    def phases(self) -> Sequence[Phase]:
        return [Phase("retoucher", self._loss)]

    def _loss(self, step: Step) -> Loss:
        """The pixels of the first view, the colours of both, and what keeps the LUTs smooth and monotone."""
        batch, chosen = step.batch, self.chosen
        network = step.networks["retoucher"]
        views = [batch["source"], batch["other"]] if chosen.glc else [batch["source"]]
        outputs, weights = network(torch.cat(views), views=len(views), with_weights=True)
        first, *others = outputs.chunk(len(views))
        terms = {"pixel": self._pixel_loss(first, batch["target"], batch["mask"])}
        if others:
            terms["glc"] = chosen.glc_weight * losses.glc(first, others[0], batch["corners"])
        luts: Any = getattr(network, "module", network).luts
        terms["regulariser"] = losses.regulariser(
            weights[: len(first)], luts, chosen.lambda_smooth, chosen.lambda_monotone
        )
        return Loss(terms)

    def _pixel_loss(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        if self.chosen.hrp:
            return losses.hrp(output, target, mask, self.chosen.hrp_weight)
        return nn.functional.mse_loss(output, target)

    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """The paper's five columns and what belongs beside them, over whole photographs at their own size."""
        return evaluate(networks["retoucher"], self.test, fabric)


def evaluate(network: nn.Module, test: Photos, fabric: Fabric) -> dict[str, float]:
    """What `metrics.summary` gives, and three numbers of ours; every process takes its share.

    `human_psnr` and `background_psnr` are dB within each region, over the photographs that have it.
    `mglc_error` is the MGLC of the *errors* in mean colour: what a group's composition does to the mean
    colours is in the target's too, and cancels.
    """
    rows = torch.zeros(len(test), 10, dtype=torch.float64)
    precision = next(network.parameters()).dtype
    for i in range(fabric.global_rank, len(test), fabric.world_size):
        photo = test[i]
        rows[i] = _measured(network(photo["source"][None].to(fabric.device, precision))[0], photo)
    return _numbers(fabric.all_reduce(rows, reduce_op="sum").numpy(), test.photographs.names)  # type: ignore[union-attr]


def evaluate_sources(test: Photos) -> dict[str, float]:
    """The same numbers of the photographs as they are, not retouched."""
    rows = torch.stack([_measured(test[i]["source"], test[i]) for i in range(len(test))])
    return _numbers(rows.numpy(), test.photographs.names)


def _measured(output: Tensor, photo: Mapping[str, Any]) -> Tensor:
    """One photograph's row: `metrics.Measures` flat, then PSNR on people and on the background."""
    pred, wanted = (
        metrics.quantise(image.float().cpu().permute(1, 2, 0).numpy()) for image in (output, photo["target"])
    )
    human = photo["mask"][0].numpy() > 0
    one = metrics.measure(pred, wanted, human)
    on_people = metrics.human_psnr(pred, wanted, human) if human.any() else np.nan
    behind = metrics.background_psnr(pred, wanted, human) if not human.all() else np.nan
    row = [one.psnr, one.delta_e, one.psnr_hc, one.delta_e_hc, *one.mean_ab, *one.target_mean_ab]
    return torch.tensor([*row, on_people, behind], dtype=torch.float64)


def _numbers(rows: np.ndarray[Any, Any], names: Sequence[str]) -> dict[str, float]:
    photos = {
        name: metrics.Measures(row[0], row[1], row[2], row[3], (row[4], row[5]), (row[6], row[7]))
        for name, row in zip(names, rows.tolist(), strict=True)
    }
    numbers = metrics.summary(photos)
    groups = [metrics.group_id(name) for name in names]
    numbers["mglc_error"] = metrics.mglc(rows[:, 4:6] - rows[:, 6:8], groups)
    for name, column in (("human_psnr", rows[:, 8]), ("background_psnr", rows[:, 9])):
        if not np.isnan(column).all():
            numbers[name] = float(np.nanmean(column))
    return numbers


def retoucher(settings: Settings) -> model.Retoucher:
    """The network that the settings describe."""
    k = settings.num_luts
    predictor: model.Predictor
    if settings.backbone == "resnet18":
        predictor = model.ResNet18Predictor(k, settings.pretrained)
    else:
        unpaired = settings.backbone == "light_unpaired"
        predictor = model.LightPredictor(k, settings.thumbnail, settings.widths, unpaired)
    return model.Retoucher(predictor, settings.lut_size, settings.identity_start)


@cache
def _sessions(part: Literal["train", "val"]) -> dict[str, Shot]:
    """The demo's photographs by name; those for training have, as the paper's, five versions more."""
    shots = {}
    for group in TRAIN if part == "train" else TEST:
        for portrait in portraits.session(group):
            rng = np.random.default_rng(mix(group, portrait.name))
            moved = [Sliders.from_offsets(xmp.offsets(rng)) for _ in range(VERSIONS - 1)]
            rendered = [sliders.render(portrait.source, each) for each in moved if part == "train"]
            sources = [_stored(image, np.uint16) for image in (portrait.source, *rendered)]
            mask = portrait.mask.astype(np.uint8)
            shots[portrait.name] = Shot(sources, _stored(portrait.target, np.uint8), mask)
    return shots


def _stored(image: np.ndarray[Any, Any], kind: type) -> np.ndarray[Any, Any]:
    """Values in [0, 1] at the depth of PPR10K's files."""
    return np.rint(image * np.iinfo(kind).max).astype(kind)


def _half_then_linear(steps: int, step: int) -> float:
    """Factor of the learning rate: 1 for the first half, then linearly to 0."""
    return min(1.0, 2 * (1 - step / steps))


def _check(settings: Settings) -> None:
    allowed: dict[str, Sequence[Any]] = {
        "expert": EXPERTS,
        "backbone": get_args(Backbone),
        "resize": get_args(Resize),
        "versions": range(1, VERSIONS + 1),
    }
    for name, values in allowed.items():
        if getattr(settings, name) not in values:
            listed = ", ".join(map(str, values))
            raise InputError(f"{name} is {getattr(settings, name)!r}; it can be {listed}")
    for name in ("num_luts", "hrp_weight", "batch_size", "steps", "lr"):
        if not getattr(settings, name) > 0:
            raise InputError(f"{name} is {getattr(settings, name)!r}; it must be above 0")
