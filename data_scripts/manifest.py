"""What was prepared, file by file, so that later changes are noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from cvpr21lib import atomic
from cvpr21lib.errors import InputError

NAME = "manifest.json"


def write(folder: Path, about: Mapping[str, Any]) -> None:
    """Record every file below `folder`, hidden ones aside, with size and SHA-256 in `folder/manifest.json`.

    `about` says where the files are from; it is kept as it is.
    """
    files = {name: _describe(folder / name) for name in tqdm(_names(folder), f"Recording {folder.name}")}
    contents = {
        "about": dict(about),
        "count": len(files),
        "bytes": sum(file["size"] for file in files.values()),
        "files": files,
    }
    with atomic.write(folder / NAME) as temporary:
        temporary.write_text(json.dumps(contents, indent=1) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`; `InputError` where there is none or it cannot be read."""
    try:
        contents = json.loads((folder / NAME).read_text())
        contents["files"]
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} has no {NAME}: this script has not prepared it yet. Run it without --verify-only."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / NAME} is damaged ({error}); prepare the data set again.") from error
    return contents


def verify(folder: Path) -> int:
    """Compare `folder` with its manifest; the number of files. Names what is missing, extra or changed."""
    recorded, present = read(folder)["files"], set(_names(folder))
    common = sorted(present & set(recorded))
    changed = [
        name for name in tqdm(common, f"Verifying {folder.name}") if _differs(folder / name, recorded[name])
    ]
    problems = {
        "missing": sorted(set(recorded) - present),
        "not in the manifest": sorted(present - set(recorded)),
        "changed": changed,
    }
    found = [f"{len(names)} {kind} ({_some(names)})" for kind, names in problems.items() if names]
    if found:
        raise InputError(
            f"{folder} is not as it was prepared: {'; '.join(found)}. Prepare the data set again."
        )
    return len(recorded)


def _names(folder: Path) -> list[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    visible = (path for path in paths if not any(part.startswith(".") for part in path.parts))
    return sorted(path.as_posix() for path in visible if path.as_posix() != NAME)


def _describe(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def _differs(path: Path, recorded: Mapping[str, Any]) -> bool:
    return path.stat().st_size != recorded["size"] or sha256(path) != recorded["sha256"]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
