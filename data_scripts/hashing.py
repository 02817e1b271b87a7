"""What the data sets of the hashing chapter share: official lists or a draw, and the splits made from them.

The official lists are six text files, `{train,test,database}_{img,label}.txt`: a path a line, and as many
lines of 0 and 1, a column for each class. They do not name their columns, so each column is compared with the
original annotations of the same images, and takes the name of the class that it agrees with.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import splits
from cvpr21lib.prosgan.splits import NAMES, Array, Name, Part, Splits
from cvpr21lib.segmentation.layout import some

Counts = tuple[int, int, int]
"""Images of train, test and database."""

OFFICIAL = "the official lists"

TOLERANCE = 0.05
"""Largest share of a column's ones that may differ from the annotations of the class that it is taken for."""


def official(
    lists: Path, annotated: Part, classes: tuple[str, ...], rows: Sequence[int | None]
) -> tuple[Splits, list[str]]:
    """The splits of the official `lists`, with their own labels and order of columns; remarks on repeats and
    on labels that differ from the annotations.

    `annotated`: every image with its labels by the annotations, columns as `classes`, which may be more.
    `rows`: how many lines the lists of train, test and database have, None where that is not known.

    Raises:
        InputError: lists that are missing, damaged or of other lengths, images that nobody has annotated,
            columns that are none of the classes, and all that `splits.check` refuses.
    """
    missing = [
        f"{name}_{kind}.txt"
        for name in NAMES
        for kind in ("img", "label")
        if not (lists / f"{name}_{kind}.txt").is_file()
    ]
    if missing:
        raise InputError(
            f"{len(missing)} of the 6 official lists are missing in {lists}: {', '.join(missing)}."
        )
    parts: dict[Name, Part] = {}
    remarks = []
    for name, wanted in zip(NAMES, rows, strict=True):
        part = _read(lists, name)
        if wanted is not None and len(part.images) != wanted:
            raise InputError(f"{lists / f'{name}_img.txt'} has {len(part.images)} lines instead of {wanted}.")
        parts[name], repeats = _once(part, f"{name} of {lists}")
        if repeats:
            remarks.append(
                f"{repeats} of {len(part.images)} lines of the {name} list are repeats; they count once"
            )
    names, differing = _columns(parts, annotated, classes)
    if differing:
        remarks.append(f"{differing} of the official labels differ from the annotations; they are kept")
    found = Splits(names, OFFICIAL, parts)
    splits.check(found, str(lists))
    return found, remarks


def drawn(annotated: Part, classes: tuple[str, ...], counts: Counts, seed: int) -> Splits:
    """Train and test of these `counts`, each image as likely as another; all but test are the database."""
    order = list(range(len(annotated.images)))
    random.Random(seed).shuffle(order)
    train, test, _ = counts
    return chosen(annotated, classes, order[test : test + train], order[:test], f"drawn with seed {seed}")


def drawn_by_class(annotated: Part, classes: tuple[str, ...], counts: Counts, seed: int) -> Splits:
    """As `drawn`, but the same number of images for each class in turn, the rarest class first."""
    rng, used = random.Random(seed), set[int]()
    found: dict[str, list[int]] = {"train": [], "test": []}
    for name, count in (("test", counts[1]), ("train", counts[0])):
        for column in np.argsort(annotated.labels.sum(0), kind="stable").tolist():
            members = [i for i in np.flatnonzero(annotated.labels[:, column]).tolist() if i not in used]
            each = count // len(classes)
            if len(members) < each:
                raise InputError(
                    f"only {len(members)} images of {classes[column]} are left for {name}; expected {each}."
                )
            picked = rng.sample(members, each)
            used.update(picked)
            found[name] += picked
    origin = f"drawn by class with seed {seed}"
    return chosen(annotated, classes, found["train"], found["test"], origin)


def chosen(
    annotated: Part, classes: tuple[str, ...], train: list[int], test: list[int], origin: str
) -> Splits:
    """The splits with these rows of `annotated` as train and test, and all but test as the database."""
    outside = set(test)
    rows = {
        "train": sorted(train),
        "test": sorted(test),
        "database": [i for i in range(len(annotated.images)) if i not in outside],
    }
    parts = {
        name: Part(tuple(annotated.images[i] for i in rows[name]), annotated.labels[rows[name]])
        for name in NAMES
    }
    found = Splits(classes, origin, parts)
    splits.check(found, "the draw")
    return found


def check_counts(found: Splits, counts: Counts, rows: Sequence[int | None]) -> list[str]:
    """Raise `InputError` unless the splits have the benchmark's `counts`; a remark where one differs that was
    not read from the official lists, as `None` in `rows` says."""
    remarks = []
    for name, wanted, known in zip(NAMES, counts, rows, strict=True):
        number = len(found.parts[name].images)
        if number != wanted:
            message = f"{name} has {number} images instead of {wanted}"
            if known is not None or found.origin != OFFICIAL:
                raise InputError(f"{message} ({found.origin}).")
            remarks.append(f"{message}, a number that was reckoned and not read")
    return remarks


def require_images(folder: Path, found: Splits) -> None:
    """Raise `InputError` that names the images of the splits that are not in `folder`."""
    wanted = dict.fromkeys(image for part in found.parts.values() for image in part.images)
    if missing := [image for image in wanted if not (folder / image).is_file()]:
        raise InputError(f"{len(missing)} of {len(wanted)} images are missing in {folder} ({some(missing)}).")


def about(found: Splits) -> dict[str, object]:
    """For the manifest: where the splits come from, how many there are, and the columns."""
    return {
        "splits": found.origin,
        "counts": {name: len(part.images) for name, part in found.parts.items()},
        "without labels": {name: int((part.labels.sum(1) == 0).sum()) for name, part in found.parts.items()},
        "columns": list(found.classes),
    }


def _read(lists: Path, name: str) -> Part:
    """One pair of lists, repeats and all."""
    images = tuple((lists / f"{name}_img.txt").read_text(encoding="utf-8").split())
    path = lists / f"{name}_label.txt"
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    lengths, values = {len(row) for row in rows}, {value for row in rows for value in row}
    if len(rows) != len(images) or len(lengths) != 1 or not values <= {"0", "1"}:
        raise InputError(
            f"{path} is damaged: it has {len(rows)} lines of {sorted(lengths)} values for {len(images)} "
            "images; expected a line an image, of equally many 0 and 1."
        )
    return Part(images, np.array(rows, dtype=np.uint8))


def _once(part: Part, what: str) -> tuple[Part, int]:
    """Each image once, where it comes first; and how many repeats there were."""
    first: dict[str, int] = {}
    for i, image in enumerate(part.images):
        if (part.labels[first.setdefault(image, i)] != part.labels[i]).any():
            raise InputError(f"{image} comes twice in {what}, with different labels.")
    kept = list(first.values())
    return Part(tuple(first), part.labels[kept]), len(part.images) - len(kept)


def _columns(
    parts: Mapping[Name, Part], annotated: Part, classes: tuple[str, ...]
) -> tuple[tuple[str, ...], int]:
    """The class of each column of the official labels, and how many of these differ from the annotations."""
    place = {image: i for i, image in enumerate(annotated.images)}
    images = [image for name in ("test", "database") for image in parts[name].images]
    if unknown := [image for image in images if image not in place]:
        raise InputError(f"{len(unknown)} images of the lists have no annotation ({some(unknown)}).")
    labels = np.concatenate([parts["test"].labels, parts["database"].labels]).astype(np.float32)
    truth = annotated.labels[[place[image] for image in images]].astype(np.float32)
    differing = labels.T @ (1 - truth) + (1 - labels).T @ truth  # columns x classes
    best = differing.argmin(1)
    for column, (choice, ones) in enumerate(zip(best.tolist(), labels.sum(0).tolist(), strict=True)):
        if differing[column, choice] > TOLERANCE * ones or (best == choice).sum() > 1:
            raise InputError(
                f"column {column} of the official labels is none of the {len(classes)} classes, or one "
                f"of them that comes twice; it has {ones:.0f} images and differs from the nearest class, "
                f"{classes[choice]}, in {differing[column, choice]:.0f}."
            )
    return tuple(classes[choice] for choice in best), int(differing.min(1).sum())


def as_array(columns: Mapping[str, Array]) -> tuple[tuple[str, ...], Array]:
    """The names of the classes, and their columns side by side, `(N, C)` uint8."""
    return tuple(columns), np.stack(list(columns.values()), axis=1).astype(np.uint8)
