"""Starting a run's processes on the devices asked for, and stopping them cleanly."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch.multiprocessing import ProcessRaisedException

from cvpr21lib.errors import InputError
from cvpr21lib.options import Options


def fabric(options: Options) -> Fabric:
    """A Fabric for these options, in processes that torchrun or srun started, or that are started here.

    Raises:
        InputError: more devices than there are, or several nodes without torchrun or srun.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    elastic = TorchElasticEnvironment.detect()
    started = elastic or SLURMEnvironment.detect()
    devices, nodes = options.devices, options.num_nodes
    if elastic:  # torchrun's own word counts
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    if nodes > 1 and not started:
        raise InputError(
            f"num_nodes is {nodes}: start the command with torchrun or srun on every node "
            "(see the chapter on full-scale runs)"
        )
    accelerator = _accelerator(options)
    _check_devices(accelerator, devices)
    strategy: Any = "auto"
    if devices * nodes > 1 or started:
        method = "popen" if started else "fork" if hasattr(sys, "ps1") or _in_notebook() else "spawn"
        strategy = DDPStrategy(start_method=method)  # type: ignore[arg-type]
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=options.precision,  # type: ignore[arg-type]
    )


def start(fabric: Fabric, work: Callable[[Fabric], Any]) -> Any:
    """Run `work(fabric)` in every process; returns what the first one returns.

    A clear error of a started process is raised here as itself, without the other process's traceback.
    """
    with _forwarded_termination():
        try:
            return fabric.launch(work)
        except ProcessRaisedException as failure:
            for line in reversed(str(failure).splitlines()):
                name, _, message = line.partition(": ")
                module, _, kind = name.rpartition(".")
                if module.startswith("cvpr21lib.") and message:
                    raise getattr(sys.modules[module], kind)(message) from failure
            raise


def leave_if(signal_number: int | None, message: str) -> None:
    """After a stop on request: leave as the signal would have it."""
    if signal_number is None:
        return
    if signal_number == signal.SIGINT:
        raise KeyboardInterrupt(message)
    print(message, file=sys.stderr)
    raise SystemExit(128 + signal_number)


class Signals:
    """Within the block, the first Ctrl-C or SIGTERM is only noted; the second one acts as usual."""

    default = signal.SIGTERM

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def any_process(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set in any process; all get the same answer."""
    if fabric.world_size == 1:
        return flag
    return fabric.strategy.reduce_boolean_decision(flag, all=False)


def ignore_interrupts(worker: int) -> None:
    """For loader processes: Ctrl-C is the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _forwarded_termination() -> Iterator[None]:
    """A SIGTERM to the parent goes on to the processes it started (Ctrl-C reaches them anyway)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def forward(number: int, frame: FrameType | None) -> None:
        children = multiprocessing.active_children()
        for child in children:
            child.terminate()
        if not children:
            raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _accelerator(options: Options) -> str:
    if options.accelerator != "auto":
        return options.accelerator
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _check_devices(accelerator: str, devices: int) -> None:
    there = {
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
        "cpu": os.cpu_count() or 1,
    }[accelerator]
    if devices > there:
        unit = "processor cores (one process each)" if accelerator == "cpu" else f"{accelerator} devices"
        raise InputError(
            f"devices is {devices}, but this machine has {there} {unit}; ask for at most {there}"
        )


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None
