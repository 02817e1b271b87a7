"""Training and judging LPTN: the released recipe, the paper's, and the demo, which differ in size only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR
from torch.utils.data import Dataset

from cvpr21lib import metrics, runs
from cvpr21lib.errors import InputError
from cvpr21lib.lptn import branches, data, discriminator, expert, losses, model, photographs, pyramid
from cvpr21lib.lptn.data import TestPairs
from cvpr21lib.options import Options
from cvpr21lib.runs import Loss, Phase, Step

Architecture = Literal["released", "paper", "no_masking", "full_resolution"]
Mode = Literal["unpaired", "paired"]
Size = Literal["480p", "1080p", "original"]


@dataclass(frozen=True)
class Settings:
    """All that makes a run of LPTN; the values here are the released recipe (official `train_FiveK.yml`)."""

    arch: Architecture = "released"
    """released, paper, no_masking (bands pass unchanged), or full_resolution (no pyramid: the baseline)."""
    num_high: int = 3
    """L, the number of high-frequency bands."""
    nrb_low: int = 5
    """Residual blocks of the low-pass branch."""
    nrb_high: int = 3
    """Residual blocks of the mask branch."""
    width: int = 64
    """Channels of the two trunks."""
    identity_start: bool = False
    """Start with masks that leave the bands as they are (ours; a start value only)."""
    mode: Mode = "unpaired"
    """unpaired (the paper), or paired: the reconstruction target is the ground truth, without a GAN term."""
    size: Size = "480p"
    """FiveK at 480p, 1080p or original."""
    crop: int = 256
    """Side of the training crops, pixels."""
    batch_size: int = 64
    """Samples a step over all devices (official: 32 on each of 2 GPUs)."""
    steps: int = 300_000
    lr: float = 1e-4
    """Learning rate of both Adam optimisers."""
    betas: tuple[float, float] = (0.9, 0.99)
    milestones: tuple[int, ...] = (50_000, 100_000, 200_000, 300_000)
    """Steps after which the learning rate is halved; empty: constant for one half, then linearly to zero."""
    lambda_rec: float = 1000.0
    """Weight of the mean squared error to the input (unpaired) or to the ground truth (paired)."""
    lambda_gan: float = 1.0
    """Weight of the adversarial term for the generator; 0 trains without a discriminator."""
    lambda_gp: float = 100.0
    """Weight of the gradient penalty."""
    gan: losses.Kind = "standard"
    """The adversarial loss: standard (Wasserstein), wgan, vanilla, lsgan, hinge, wgan_softplus."""
    critic_size: int = 256
    """The discriminator resizes its input to this side, pixels."""
    critic_norm: bool = True
    """Whether the discriminator has its instance normalisation (official: yes; see the chapter)."""
    evaluate_every: int | None = 20_000
    workers: int = 8
    """Loader processes a device."""
    cache: bool = False
    """Keep the decoded photographs in memory (4.7 GB at 480p)."""


RELEASED = Settings()
PAPER = Settings(arch="paper", batch_size=16, evaluate_every=5_000)  # official `train_FiveK_paper.yml`
DEMO = Settings(
    width=16,
    nrb_low=3,
    nrb_high=2,
    identity_start=True,
    mode="paired",
    lambda_gan=0.0,
    crop=128,
    batch_size=4,
    steps=160,
    lr=3e-3,
    milestones=(),
    critic_size=128,
    evaluate_every=None,
    workers=0,
)


@dataclass(frozen=True)
class Knobs:
    """What a reader may turn; None leaves the profile's own value."""

    arch: Architecture = "released"
    """released, paper, no_masking or full_resolution."""
    num_high: int = 3
    """L, the number of high-frequency bands: 1 to 5."""
    mode: Mode | None = None
    """unpaired or paired (demo: paired; full: unpaired)."""
    size: Size | None = None
    """Full profile: FiveK at 480p, 1080p or original."""
    identity_start: bool | None = None
    """Start with masks that change nothing (demo: yes; full: no)."""
    width: int | None = None
    """Channels of the two trunks (demo: 16; full: 64)."""
    crop: int | None = None
    """Side of the training crops, pixels (demo: 128; full: 256)."""
    batch_size: int | None = None
    """Samples a step over all devices (demo: 4; full: 64, paper arch 16)."""
    steps: int | None = None
    """Length of the recipe, to which its schedule refers."""
    lr: float | None = None
    """Learning rate."""
    lambda_rec: float | None = None
    """Weight of the reconstruction term."""
    lambda_gan: float | None = None
    """Weight of the adversarial term."""
    critic_norm: bool | None = None
    """Instance normalisation in the discriminator (demo and full: yes)."""
    cache: bool | None = None
    """Keep the decoded photographs in memory."""


ARMS = {
    "released": Knobs(),
    "paper": Knobs(arch="paper", steps=205),
    "no_masking": Knobs(arch="no_masking", steps=350),
    "full_resolution": Knobs(arch="full_resolution", steps=32),
    "released-L1": Knobs(num_high=1, steps=35),
    "released-L2": Knobs(num_high=2, steps=105),
    "released-L4": Knobs(num_high=4, steps=205),
    "released-L5": Knobs(num_high=5, steps=205),
    "released-default-start": Knobs(identity_start=False),
    "unpaired": Knobs(mode="unpaired", critic_norm=False),
    "unpaired-official-critic": Knobs(mode="unpaired"),
}
"""The demo's arms. Paired arms have as many steps as fit into the processor time of 160 released ones."""
LIVE = ("released", "no_masking", "full_resolution", "unpaired")
"""The arms that the chapter trains before the reader's eyes."""


def recipe(options: Options, knobs: Knobs | None = None) -> Translation:
    """The run that these options and knobs describe.

    Raises:
        InputError: a knob outside its range, or (full) a missing or damaged data set.
    """
    knobs = knobs or Knobs()
    base = DEMO if options.profile == "demo" else PAPER if knobs.arch == "paper" else RELEASED
    if knobs.mode == "paired" and base.mode == "unpaired":
        base = replace(base, lambda_gan=0.0)
    if knobs.mode == "unpaired" and base.mode == "paired":
        # λ/s stays that of the released recipe (1000 at s = 256): see "balance" in the chapter
        base = replace(base, lambda_gan=1.0, lambda_rec=1000.0 * base.crop / 256, lr=1e-3, steps=100)
    settings = replace(base, **{name: value for name, value in asdict(knobs).items() if value is not None})
    _check(settings)
    return Translation(settings, options.profile, options.data_root)


@dataclass(frozen=True)
class Translation(runs.ChosenRecipe):
    """Train a translator on crops of two domains, and judge it on whole test pairs."""

    chosen: Settings
    profile: str = "full"
    data_root: Path | None = None

    paper = "lptn"
    repeat = 100  # the official sampler shuffles 100 rounds over the data together
    sources = (model, branches, discriminator, pyramid, losses, data, photographs, expert, metrics)

    @property
    def name(self) -> str:  # type: ignore[override]
        """E.g. "released-L3" or "paper-L4-unpaired"; what else differs stands in the settings."""
        levels = "" if self.chosen.arch == "full_resolution" else f"-L{self.chosen.num_high}"
        return f"{self.chosen.arch}{levels}-{self.chosen.mode}"

    def settings(self) -> Mapping[str, Any]:
        return {"profile": self.profile, **asdict(self.chosen)}

    def networks(self) -> dict[str, nn.Module]:
        found = {"g": generator(self.chosen)}
        if self.chosen.lambda_gan:
            found["d"] = discriminator.Discriminator(self.chosen.critic_size, norm=self.chosen.critic_norm)
        return found

    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        return {
            name: Adam(network.parameters(), lr=self.chosen.lr, betas=self.chosen.betas)
            for name, network in networks.items()
        }

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        return {name: self._schedule(optimizer) for name, optimizer in optimizers.items()}

    def _schedule(self, optimizer: Optimizer) -> LRScheduler:
        if self.chosen.milestones:
            return MultiStepLR(optimizer, list(self.chosen.milestones), gamma=0.5)
        return LambdaLR(optimizer, partial(_half_then_linear, self.steps))

    def data(self) -> Dataset[Any]:
        crops = data.PairedCrops if self.chosen.mode == "paired" else data.UnpairedCrops
        if self.profile == "demo":
            return crops(*_bundled(expert.TRAIN), self.chosen.crop)
        train = data.find(self.data_root, self.chosen.size) / "train"
        return crops(train / "A", train / "B", self.chosen.crop, cache=self.chosen.cache)

    @cached_property
    def test(self) -> TestPairs:
        """The whole images that the run is judged on."""
        if self.profile == "demo":
            return TestPairs(*_bundled(expert.TEST))
        test = data.find(self.data_root, self.chosen.size) / "test"
        return TestPairs(test / "A", test / "B" if (test / "B").is_dir() else None)

    def phases(self) -> Sequence[Phase]:
        generator = Phase("g", self._generator_loss)
        return [generator, Phase("d", self._critic_loss)] if self.chosen.lambda_gan else [generator]

    def _generator_loss(self, step: Step) -> Loss:
        """λ_rec·MSE to the input (unpaired) or the ground truth (paired) + λ_gan·the critic's opinion."""
        source = step.batch["source"]
        fake = step.networks["g"](source)
        reference = step.batch["target"] if self.chosen.mode == "paired" else source
        terms = {"reconstruction": self.chosen.lambda_rec * losses.mse(fake, reference)}
        if self.chosen.lambda_gan:
            logits = step.networks["d"](fake)
            opinion = losses.adversarial(logits, real=True, for_discriminator=False, kind=self.chosen.gan)
            terms["adversarial"] = self.chosen.lambda_gan * opinion
        return Loss(terms)

    def _critic_loss(self, step: Step) -> Loss:
        """The critic on real targets and on what the *updated* generator makes of the sources.

        The official code leaves the generator attached here and throws its gradients away; without them the
        critic's gradients are the same.
        """
        critic, real = step.networks["d"], step.batch["target"]
        with torch.no_grad():
            fake = step.networks["g"](step.batch["source"])
        real_logits, fake_logits = critic(torch.cat((real, fake))).chunk(2)
        opinion = partial(losses.adversarial, for_discriminator=True, kind=self.chosen.gan)
        # at the weights' own precision, and outside Fabric's wrapper, which knows first derivatives only
        bare = getattr(critic, "module", critic)
        pair = torch.stack((real, fake)).to(next(bare.parameters()).dtype)
        penalty = losses.gradient_penalty(bare, pair[0], pair[1], step.batch["alpha"].view(-1, 1, 1, 1))
        terms = {
            "critic_real": opinion(real_logits, real=True),
            "critic_fake": opinion(fake_logits, real=False),
            "gradient_penalty": self.chosen.lambda_gp * penalty,
        }
        return Loss(terms, {"wasserstein": real_logits.mean() - fake_logits.mean()})

    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """PSNR and SSIM on 8-bit values, mean over the test images, every process taking its share."""
        return evaluate(networks["g"], self.test, fabric)


def evaluate(network: nn.Module, test: TestPairs, fabric: Fabric) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM over whole test pairs; for up to ten images also those of each.

    Without ground truth (two folders of photographs): the PSNR between output and input, which says how far
    the translation went.
    """
    names = ("psnr", "ssim") if test.targets is not None else ("psnr_to_input",)
    rows = torch.zeros(len(test), len(names), dtype=torch.float64)
    precision = next(network.parameters()).dtype
    for index in range(fabric.global_rank, len(test), fabric.world_size):
        pair = test[index]
        output = network(pair["source"][None].to(fabric.device, precision)).float().cpu()
        if test.targets is not None:
            score = (metrics.psnr(output, pair["target"]), metrics.ssim(output, pair["target"]))
            rows[index] = torch.tensor(score, dtype=torch.float64)
        else:
            rows[index, 0] = metrics.psnr(output, pair["source"])
    rows = fabric.all_reduce(rows, reduce_op="sum")  # type: ignore[assignment]
    numbers = dict(zip(names, rows.mean(0).tolist(), strict=True))
    if len(test) <= 10:
        for index, photograph in enumerate(test.sources.names):
            numbers |= {f"{name}/{photograph}": rows[index, i].item() for i, name in enumerate(names)}
    return numbers


def generator(settings: Settings) -> nn.Module:
    """The translator that the settings describe."""
    if settings.arch == "full_resolution":
        return model.FullResolution(nrb_low=settings.nrb_low, width=settings.width)
    network = model.LPTN(
        num_high=settings.num_high,
        nrb_low=settings.nrb_low,
        nrb_high=settings.nrb_high,
        width=settings.width,
        arch=settings.arch,
    )
    if settings.identity_start:
        network.start_from_identity()
    return network


def _bundled(names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    pairs = {name: expert.pair(name) for name in names}
    return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}


def _half_then_linear(steps: int, step: int) -> float:
    """Factor of the learning rate: 1 for the first half, then linearly to 0."""
    return min(1.0, 2 * (1 - step / steps))


def _check(settings: Settings) -> None:
    allowed = {
        "arch": get_args(Architecture),
        "mode": get_args(Mode),
        "size": get_args(Size),
        "num_high": range(1, 6),
    }
    for name, values in allowed.items():
        if getattr(settings, name) not in values:
            listed = ", ".join(map(str, values))
            raise InputError(f"{name} is {getattr(settings, name)!r}; it can be {listed}")
    for name in ("width", "crop", "batch_size", "steps", "lr"):
        if not getattr(settings, name) > 0:
            raise InputError(f"{name} is {getattr(settings, name)!r}; it must be above 0")
