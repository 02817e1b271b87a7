"""How and where a run happens: the same names in every notebook, on the command line and in the record."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from cvpr21lib.errors import InputError

Knobs = TypeVar("Knobs")


@dataclass(frozen=True)
class Options:
    """How and where a run happens; what is run stands in the paper's own knobs."""

    profile: str = "demo"
    """"demo": minutes on a laptop, offline. "full": the paper's recipe on the paper's data."""
    data_root: Path | None = None
    """Folder with the paper's data sets as data_scripts lays them out; the demo needs none."""
    output_dir: Path | None = None
    """Where checkpoints, scalars and the record go; None: the run's own folder in $CVPR21_RUNS or ./runs."""
    seed: int = 0
    """Seed of every random choice."""
    devices: int = 1
    """Devices (GPUs, or processes on the CPU) on each node."""
    num_nodes: int = 1
    """Machines; more than one needs torchrun or srun."""
    precision: str = "32-true"
    """Lightning Fabric's names: 32-true, bf16-mixed, 16-mixed, 64-true, ..."""
    max_steps: int | None = None
    """Stop after so many training steps; None: the recipe's own number. Schedules do not change."""
    resume: bool = True
    """Continue or return what is in output_dir; False: replace it."""
    accumulate: int = 1
    """Split each batch into so many parts, one after the other, to save memory."""
    workers: int | None = None
    """Loader processes a device; None: the recipe's own number."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; None: the recipe's own number."""
    log_every: int = 10
    """Steps between logged scalars."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        for name in ("data_root", "output_dir"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, Path(value).expanduser())
        if self.profile not in ("demo", "full"):
            raise InputError(f'profile is {self.profile!r}; it can be "demo" or "full"')
        if self.accelerator not in ("auto", "cpu", "cuda", "mps"):
            raise InputError(f"accelerator is {self.accelerator!r}; it can be auto, cpu, cuda or mps")
        for name in ("devices", "num_nodes", "accumulate", "log_every", "max_steps", "checkpoint_every"):
            value = getattr(self, name)
            optional = name in ("max_steps", "checkpoint_every")
            if not (optional and value is None) and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} is {value!r}; it must be a whole number of at least 1")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers is {self.workers}; it must be 0 or more")

    def folder(self, paper: str, name: str) -> Path:
        """Where the run `name` of a paper leaves its files."""
        if self.output_dir is not None:
            return self.output_dir
        root = Path(os.environ.get("CVPR21_RUNS", "runs"))
        return root / paper / self.profile / f"{name}-seed{self.seed}"


def from_parameters(namespace: Mapping[str, Any], knobs: type[Knobs]) -> tuple[Options, Knobs]:
    """A notebook's parameters as `Options` and the paper's knobs.

    Call it as `from_parameters(globals(), lptn.Knobs)` in the first cell after the one tagged "parameters":
    papermill puts what it was given into just that place, so a misspelt name is still alone there, and is
    refused with the nearest right ones.
    """
    of_options = {field.name for field in fields(Options)}
    of_knobs = {field.name for field in fields(knobs)}  # type: ignore[arg-type]
    scalar = (bool, int, float, str, os.PathLike, type(None))
    given = {
        name: value
        for name, value in namespace.items()
        if not isinstance(value, ModuleType)  # a module may have a parameter's name
        and (name in of_options | of_knobs or (isinstance(value, scalar) and not name.startswith("_")))
    }
    for name in given:
        if name not in of_options | of_knobs:
            near = difflib.get_close_matches(name, of_options | of_knobs, n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise InputError(
                f"this notebook has no parameter {name!r}; {hint}"
                f"it knows {', '.join(sorted(of_options | of_knobs))}"
            )
    return (
        Options(**{name: value for name, value in given.items() if name in of_options}),
        knobs(**{name: value for name, value in given.items() if name in of_knobs}),
    )
