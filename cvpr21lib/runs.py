"""A run from start to finish: one loop for every recipe, on one device or many, on Lightning Fabric.

    record = runs.run(recipe, runs.Options(output_dir="runs/mine", devices=2))

The same call again continues an interrupted run and returns a finished one. What lies in the output folder:

    settings.json      the recipe's settings, written first; a run with other settings is refused
    scalars.csv        step, name, value: losses, learning rates, speed, and evaluations on the way
    checkpoints/       the last two, each whole: step_00001000.pt
    <network>.safetensors    the trained weights, at the end
    results.json       the record (`cvpr21lib.record`), at the end; its presence says that the run is finished

Every random choice is a function of the seed and the step (`cvpr21lib.sampling`), so a run that was killed
and resumed gives the numbers of an unbroken one, and no generator's state needs to be kept.
"""

from __future__ import annotations

import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import add
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from cvpr21lib import launch, record
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.record import Record
from cvpr21lib.run_folder import RunFolder
from cvpr21lib.sampling import Batches, mix
from cvpr21lib.scalars import Scalars, curves


@dataclass
class Step:
    """What a loss sees of the running step."""

    number: int
    """Steps done before this one: 0 in the first."""
    networks: Mapping[str, nn.Module]
    """All networks by name, on the device; only the one being updated needs gradients."""
    batch: Mapping[str, Any]
    """One (micro-)batch from the data set, on the device."""
    memo: dict[str, Any] = field(default_factory=dict)
    """What earlier phases of this step left for later ones."""


class Loss(NamedTuple):
    """The terms are summed and minimised; what is watched is only logged."""

    terms: Mapping[str, Tensor]
    watched: Mapping[str, Tensor] = {}


class Phase(NamedTuple):
    """One optimiser step within a training step: a GAN has one for each of its two networks."""

    network: str
    """The network that is updated, by the optimiser of the same name."""
    loss: Callable[[Step], Loss | Iterator[Loss]]
    """Of several losses, each is propagated back before the next one is asked for, and the gradients add up:
    what only the first one needs is gone by then."""


LOOP = 1
"""Version of what this loop and its sampling do to a run's numbers; part of every code fingerprint.

A change that changes numbers raises it, and so makes every record stale; a test holds a small run against
kept numbers. Other changes to the loop leave the records alone."""


class Recipe(ABC):
    """What a paper brings to a run. Must be picklable, since other processes may run it."""

    paper: str
    """The paper's slug."""
    name: str
    """What is run, e.g. "released-L3"."""
    steps: int
    """The recipe's own number of training steps; schedules refer to it even if `max_steps` stops it."""
    batch_size: int
    """Samples a step, over all devices together."""
    repeat: int = 1
    """Rounds over the data that are shuffled together (`sampling.order`)."""
    workers: int = 0
    """Loader processes a device, unless the options say otherwise."""
    checkpoint_every: int = 1000
    evaluate_every: int | None = None
    sources: Sequence[ModuleType] = ()
    """Modules whose code makes the numbers, without this one."""

    def code_fingerprint(self) -> str:
        """Changes with the code of `sources` and with `LOOP`."""
        return f"{record.code_fingerprint(self.sources)}-{LOOP}"

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Every hyperparameter, for the record; two runs with equal settings and seed are the same run."""

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Fresh networks; called after seeding."""

    @abstractmethod
    def optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        """One optimiser for each network that is trained, under the network's name."""

    def schedulers(self, optimizers: Mapping[str, Optimizer]) -> dict[str, LRScheduler]:
        """Learning-rate schedules, stepped after every training step."""
        return {}

    @abstractmethod
    def data(self) -> Dataset[Any]:
        """The training data, indexed by `sampling.Draw`. It may have `fingerprint() -> str`, and `collate`,
        which makes a batch of a list of samples."""

    @abstractmethod
    def phases(self) -> Sequence[Phase]:
        """The phases of one training step, in order."""

    @abstractmethod
    def evaluate(self, networks: Mapping[str, nn.Module], fabric: Fabric) -> dict[str, float]:
        """The numbers of the record. Called on every process; each must return the same numbers."""


class ChosenRecipe(Recipe):
    """A recipe whose numbers are the fields of a frozen dataclass, `chosen`, and of nothing else."""

    chosen: Any
    """Has `steps`, `batch_size`, `workers`, and perhaps `evaluate_every`."""

    @property
    def steps(self) -> int:  # type: ignore[override]
        return self.chosen.steps

    @property
    def batch_size(self) -> int:  # type: ignore[override]
        return self.chosen.batch_size

    @property
    def workers(self) -> int:  # type: ignore[override]
        return self.chosen.workers

    @property
    def evaluate_every(self) -> int | None:  # type: ignore[override]
        return getattr(self.chosen, "evaluate_every", None)


class NonFiniteLoss(InputError):
    """A loss became NaN or infinite; nothing was updated with it."""


def run(recipe: Recipe, options: Options) -> Record:
    """Train, resume, or return the finished run; see the module's head for what it leaves behind.

    Ctrl-C and SIGTERM end the step, save a checkpoint, and leave by `KeyboardInterrupt` or `SystemExit(143)`.

    Raises:
        InputError: other settings in the same folder, more devices than there are, a batch that does not
            divide, no room or permission to write, damaged checkpoints only, missing data.
        NonFiniteLoss: with the step, the loss's name and the last good checkpoint.
    """
    target = min(recipe.steps, options.max_steps or recipe.steps)
    folder = RunFolder(options.folder(recipe.paper, recipe.name))
    if options.resume:
        folder.require_same(_identity(recipe, options))
        finished = _finished(recipe, folder, target)
        if finished is not None:
            return finished
    fabric = launch.fabric(options)
    size = _micro_batch(recipe, options, fabric.world_size)
    folder.prepare()
    work = partial(_train, recipe=recipe, options=options, folder=folder, target=target, size=size)
    signal_number = launch.start(fabric, work)
    launch.leave_if(signal_number, f"stopped on request; the same call resumes from {folder.path}")
    return record.read(folder.record_path)


def weights(recipe: Recipe, folder: str | Path) -> dict[str, nn.Module]:
    """The networks that a finished run left in `folder`, on the CPU, in evaluation mode."""
    networks = recipe.networks()
    for name, network in networks.items():
        path = Path(folder) / f"{name}.safetensors"
        if not path.exists():
            raise InputError(f"no trained weights {path}: is the run finished?")
        network.load_state_dict(load_file(path))
        network.eval()
    return networks


def _train(
    fabric: Fabric, recipe: Recipe, options: Options, folder: RunFolder, target: int, size: int
) -> int | None:
    """The work of one process. Returns the number of the signal that stopped it, or None when finished."""
    with launch.Signals() as signals:
        started = logged = time.monotonic()
        if fabric.global_rank == 0 and not options.resume:
            folder.clear()
        fabric.barrier()
        run = _Running(fabric, recipe, options, folder)
        before = run.restore()
        last = run.done
        fabric.barrier()
        if fabric.global_rank == 0 and run.done == 0:
            folder.write_settings(_identity(recipe, options))
        with Scalars(folder.path, first_step=run.done, active=fabric.global_rank == 0) as scalars:
            for values in run.train(target, size):
                seconds = before + time.monotonic() - started
                due = run.done % options.log_every == 0 or run.done == target
                if due:
                    now = time.monotonic()
                    speed = {"steps_per_second": (run.done - last) / (now - logged)}
                    scalars.write(run.done, run.reduced(values) | speed)
                    last, logged = run.done, now
                if recipe.evaluate_every and run.done % recipe.evaluate_every == 0 and run.done < target:
                    scalars.write(run.done, run.evaluate())
                stop = launch.any_process(fabric, signals.received is not None)
                if stop or run.done == target or run.done % run.checkpoint_every == 0:
                    run.save(seconds)
                if stop:
                    return signals.received or signals.default
            numbers = run.evaluate()
            scalars.write(run.done, numbers)
        if fabric.global_rank == 0:
            for name, network in run.raw.items():
                folder.export(name, network.state_dict())
            made = record.make(
                paper=recipe.paper,
                name=recipe.name,
                profile=options.profile,
                seed=options.seed,
                steps=run.done,
                numbers=numbers,
                curves=curves(folder.path),
                settings=_identity(recipe, options) | {"run": record.plain(options)},
                fingerprints={"code": recipe.code_fingerprint(), "data": run.data_fingerprint},
                wall_time_s=before + time.monotonic() - started,
            )
            folder.write_record(made)
        fabric.barrier()
    return None


class _Running:
    """The state of a run in one process: networks, optimisers, schedules and the steps done."""

    def __init__(self, fabric: Fabric, recipe: Recipe, options: Options, folder: RunFolder) -> None:
        self.fabric, self.recipe, self.options, self.folder = fabric, recipe, options, folder
        self.checkpoint_every = options.checkpoint_every or recipe.checkpoint_every
        self.done = 0
        self.data = recipe.data()
        fingerprint = getattr(self.data, "fingerprint", None)
        self.data_fingerprint = fingerprint() if fingerprint else "none"
        _seed(fabric.device, mix(options.seed, "networks"))
        self.raw = recipe.networks()
        self.optimizers = recipe.optimizers(self.raw)
        self.networks: dict[str, nn.Module] = {}
        self.wrapped: dict[str, Any] = {}
        for name, network in self.raw.items():
            if name in self.optimizers:
                self.networks[name], self.wrapped[name] = fabric.setup(network, self.optimizers[name])
            else:
                self.networks[name] = network.requires_grad_(False).to(fabric.device)
        self.schedulers = recipe.schedulers(self.optimizers)
        self.trained = {
            name: [p for p in self.raw[name].parameters() if p.requires_grad] for name in self.optimizers
        }

    def train(self, target: int, size: int) -> Iterator[Mapping[str, Tensor]]:
        """Do the steps up to `target`, yielding the scalars of each."""
        if self.done >= target:
            return
        for network in self.networks.values():
            network.train()
        batches = iter(self._loader(target, size))
        phases = self.recipe.phases()
        shown = self.fabric.global_rank == 0 and self.options.progress
        with tqdm(
            total=target,
            initial=self.done,
            desc=self.recipe.name,
            unit="step",
            leave=False,
            disable=not shown,
        ) as bar:
            while self.done < target:
                steps = [
                    Step(self.done, self.networks, next(batches)) for _ in range(self.options.accumulate)
                ]
                # after the loader, which draws a seed of its own when it starts
                place = ("step", self.done, self.fabric.global_rank)
                _seed(self.fabric.device, mix(self.options.seed, *place))
                values: dict[str, Tensor] = {}
                for phase in phases:
                    values |= self._update(phase, steps)
                for scheduler in self.schedulers.values():
                    scheduler.step()
                self.done += 1
                bar.update()
                if shown and (self.done % self.options.log_every == 0 or self.done == target):
                    bar.set_postfix({name: f"{value.item():.4g}" for name, value in values.items()})
                yield values

    def _update(self, phase: Phase, steps: Sequence[Step]) -> dict[str, Tensor]:
        """One optimiser step; the gradients of the (micro-)batches are averaged."""
        if len(self.trained) > 1:  # what is not updated needs no gradients
            for name, parameters in self.trained.items():
                for parameter in parameters:
                    parameter.requires_grad_(name == phase.network)
        optimizer = self.wrapped[phase.network]
        optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        for step in steps:
            waiting = step is not steps[-1]
            with self.fabric.no_backward_sync(self.networks[phase.network], enabled=waiting):  # type: ignore[arg-type]
                losses = phase.loss(step)
                for loss in [losses] if isinstance(losses, Loss) else losses:
                    total = reduce(add, loss.terms.values())
                    self._require_finite(loss.terms, total)
                    self.fabric.backward(total if len(steps) == 1 else total / len(steps))
                    for name, value in (*loss.terms.items(), *loss.watched.items()):
                        share = value.detach() if len(steps) == 1 else value.detach() / len(steps)
                        sums[name] = sums[name] + share if name in sums else share
                    del loss, total
        optimizer.step()
        return sums

    def _require_finite(self, terms: Mapping[str, Tensor], total: Tensor) -> None:
        if math.isfinite(total.item()):
            return
        bad = [f"{name} = {value.item()}" for name, value in terms.items() if not math.isfinite(value.item())]
        last = self.folder.checkpoints()
        raise NonFiniteLoss(
            f"step {self.done + 1} of {self.recipe.name}: {', '.join(bad) or 'the sum of the losses'} "
            "is not finite; no weights were changed by it. "
            f"Last good checkpoint: {last[-1] if last else 'none yet'}. "
            "Look for bad values in the data, lower the learning rate, or use a wider precision"
        )

    def _loader(self, target: int, size: int) -> Any:
        accumulate = self.options.accumulate
        batches = Batches(
            len(self.data),  # type: ignore[arg-type]
            size,
            seed=self.options.seed,
            first=self.done * accumulate,
            last=target * accumulate,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            repeat=self.recipe.repeat,
        )
        workers = self.recipe.workers if self.options.workers is None else self.options.workers
        loader: DataLoader[Any] = DataLoader(
            self.data,
            batch_sampler=batches,
            num_workers=workers,
            worker_init_fn=launch.ignore_interrupts,
            collate_fn=getattr(self.data, "collate", None),
            pin_memory=self.fabric.device.type == "cuda",
        )
        elsewhere = self.fabric.device.type != "cpu"
        return self.fabric.setup_dataloaders(loader, use_distributed_sampler=False, move_to_device=elsewhere)

    def evaluate(self) -> dict[str, float]:
        for network in self.raw.values():
            network.eval()
        with torch.no_grad():
            numbers = self.recipe.evaluate(self.raw, self.fabric)
        for network in self.raw.values():
            network.train()
        return numbers

    def reduced(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The step's scalars averaged over the processes, and the learning rates."""
        mean = partial(self.fabric.all_reduce, reduce_op="mean")
        out = {name: float(mean(value)) for name, value in values.items()}  # type: ignore[arg-type]
        for name, optimizer in self.optimizers.items():
            out[f"lr_{name}"] = float(optimizer.param_groups[0]["lr"])
        return out

    def save(self, seconds: float) -> None:
        """Write a checkpoint on rank 0; the others wait until it is there."""
        if self.fabric.global_rank == 0:
            state = {
                "step": self.done,
                "seconds": seconds,
                "networks": {name: network.state_dict() for name, network in self.raw.items()},
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            self.folder.save(self.done, state)
        self.fabric.barrier()

    def restore(self) -> float:
        """Continue from the newest whole checkpoint, if there is one. Returns the seconds spent before."""
        state = self.folder.newest()
        if state is None:
            return 0.0
        for name, network in self.raw.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(state["schedulers"][name])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.done = state["step"]
        return float(state["seconds"])


def _seed(device: torch.device, seed: int) -> None:
    """As `torch.manual_seed`, which formats a stack trace at every call where CUDA sleeps: a millisecond."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _identity(recipe: Recipe, options: Options) -> dict[str, Any]:
    """What makes two runs the same run: not where, on how many devices, or how long."""
    return record.plain({"recipe": recipe.settings(), "seed": options.seed, "precision": options.precision})


def _finished(recipe: Recipe, folder: RunFolder, target: int) -> Record | None:
    """The record of this very run, if it is there and as long as asked for."""
    if not folder.record_path.exists():
        return None
    found = record.read(folder.record_path)
    if found.steps < target:
        return None
    if found.fingerprints.get("code") != recipe.code_fingerprint():
        warnings.warn(
            f"the finished run in {folder.path} was made by other code than today's; "
            "resume=False makes it anew",
            stacklevel=3,
        )
    return found


def _micro_batch(recipe: Recipe, options: Options, world: int) -> int:
    size, rest = divmod(recipe.batch_size, world * options.accumulate)
    if rest:
        raise InputError(
            f"the batch of {recipe.batch_size} samples does not divide by {world} device(s) x "
            f"{options.accumulate} accumulated batches; choose numbers that divide it"
        )
    return size
