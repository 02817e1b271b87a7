"""The folder of a run: whose it is, its checkpoints, and clear words when the disk refuses."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from cvpr21lib import atomic, record
from cvpr21lib.errors import InputError
from cvpr21lib.record import Record
from cvpr21lib.scalars import Scalars

KEPT_CHECKPOINTS = 2


class RunFolder:
    """Reads and writes what `cvpr21lib.runs` leaves behind; every file is whole or absent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings_path = path / "settings.json"
        self.record_path = path / record.FILE_NAME
        self.checkpoint_folder = path / "checkpoints"

    def prepare(self) -> None:
        """Make the folder, and find out now rather than in an hour whether it can be written to."""
        with self._writing():
            self.checkpoint_folder.mkdir(parents=True, exist_ok=True)
            with atomic.write(self.path / "probe") as probe:
                probe.write_text("can this folder be written to?")
            (self.path / "probe").unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget the run that is there."""
        with self._writing():
            for checkpoint in self.checkpoints():
                checkpoint.unlink()
            for path in (self.record_path, self.settings_path, self.path / Scalars.FILE_NAME):
                path.unlink(missing_ok=True)

    def require_same(self, identity: Mapping[str, Any]) -> None:
        """`InputError` with every difference if the folder holds a run with other settings."""
        if not self.settings_path.exists():
            return
        try:
            before = json.loads(self.settings_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{self.settings_path} is damaged ({error}); use another output_dir, or resume=False"
            ) from None
        differences = record.differences(before, json.loads(json.dumps(identity)))
        if differences:
            listed = "; ".join(f"{d.entry}: {d.first!r} there, {d.second!r} asked for" for d in differences)
            raise InputError(
                f"{self.path} holds a run with other settings ({listed}); "
                "use another output_dir, or resume=False to replace it"
            )

    def write_settings(self, identity: Mapping[str, Any]) -> None:
        """Say whose folder this is."""
        with self._writing(), atomic.write(self.settings_path) as temporary:
            temporary.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")

    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted(self.checkpoint_folder.glob("step_*.pt"))

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then drop all but the last two."""
        path = self.checkpoint_folder / f"step_{step:08d}.pt"
        with self._writing(), atomic.write(path) as temporary:
            torch.save(state, temporary)
        for old in self.checkpoints()[:-KEPT_CHECKPOINTS]:
            old.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read; damaged ones are named and passed over."""
        paths = self.checkpoints()
        for path in reversed(paths):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                warnings.warn(f"checkpoint {path} is damaged ({reason}); trying the one before", stacklevel=2)
        if paths:
            raise InputError(
                f"no checkpoint in {self.checkpoint_folder} can be read "
                f"(tried {', '.join(path.name for path in paths)}); "
                "restore one, or start over with resume=False"
            )
        return None

    def export(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Write one network's weights as `<name>.safetensors`."""
        tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        with self._writing(), atomic.write(self.path / f"{name}.safetensors") as temporary:
            save_file(tensors, temporary)

    def write_record(self, made: Record) -> None:
        """Write the record: from now on the run counts as finished."""
        with self._writing():
            record.write(self.record_path, made)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn the disk's refusals into one clear error."""
        try:
            yield
        except (
            OSError,
            RuntimeError,
            SafetensorError,
        ) as error:  # torch's and safetensors' words for a full disk
            last = self.checkpoints()
            free = (
                f"{shutil.disk_usage(self.path).free // 2**20} MiB free"
                if self.path.is_dir()
                else "the folder is not there"
            )
            why = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise InputError(
                f"cannot write to {self.path}: {why} ({free}). "
                f"Last checkpoint, whole: {last[-1].name if last else 'none yet'}. "
                "Make room or permission, or choose another output_dir; the same call then resumes"
            ) from error
