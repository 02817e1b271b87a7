"""What a run leaves behind: its numbers, and all one must know to believe or repeat them."""

from __future__ import annotations

import ast
import datetime
import hashlib
import importlib.metadata
import inspect
import io
import json
import os
import platform
import subprocess
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cvpr21lib import __version__, atomic
from cvpr21lib.errors import InputError

FILE_NAME = "results.json"
LAYOUT = 1
"""Version of the file's layout."""


@dataclass(frozen=True)
class Record:
    """One finished run."""

    paper: str
    """The paper's slug, e.g. "lptn"."""
    name: str
    """What was run, e.g. "released-L3"; unique among the runs of one experiment up to the seed."""
    profile: str
    """"demo" or "full"."""
    seed: int
    steps: int
    """Training steps that the weights have seen."""
    numbers: Mapping[str, float]
    """The evaluation's results."""
    curves: Mapping[str, list[list[float]]]
    """What was logged on the way, thinned: name -> [steps, values]."""
    settings: Mapping[str, Any]
    """Every setting of the recipe and of the run."""
    fingerprints: Mapping[str, str]
    """"code" and "data": they change when what made the numbers changes."""
    wall_time_s: float
    """Seconds of training and evaluation, all sittings of an interrupted run together."""
    finished: str
    """UTC, ISO 8601."""
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    git_commit: str | None
    """Commit of the source tree, with "+changes" where files differ from it; None outside a checkout."""


def make(
    *,
    paper: str,
    name: str,
    profile: str,
    seed: int,
    steps: int,
    numbers: Mapping[str, float],
    curves: Mapping[str, list[list[float]]],
    settings: Mapping[str, Any],
    fingerprints: Mapping[str, str],
    wall_time_s: float,
) -> Record:
    """A record of now: versions, hardware, commit and time are filled in."""
    return Record(
        paper=paper,
        name=name,
        profile=profile,
        seed=seed,
        steps=steps,
        numbers=dict(numbers),
        curves=dict(curves),
        settings=dict(settings),
        fingerprints=dict(fingerprints),
        wall_time_s=round(wall_time_s, 2),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=versions(),
        hardware=hardware(),
        git_commit=git_commit(),
    )


def write(path: str | Path, record: Record) -> None:
    """Write one record as JSON, whole or not at all."""
    _write_json(path, {"layout": LAYOUT, **plain(record)})


def read(path: str | Path) -> Record:
    """Read one record. `InputError` for a missing, damaged or foreign file."""
    return _from_json(path, _read_json(path))


def write_many(path: str | Path, records: Sequence[Record]) -> None:
    """Write the records of one experiment into one JSON file; what they share is written once."""
    rows = [plain(record) for record in records]
    shared = {key: rows[0][key] for key in rows[0] if all(row[key] == rows[0][key] for row in rows)}
    runs = [{key: value for key, value in row.items() if key not in shared} for row in rows]
    _write_json(path, {"layout": LAYOUT, "shared": shared, "runs": runs})


def read_many(path: str | Path) -> list[Record]:
    """Read what `write_many` wrote. `InputError` for a missing, damaged or foreign file."""
    content = _read_json(path)
    if "runs" not in content or "shared" not in content:
        raise InputError(f"{path} is not a file of several records (no `runs` in it)")
    return [_from_json(path, {**content, **content["shared"], **run}) for run in content["runs"]]


def collect(*folders: str | Path) -> list[Record]:
    """All records below the folders, single runs and files of several, by paper, name and seed."""
    found: list[Record] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"no folder {folder} to collect records from")
        for path in sorted(folder.rglob("*.json")):
            if path.name == FILE_NAME:
                found.append(read(path))
            elif path.parent.parent.name == "records":
                found.extend(read_many(path))
    return sorted(found, key=lambda record: (record.paper, record.profile, record.name, record.seed))


@dataclass(frozen=True)
class Difference:
    """One entry in which two records differ; `None` stands for "not there"."""

    entry: str
    first: Any
    second: Any


def compare(first: Record, second: Record) -> list[Difference]:
    """Every entry (nested ones by dotted name) in which two records differ; equal records give []."""
    return differences(plain(first), plain(second))


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """As `compare`, for any two nested mappings of plain values."""
    a, b = _flat(first), _flat(second)
    return [Difference(key, a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def plain(value: Any) -> Any:
    """A setting or record as JSON has it: dataclasses become dicts, paths strings, tuples lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def code_fingerprint(modules: Iterable[ModuleType]) -> str:
    """Sixteen hex digits that change with the modules' code, but not with comments, docstrings and blanks."""
    digest = hashlib.sha256()
    for module in sorted(modules, key=lambda module: module.__name__):
        digest.update(
            module.__name__.encode() + b"\0" + _code_only(inspect.getsource(module)).encode() + b"\0"
        )
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Python and the packages that numbers may depend on."""
    found = {"cvpr21lib": __version__, "python": platform.python_version()}
    for name in (
        "torch",
        "torchvision",
        "lightning-fabric",
        "numpy",
        "scikit-image",
        "opencv-python-headless",
        "pillow",
    ):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """The processor, its cores and torch's threads, and the GPUs if any."""
    import torch

    found: dict[str, Any] = {
        "processor": _processor(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def git_commit() -> str | None:
    """The commit of the checkout that this library is imported from, if it is one."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != here.parent:
            return None
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "--", str(here)) else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    with atomic.write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read_json(path: str | Path) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no record at {path}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"the record {path} is damaged ({error}); remove it and run again to make it anew"
        ) from None
    if not isinstance(content, dict) or content.get("layout") != LAYOUT:
        raise InputError(f"{path} is not a record of this library (layout {LAYOUT} expected)")
    return content


def _from_json(path: str | Path, content: Mapping[str, Any]) -> Record:
    missing = [field.name for field in fields(Record) if field.name not in content]
    if missing:
        raise InputError(f"the record {path} lacks {', '.join(missing)}")
    return Record(**{field.name: content[field.name] for field in fields(Record)})


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    out: dict[str, Any] = {}
    for key, item in value.items():
        out.update(_flat(item, f"{prefix}.{key}" if prefix else key))
    return out


def _code_only(source: str) -> str:
    """The source without comments, docstrings and blank lines (cut by position: the same for any Python)."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if text and isinstance(statement.value.value, str):
                for row in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1):
                    lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
