"""NUS-WIDE for hashing: `python -m data_scripts.nus_wide --root DIR ...` makes `DIR/NUS-WIDE`.

    images/0001_2124494179.jpg ...     the images, brought by you
    annotations/                       Labels_<concept>.txt for each of 81 concepts, and Imagelist.txt
    splits.npz                         train, test and database with 21 labels an image

Many of the images' Flickr addresses are dead by now, so a whole pack comes on request only (the form on NUS's
page): give it with `--images`. `--annotations` takes Groundtruth.zip and ImageList.zip of NUS's page, or
folders that hold the same.

The 21 concepts are those with the most images. The official lists (`data/NUS-WIDE` of
github.com/xunguangwang/ProS-GAN) are imported with `--lists`, columns and all. Without them the columns are
in alphabetical order, and `--seed` draws the splits: 100 images of each concept to test, 500 to train.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
from cyclopts import App

from cvpr21lib.errors import InputError
from cvpr21lib.papers import datasets
from cvpr21lib.prosgan import splits
from cvpr21lib.prosgan.data import NUS_WIDE
from cvpr21lib.prosgan.splits import Array, Part
from data_scripts import command, hashing, licence, manifest, scratch
from data_scripts.unpack import unpack

CONCEPTS = 81
LISTED = 269_648
"""Images of the whole data set; 195,834 of them show at least one of the 21 concepts."""
ROWS = 10_500, 2_100, None
"""Lines of the official lists of train and test; that of the database could not be looked at."""

TERMS = "the page"

app = App(name="python -m data_scripts.nus_wide", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    images: Path | None = None,
    annotations: Sequence[Path] = (),
    lists: Path | None = None,
    seed: int = 0,
    accept_licence: bool = False,
    verify_only: bool = False,
) -> None:
    """Label, split and check NUS-WIDE, or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds, or will hold, NUS-WIDE: the library's data_root.
    images
        Archive with the images, if they are not yet in NUS-WIDE/images.
    annotations
        Archives or folders with the labels and the list of images (give the option twice for two).
    lists
        Folder with the six official lists; without it the splits are drawn.
    seed
        Of the draw.
    accept_licence
        You have read the terms and accept them.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    folder = root / NUS_WIDE.name
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    licence.require(datasets.NUS_WIDE, accept_licence, TERMS)
    for remark in prepare(folder, images, annotations, lists, seed):
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def prepare(
    folder: Path,
    images: Path | None = None,
    annotations: Sequence[Path] = (),
    lists: Path | None = None,
    seed: int = 0,
) -> list[str]:
    """Do what is not done yet, check the whole, record it; remarks on what is only unusual."""
    if (folder / manifest.NAME).exists():
        return ["it was prepared before; --verify-only compares it with its manifest"]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "annotations").is_dir():
        _place_annotations(annotations, folder / "annotations")
    if not (folder / "images").is_dir():
        _place_images(images, folder / "images")
    names, concepts, labels = read_labels(folder / "annotations")
    if lists is None:
        annotated, classes = _frequent(names, concepts, labels)
        found, remarks = hashing.drawn_by_class(annotated, classes, NUS_WIDE.counts, seed), list[str]()
    else:
        found, remarks = hashing.official(lists, Part(names, labels), concepts, ROWS)
    remarks += hashing.check_counts(found, NUS_WIDE.counts, ROWS)
    hashing.require_images(folder, found)
    splits.write(folder / splits.FILE, found)
    manifest.write(folder, hashing.about(found))
    return remarks


def read_labels(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], Array]:
    """All images as `images/NAME.jpg`, the 81 concepts in alphabetical order, and the labels `(N, 81)` uint8.

    Raises:
        InputError: files that are missing, or do not fit together.
    """
    lines = (folder / "Imagelist.txt").read_text(encoding="utf-8").split("\n")
    names = tuple(f"images/{PureWindowsPath(line.strip()).name}" for line in lines if line.strip())
    paths = {path.stem.removeprefix("Labels_"): path for path in sorted(folder.glob("Labels_*.txt"))}
    if len(names) != LISTED or len(set(names)) != LISTED or len(paths) != CONCEPTS:
        raise InputError(
            f"{folder} has {len(names)} images ({len(set(names))} names) and {len(paths)} concepts; expected "
            f"{LISTED} and {CONCEPTS}."
        )
    columns = {}
    for concept, path in paths.items():
        words = path.read_text().split()
        if len(words) != LISTED or not set(words) <= {"0", "1"}:
            raise InputError(f"{path} is damaged: it has {len(words)} values, expected {LISTED} of 0 and 1.")
        columns[concept] = np.array(words, dtype=np.uint8)
    concepts, labels = hashing.as_array(columns)
    return names, concepts, labels


def _frequent(
    names: tuple[str, ...], concepts: tuple[str, ...], labels: Array
) -> tuple[Part, tuple[str, ...]]:
    """The concepts with the most images, in alphabetical order, and the images that show at least one."""
    columns = np.sort(np.argsort(-labels.sum(0, dtype=int), kind="stable")[: NUS_WIDE.classes])
    labels = labels[:, columns]
    kept = np.flatnonzero(labels.any(1))
    wanted = sum(NUS_WIDE.counts[1:])
    if len(kept) != wanted:
        raise InputError(
            f"{len(kept)} images show one of the {NUS_WIDE.classes} most frequent concepts, not {wanted}."
        )
    return Part(tuple(names[i] for i in kept), labels[kept]), tuple(concepts[i] for i in columns)


def _place_annotations(given: Sequence[Path], folder: Path) -> None:
    with scratch.beside(folder) as partial:
        collected = partial / "annotations"
        collected.mkdir()
        for number, source in enumerate(given):
            inside = source if source.is_dir() else unpack(source, partial / f"content{number}")
            # Labels_animal_Train.txt and the like belong to NUS's own split, in another folder.
            for path in (*inside.rglob("AllLabels/Labels_*.txt"), *inside.glob("Labels_*.txt")):
                shutil.copyfile(path, collected / path.name)
            for path in inside.rglob("*mage*ist.txt"):
                if path.name.lower() == "imagelist.txt":
                    shutil.copyfile(path, collected / "Imagelist.txt")
        lacking = [
            what
            for what, pattern in {
                "AllLabels/Labels_<concept>.txt": "Labels_*",
                "Imagelist.txt": "Imagelist.txt",
            }.items()
            if not any(collected.glob(pattern))
        ]
        if lacking:
            raise InputError(
                f"no {' and no '.join(lacking)} in {', '.join(map(str, given)) or 'what was given'}; give "
                "Groundtruth.zip and ImageList.zip of NUS's page with --annotations."
            )
        collected.rename(folder)


def _place_images(archive: Path | None, folder: Path) -> None:
    if archive is None:
        raise InputError(
            f"the images are not in {folder}; put them there, or give their archive with --images."
        )
    with scratch.beside(folder) as partial:
        inside = unpack(archive, partial / "content")
        holders = Counter(path.parent for path in inside.rglob("*.jpg"))
        if not holders:
            raise InputError(f"{archive} holds no images; is it another archive?")
        holders.most_common(1)[0][0].rename(folder)


if __name__ == "__main__":
    command.run(app)
