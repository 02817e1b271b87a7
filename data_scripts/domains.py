"""The layout of two domains, `{train,test}/{A,B}/`, and what must be true of it before anyone trains."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from cvpr21lib.errors import InputError
from cvpr21lib.lptn import photographs
from cvpr21lib.lptn.photographs import Photographs


class Counts(NamedTuple):
    """How many photographs there must be."""

    train_a: int
    train_b: int
    test_a: int
    test_b: int


def check(folder: Path, counts: Counts | None, crop: int) -> list[str]:
    """Raise one `InputError` that names all that is wrong; return remarks on what is only unusual.

    The numbers of photographs (`counts`; None: any), short sides of training photographs of at least `crop`
    pixels, test pairs of equal names and sizes (if there is a test/B), and every photograph decodes.
    """
    parts = {name: photographs.open(folder / name) for name in ("train/A", "train/B", "test/A")}
    if counts or (folder / "test/B").is_dir():
        parts["test/B"] = photographs.open(folder / "test/B")
    problems = [
        f"{name} holds {len(parts[name])} photographs instead of {wanted}"
        for name, wanted in zip(parts, counts or [], strict=False)
        if len(parts[name]) != wanted
    ]
    for name in ("train/A", "train/B"):
        small = too_small(parts[name], crop)
        if small:
            problems.append(f"{len(small)} in {name} have a side below {crop} pixels: {_some(small)}")
    if "test/B" in parts:
        problems += _unlike(parts["test/A"], parts["test/B"])
    if problems:
        raise InputError(f"The photographs are not as they should be: {'; '.join(problems)}.")
    _decode(parts)
    return _same_names(parts["train/A"], parts["train/B"])


def too_small(images: Photographs, crop: int) -> list[str]:
    """Descriptions of the images with a side below `crop` pixels."""
    return [images.describe(i) for i, size in enumerate(images.sizes) if min(size) < crop]


def _unlike(sources: Photographs, targets: Photographs) -> list[str]:
    alone = sorted(set(sources.names) ^ set(targets.names))
    if alone:
        return [f"test/A and test/B have different names: {_some(alone)}"]
    unlike = [
        f"{sources.describe(i)} and {targets.describe(i)}"
        for i in range(len(sources))
        if sources.sizes[i] != targets.sizes[i]
    ]
    return [f"test pairs differ in size: {_some(unlike)}"] if unlike else []


def _decode(parts: dict[str, Photographs]) -> None:
    for name, images in parts.items():
        for i in tqdm(range(len(images)), f"Reading {name}"):
            images[i]


def _same_names(sources: Photographs, targets: Photographs) -> list[str]:
    shared = sorted(set(sources.names) & set(targets.names))
    if not shared:
        return []
    return [
        f"train/A and train/B share {len(shared)} names ({_some(shared)}): these are image pairs. Unpaired "
        "training then sees the same photographs in both domains, which the paper's data avoids."
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
