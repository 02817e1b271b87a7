"""MIRFLICKR-25000 for hashing: `python -m data_scripts.flickr25k --root DIR` makes `DIR/FLICKR-25K`.

    mirflickr/im1.jpg ... im25000.jpg     the images, with their metadata and licences
    annotations/                          24 labels, and the 14 strict versions `_r1` of some
    splits.npz                            train, test and database with 38 labels an image

The official lists (`data/FLICKR-25K` of github.com/xunguangwang/ProS-GAN) are imported with `--lists`,
columns and all. Without them the splits are drawn with `--seed`, as large as theirs, and the columns are in
the order of `CLASSES`: the official one as far as it is known, 24 columns that were told by their totals, and
the strict labels in alphabetical order at the 14 other places.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from cyclopts import App

from cvpr21lib.errors import InputError
from cvpr21lib.papers import datasets
from cvpr21lib.prosgan import splits
from cvpr21lib.prosgan.data import FLICKR_25K
from cvpr21lib.prosgan.splits import Array, Part
from data_scripts import command, hashing, licence, manifest, scratch
from data_scripts.archives import Archive
from data_scripts.unpack import unpack

# Sizes and MD5 as users have noted them; that of the images is the one that the site gave, they say.
_SITE = "https://press.liacs.nl/mirflickr/mirflickr25k.v3b"
ARCHIVES = {
    "mirflickr": Archive(f"{_SITE}/mirflickr25k.zip", 3_069_184_257, "a23d0a8564ee84cda5622a6c2f947785"),
    "annotations": Archive(
        f"{_SITE}/mirflickr25k_annotations_v080.zip", 207_220, "aa0138c79892b1b670184d142380948f"
    ),
}

CLASSES = (
    "clouds", "sky", "lake", "tree", "indoor", "baby_r1", "portrait", "dog", "bird_r1", "car_r1",
    "animals", "car", "sea", "night", "transport", "sunset", "people", "clouds_r1", "flower", "dog_r1",
    "food", "female_r1", "flower_r1", "male_r1", "structures", "night_r1", "people_r1", "water", "baby",
    "portrait_r1", "plant_life", "river_r1", "sea_r1", "bird", "tree_r1", "male", "river", "female",
)  # fmt: skip

IMAGES = 25_000
ROWS = 5_000, 1_700, 23_300
"""Lines of the official lists of train (504 of them repeats), test and database."""

TERMS = "mirflickr/doc, and mirflickr/meta for each image"

app = App(name="python -m data_scripts.flickr25k", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    archives: Path | None = None,
    lists: Path | None = None,
    seed: int = 0,
    accept_licence: bool = False,
    verify_only: bool = False,
) -> None:
    """Fetch, label, split and check MIRFLICKR-25000 (3 GB, 6 GB on the disk), or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds, or will hold, FLICKR-25K: the library's data_root.
    archives
        Folder with mirflickr25k.zip and mirflickr25k_annotations_v080.zip, if you have them already.
    lists
        Folder with the six official lists; without it the splits are drawn.
    seed
        Of the draw.
    accept_licence
        You have read the terms and accept them.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    folder = root / FLICKR_25K.name
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    licence.require(datasets.FLICKR25K, accept_licence, TERMS)
    for remark in prepare(folder, archives, lists, seed):
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def prepare(
    folder: Path, archives: Path | None = None, lists: Path | None = None, seed: int = 0
) -> list[str]:
    """Do what is not done yet, check the whole, record it; remarks on what is only unusual."""
    if (folder / manifest.NAME).exists():
        return ["it was prepared before; --verify-only compares it with its manifest"]
    folder.mkdir(parents=True, exist_ok=True)
    for part, archive in ARCHIVES.items():
        if not (folder / part).is_dir():
            _place(archive.bring(folder.parent, archives and archives / archive.name), folder / part)
    images = tuple(f"mirflickr/im{number}.jpg" for number in range(1, IMAGES + 1))
    annotated = Part(images, read_labels(folder / "annotations"))
    if lists is None:
        found, remarks = hashing.drawn(annotated, CLASSES, FLICKR_25K.counts, seed), list[str]()
    else:
        found, remarks = hashing.official(lists, annotated, CLASSES, ROWS)
    remarks += hashing.check_counts(found, FLICKR_25K.counts, ROWS)
    hashing.require_images(folder, found)
    splits.write(folder / splits.FILE, found)
    manifest.write(
        folder, {archive.name: archive.url for archive in ARCHIVES.values()} | hashing.about(found)
    )
    return remarks


def read_labels(folder: Path) -> Array:
    """The labels `(25000, 38)` uint8, columns as `CLASSES`, from files that list the numbers of the images.

    Raises:
        InputError: files that are missing, or hold something else than numbers of images.
    """
    missing = [name for name in CLASSES if not (folder / f"{name}.txt").is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(CLASSES)} annotations are missing in {folder}: {', '.join(missing)}."
        )
    labels = np.zeros((IMAGES, len(CLASSES)), np.uint8)
    for column, name in enumerate(CLASSES):
        path = folder / f"{name}.txt"
        try:
            numbers = np.array([int(word) for word in path.read_text().split()], dtype=int)
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); fetch it again.") from error
        if numbers.size and not 1 <= numbers.min() <= numbers.max() <= IMAGES:
            raise InputError(
                f"{path} names images from {numbers.min()} to {numbers.max()}; there are 1 to {IMAGES}."
            )
        labels[numbers - 1, column] = 1
    return labels


def _place(archive: Path, folder: Path) -> None:
    """Unpack, and take the folder that holds what is looked for, wherever in the archive it lies."""
    wanted = "im1.jpg" if folder.name == "mirflickr" else f"{CLASSES[0]}.txt"
    with scratch.beside(folder) as partial:
        inside = unpack(archive, partial / "content")
        found = next((path.parent for path in sorted(inside.rglob(wanted))), None)
        if found is None:
            raise InputError(f"{archive} holds no {wanted}; is it another archive?")
        found.rename(folder)


if __name__ == "__main__":
    command.run(app)
