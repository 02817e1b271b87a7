"""The chapter's experiment: drawn streets adapt to textured ones, every arm from one start in equal steps.

    source        the start: trained on the source, and no further
    source-cont   as many steps more of the source's semantics
    mtl           of its depth and the refinement, too, still without an adversary
    advent        semantics from the source, and E(P) of both domains aligned
    mtl+advent    everything from the source, and E(P) aligned
    ctrl-no-srh   all but the refinement: E(P) and E(q) aligned
    ctrl          everything from the source, and the joint map aligned
    ctrl+isl      ctrl, and then steps on what it is sure of in the target

Three more ask whether the bins, or the length, decide between mtl+advent and ctrl.

The starts are shipped (`STARTS`), since their training would take most of the time. They are made again by

    python -m cvpr21lib.ctrl_uda.demo
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset

from cvpr21lib import atomic, checkpoints, runs
from cvpr21lib.ctrl_uda import cross_task, depth_metrics, evaluation, losses, pseudo_labels, small, step
from cvpr21lib.ctrl_uda.cross_task import Bins
from cvpr21lib.ctrl_uda.step import METHODS, Adaptation, SelfLearning
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.runs import Loss, Phase, Step
from cvpr21lib.sampling import Draw
from cvpr21lib.scenes import roads

CLASSES = roads.CLASSES
TRAINING, JUDGED = 300, 150
"""Scenes of either domain to learn from, and of the target to be judged on."""
STARTS = Path(__file__).parents[2] / "book" / "records" / "ctrl_uda" / "start.safetensors"
"""Networks trained on the sources of the seeds 0 to 9, in half precision; a seed starts from seed mod 10.

:meta hide-value:
"""
NUM_STARTS = 10
SEEDS = tuple(range(10))
"""Reported seeds. Looks, rates and λ were chosen on seeds from 100 on."""


@dataclass(frozen=True)
class Settings:
    """All that makes a run of the demo."""

    method: str = "ctrl"
    """One of `step.METHODS`."""
    start: Literal["trained", "fresh"] = "trained"
    """From a shipped start, or from nothing, as the starts themselves."""
    steps: int = 200
    self_learning: int = 0
    """How many of the steps, the last ones, are self-learning."""
    batch_size: int = 4
    """Scenes a step of either domain, over all devices."""
    lr: float = 5e-4
    """Of Adam for the network; falls as (1 - step / steps)^0.9."""
    lr_self_learning: float = 2.5e-4
    """The same in self-learning, where the schedule begins anew."""
    lr_discriminator: float = 5e-4
    """Of Adam with (0.9, 0.99) for the discriminator, on the network's schedule."""
    lambda_adv: float = 0.01
    """Weight of the adversarial loss, after `quiet` steps without and `ramp` steps on the way."""
    quiet: int = 20
    ramp: int = 30
    lambda_depth: float = 0.003
    """Weight of berHu on inverse depth."""
    bins: str = "log"
    """Bins of depth, of `BINS`."""
    workers: int = 0


BINS = {
    "log": cross_task.bins("log"),
    "SID": cross_task.bins("SID"),
    "SID-enlarged": Bins(tuple(m / 10 for m in cross_task.bins("SID").metres), sigma=100.0),
}
"""log is made for streets of 3 to 60 m. SID is official, and nearly blind there. SID-enlarged sees the street
as the official bins would if it were ten times as large: centres ten times as near, and a tenfold D."""
START = Settings(method="mtl", start="fresh", steps=600, lr=2e-3, lambda_depth=0.01)
"""How the starts are made."""
ARMS = {
    "source": Settings(method="source", steps=0),
    "source-cont": Settings(method="source"),
    "mtl": Settings(method="mtl"),
    "advent": Settings(method="advent", lambda_adv=0.003),
    "mtl+advent": Settings(method="mtl+advent"),
    "ctrl-no-srh": Settings(method="ctrl-no-srh"),
    "ctrl": Settings(method="ctrl", lambda_adv=0.03),
    "ctrl+isl": Settings(method="ctrl", lambda_adv=0.03, steps=260, self_learning=60),
    "ctrl-official-bins": Settings(method="ctrl", lambda_adv=0.03, bins="SID"),
    "mtl+advent-long": Settings(method="mtl+advent", steps=400),
    "ctrl-long": Settings(method="ctrl", lambda_adv=0.03, steps=400),
}
"""λ is what was best for each arm in `tuning`, which tries the same weights for all."""
LIVE = ("source", "advent", "mtl+advent", "ctrl")
"""The arms that the chapter runs before the reader's eyes."""


def recipe(options: Options, settings: Settings | None = None) -> Adapting:
    """The run that these options and settings describe; those of ctrl unless given.

    Raises:
        InputError: a setting outside its range.
    """
    settings = settings or ARMS["ctrl"]
    _check(settings)
    return Adapting(settings, options.seed)


@dataclass(frozen=True)
class Adapting(runs.ChosenRecipe):
    """Adapt a small network to textured streets, and judge it on others of them."""

    chosen: Settings
    seed: int = 0
    """Of the scenes, and of the start."""

    paper = "ctrl_uda"
    sources = (
        small, step, cross_task, losses, pseudo_labels, evaluation, depth_metrics, roads,
        sys.modules[__name__],
    )  # fmt: skip

    @property
    def name(self) -> str:  # type: ignore[override]
        """E.g. "ctrl-roads"; what else differs stands in the settings."""
        return f"{self.chosen.method}-roads"

    def settings(self) -> Mapping[str, Any]:
        return {"profile": "demo", **asdict(self.chosen)}

    @property
    def adaptation(self) -> Adaptation:
        """The losses before self-learning; maps are aligned at the size of the network's output."""
        c = self.chosen
        weight = partial(ramped, c.lambda_adv, c.quiet, c.ramp)
        return Adaptation(
            METHODS[c.method], self.bins, lambda_depth=c.lambda_depth, lambda_adv=weight, align_at="head"
        )

    @property
    def bins(self) -> Bins:
        return BINS[self.chosen.bins]

    @property
    def adapting(self) -> int:
        """Steps before self-learning."""
        return self.chosen.steps - self.chosen.self_learning

    def networks(self) -> dict[str, nn.Module]:
        c, found = self.chosen, {"net": small.SmallNet(len(CLASSES))}
        if c.start == "trained":
            found["net"].load_state_dict(start(self.seed))
        made: dict[str, nn.Module] = {**found}
        if METHODS[c.method].space != "none":
            width = step.channels(METHODS[c.method], len(CLASSES), len(self.bins))
            made["discriminator"] = small.SmallDiscriminator(width)
        if c.self_learning:
            made["teacher"] = small.SmallNet(len(CLASSES))
        return made

    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        found: dict[str, Optimizer] = {"net": Adam(networks["net"].parameters(), self.chosen.lr)}
        if "discriminator" in networks:
            parameters = networks["discriminator"].parameters()
            found["discriminator"] = Adam(parameters, self.chosen.lr_discriminator, betas=(0.9, 0.99))
        return found

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        return {name: LambdaLR(optimizer, self._factor) for name, optimizer in optimizers.items()}

    def _factor(self, number: int) -> float:
        """Of the learning rates in step `number`."""
        c = self.chosen
        if number < self.adapting:
            return (1 - number / self.adapting) ** 0.9
        return (
            c.lr_self_learning
            / c.lr
            * max(0.0, 1 - (number - self.adapting) / max(c.self_learning, 1)) ** 0.9
        )

    def data(self) -> Dataset[Any]:
        return World(self.seed)

    def phases(self) -> Sequence[Phase]:
        adaptation = self.adaptation.phases()
        if not self.chosen.self_learning:
            return adaptation
        (self_learning,) = SelfLearning(self._pseudo_labels).phases()
        later = {"net": self_learning.loss, "discriminator": _at_rest}
        return [
            Phase(phase.network, partial(self._loss, phase.loss, later[phase.network]))
            for phase in adaptation
        ]

    def _loss(self, before: Any, after: Any, step: Step) -> Any:
        return (before if step.number < self.adapting else after)(step)

    def _pseudo_labels(self, step: Step) -> Tensor:
        """By the teacher: the network as it was when self-learning began."""
        teacher, image = step.networks["teacher"], step.batch["target"]
        if step.number == self.adapting:
            teacher.load_state_dict(step.networks["net"].state_dict())
        with torch.no_grad():
            return pseudo_labels.confident(teacher(image)[0], image.shape[-2:]).long()

    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """See `evaluate`; every process judges all scenes, which takes a second."""
        return evaluate(networks["net"], self.seed, fabric.device)


def ramped(weight: float, quiet: int, ramp: int, number: int) -> float:
    """0 in the first `quiet` steps, then linearly up to `weight` within `ramp`."""
    return weight * min(1.0, max(0.0, (number + 1 - quiet) / ramp))


def _at_rest(step: Step) -> Loss:
    """The discriminator has nothing to learn in self-learning."""
    parameters = step.networks["discriminator"].parameters()
    return Loss({"d_rest": sum((0 * each.sum() for each in parameters), start=torch.zeros(()))})


class World(Dataset[dict[str, Tensor]]):
    """Source scenes with labels (H, W) and inverse depth (H, W), each beside some target scene without."""

    def __init__(self, seed: int) -> None:
        self.source = frames(seed, "source", 0, TRAINING)
        self.target = frames(seed, "target", 0, TRAINING)

    def __len__(self) -> int:
        return TRAINING

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        image, label, metres = (part[draw.index] for part in self.source)
        return {
            "source": image,
            "label": label,
            "depth": inverse(metres),
            "target": self.target.image[draw.seed % TRAINING],
        }

    def fingerprint(self) -> str:
        """Of some scenes, to a whole grey value (computed pixels differ in their last bits from processor to
        processor), and of the starts; it is the same for every seed."""
        digest = hashlib.sha256(STARTS.read_bytes() if STARTS.is_file() else b"")
        for domain in get_args(roads.Domain):
            for each in roads.scenes(0, domain, 5):
                parts = [round(float(part.mean())) for part in (each.image, each.label, each.depth)]
                digest.update(f"{domain} {TRAINING} {JUDGED} {parts}".encode())
        return digest.hexdigest()[:16]


class Frames(NamedTuple):
    """Scenes as tensors."""

    image: Tensor  # (N, 3, H, W) in [0, 1]
    label: Tensor  # (N, H, W) int64
    metres: Tensor  # (N, H, W)


@cache
def frames(seed: int, domain: roads.Domain, first: int, count: int) -> Frames:
    """Scenes of a world; drawn once in a process."""
    drawn = roads.scenes(seed, domain, count, first)
    image, label, metres = (
        torch.from_numpy(np.stack([getattr(scene, part) for scene in drawn]))
        for part in ("image", "label", "depth")
    )
    return Frames(image.permute(0, 3, 1, 2).float() / 255, label.long(), metres)


def inverse(metres: Tensor) -> Tensor:
    """D = 65536 / (100 z + 1)."""
    return 65536 / (100 * metres + 1)


def evaluate(network: nn.Module, seed: int, device: torch.device | str = "cpu") -> dict[str, float]:
    """How good a network is on the target scenes of a world.

    "miou", "iou/flat" and so on in %, and the mean error of depth, "abs_rel@80m", on scenes that nobody
    learned from. On the scenes for adaptation: "coverage", the share of pixels with a probability of at least
    0.9, and "sure_and_right", the share of these whose class is right; self-learning lives on them.
    """
    judged, met = frames(seed, "target", TRAINING, JUDGED), frames(seed, "target", 0, TRAINING)
    size = tuple(judged.label.shape[1:])
    confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    off: list[float] = []
    for rows in _parts(JUDGED):
        semantic, depth, _ = network(judged.image[rows].to(device))
        inverse_depth = F.interpolate(depth.float(), size, mode="bilinear", align_corners=True).cpu().numpy()
        pred, label = evaluation.predict(semantic, size), judged.label[rows].numpy()
        confusion += evaluation.count(label.reshape(-1, size[1]), pred.reshape(-1, size[1]), CLASSES)
        off += [
            depth_metrics.errors(one[0], metres).abs_rel
            for one, metres in zip(inverse_depth, judged.metres[rows].numpy(), strict=True)
        ]
    sure = right = 0
    for rows in _parts(TRAINING):
        given = pseudo_labels.confident(network(met.image[rows].to(device))[0], size).cpu()
        sure += int((given != losses.VOID).sum())
        right += int((given == met.label[rows]).sum())
    numbers = evaluation.Report(confusion, CLASSES, JUDGED).numbers
    return numbers | {
        "abs_rel@80m": float(np.mean(off)),
        "coverage": sure / met.label.numel(),
        "sure_and_right": right / max(sure, 1),
    }


def _parts(count: int, size: int = 50) -> list[slice]:
    return [slice(first, first + size) for first in range(0, count, size)]


class Seen(NamedTuple):
    """One scene as the discriminator sees it; h × w is the size of the network's output."""

    depth: np.ndarray  # (h, w) metres, NaN where the predicted inverse depth is not above 0
    share: np.ndarray  # (K, h, w): q, the share of each bin, nearest first
    joint: np.ndarray  # (C + K + C, h, w): the joint map
    semantic: np.ndarray  # (C, h, w): its first part, E(softmax P)
    bins: np.ndarray  # (K, h, w): its second part, E(q)
    refined: np.ndarray  # (C, h, w): its third part, E(softmax R)


def seen(network: nn.Module, scene: roads.Scene, bins: Bins = BINS["log"]) -> Seen:
    """A scene, of either domain, through the network and into the joint map."""
    image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        semantic, depth, refined = network(image)
        share = cross_task.quantise(depth, bins)[0].numpy()
        joint = cross_task.joint_map(semantic, depth, refined, bins)[0].numpy()
    parts = np.split(joint, [len(CLASSES), len(CLASSES) + len(bins)])
    return Seen(depth_metrics.to_metres(depth[0, 0].numpy()), share, joint, *parts)


def start(seed: int, path: Path = STARTS) -> dict[str, Tensor]:
    """The weights that a seed starts from, float32.

    Raises:
        InputError: no such file, or a damaged or foreign one.
    """
    number = f"{seed % NUM_STARTS}."
    if not path.is_file():
        raise InputError(f"there are no starts at {path}; `python -m cvpr21lib.ctrl_uda.demo` makes them")
    every = checkpoints.load(path)
    found = {
        name.removeprefix(number): value.float() for name, value in every.items() if name.startswith(number)
    }
    if not found:
        raise InputError(
            f"{path} holds no start {number[:-1]}; `python -m cvpr21lib.ctrl_uda.demo` makes them"
        )
    return found


def make_starts(path: Path = STARTS) -> Path:
    """Train the starts, each in a process, as many at a time as there are cores, and write them to `path`."""
    workers = min(NUM_STARTS, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = list(pool.map(make_start, range(NUM_STARTS)))
    tensors = {
        f"{number}.{name}": value.half() for number, state in enumerate(made) for name, value in state.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.write(path) as temporary:
        save_file(tensors, temporary)
    return path


def make_start(seed: int) -> dict[str, Tensor]:
    """Train one start, on one thread; it takes half a minute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with TemporaryDirectory() as folder:
            options = Options(seed=seed, output_dir=Path(folder), accelerator="cpu", progress=False)
            made = recipe(options, START)
            runs.run(made, options)
            return runs.weights(made, folder)["net"].state_dict()
    finally:
        torch.set_num_threads(threads)


def _check(settings: Settings) -> None:
    allowed = {"method": METHODS, "start": ("trained", "fresh"), "bins": BINS}
    for name, values in allowed.items():
        if getattr(settings, name) not in values:
            raise InputError(f"{name} is {getattr(settings, name)!r}; it can be {', '.join(values)}")
    if not 0 <= settings.self_learning <= settings.steps:
        raise InputError(
            f"self_learning is {settings.self_learning} of {settings.steps} steps; expected 0 to all of them"
        )


if __name__ == "__main__":
    from cvpr21lib.ctrl_uda import demo  # not __main__, whose classes other processes cannot find

    print(demo.make_starts())
