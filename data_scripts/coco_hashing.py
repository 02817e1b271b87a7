"""MS COCO for hashing: `python -m data_scripts.coco_hashing --root DIR` makes `DIR/MS-COCO`.

    splits.npz     train, test and database with 80 labels an image, columns in alphabetical order

The images stay in `DIR/COCO2014`, which `python -m data_scripts.coco2014` prepares first: the 122,218 that
have an annotation, of train2014 and val2014 together. The official lists (`data/MS-COCO` of
github.com/xunguangwang/ProS-GAN) are imported with `--lists`; without them `--seed` draws the splits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from cyclopts import App

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import splits
from cvpr21lib.prosgan.data import MS_COCO
from cvpr21lib.prosgan.splits import Part
from cvpr21lib.segmentation.coco import COCO2014
from data_scripts import command, hashing, manifest

ROWS = 10_000, 5_000, None
"""Lines of the official lists of train and test; that of the database could not be looked at."""

app = App(name="python -m data_scripts.coco_hashing", help=__doc__, version_flags=())


@app.default
def main(*, root: Path, lists: Path | None = None, seed: int = 0, verify_only: bool = False) -> None:
    """Split the prepared COCO 2014, or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds COCO2014, and will hold MS-COCO: the library's data_root.
    lists
        Folder with the six official lists; without it the splits are drawn.
    seed
        Of the draw.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    folder = root / MS_COCO.name
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    for remark in prepare(root, lists, seed):
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def prepare(root: Path, lists: Path | None = None, seed: int = 0) -> list[str]:
    """Split, check, record; remarks on what is only unusual."""
    folder = root / MS_COCO.name
    if (folder / manifest.NAME).exists():
        return ["it was prepared before; --verify-only compares it with its manifest"]
    coco = COCO2014.find(root)
    if coco.root != root / MS_COCO.images:
        raise InputError(
            f"COCO 2014 is in {coco.root}; --root must be the folder that holds {MS_COCO.images}."
        )
    annotated, classes = labelled(coco)
    if lists is None:
        found, remarks = hashing.drawn(annotated, classes, MS_COCO.counts, seed), list[str]()
    else:
        found, remarks = hashing.official(lists, annotated, classes, ROWS)
    remarks += hashing.check_counts(found, MS_COCO.counts, ROWS)
    hashing.require_images(coco.root, found)
    folder.mkdir(exist_ok=True)
    splits.write(folder / splits.FILE, found)
    manifest.write(folder, hashing.about(found))
    return remarks


def labelled(coco: COCO2014) -> tuple[Part, tuple[str, ...]]:
    """All images that have an annotation, and the classes in alphabetical order, as the columns are."""
    known = coco.labels()
    names = sorted(known)
    order = np.argsort(coco.classes)
    column = np.argsort(order)  # of each class in COCO's own order
    labels = np.zeros((len(names), len(coco.classes)), np.uint8)
    for row, name in enumerate(names):
        labels[row, column[list(known[name])]] = 1
    images = tuple(coco.image(name).relative_to(coco.root).as_posix() for name in names)
    return Part(images, labels), tuple(coco.classes[i] for i in order)


if __name__ == "__main__":
    command.run(app)
