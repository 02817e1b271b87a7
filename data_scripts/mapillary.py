"""Mapillary Vistas v1: `python -m data_scripts.mapillary --root DIR --archives DIR` makes
`DIR/Mapillary-Vista`.

The archive, mapillary-vistas-dataset_public_v1.2.zip (about 25 GB; v1.0 and v1.1 have the same 66 labels),
comes after a registration at mapillary.com/dataset/vistas. That of v2.0 will do, for it brings the labels of
v1.2 beside its own 124.

    training/ validation/                  images/ and labels/, as in the archive
    frames.json                            the 18,000 training and 2,000 validation frames

A folder that you have already can be put there before; `train` is taken for `training`.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from cyclopts import App

from cvpr21lib.errors import InputError
from cvpr21lib.papers import datasets
from cvpr21lib.segmentation import stored
from cvpr21lib.segmentation.mapillary import MapillaryVistas
from cvpr21lib.segmentation.streets import require_same_size
from data_scripts import command, licence, manifest, streets
from data_scripts.streets import Problems, Walled

ARCHIVE = Walled(
    tuple(f"mapillary-vistas-dataset_public_v{version}.zip" for version in ("1.2", "1.1", "1.0", "2.0")),
    "about 25 GB",
)
FRAMES = {"train": 18_000, "val": 2_000}

TERMS = "the research edition's licence, a PDF in the archive"

app = App(name="python -m data_scripts.mapillary", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    archives: Path | None = None,
    workers: int = 4,
    accept_licence: bool = False,
    verify_only: bool = False,
) -> None:
    """Unpack and check Mapillary Vistas (another 25 GB on the disk), or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds, or will hold, Mapillary-Vista: the library's data_root.
    archives
        Folder with the archive; without it, the root.
    workers
        Frames that are looked at at the same time.
    accept_licence
        You have read the terms and accept them.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    folder = root / MapillaryVistas.FOLDER
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    licence.require(datasets.MAPILLARY, accept_licence, TERMS)
    for remark in prepare(folder, archives or root, workers):
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def prepare(folder: Path, archives: Path, workers: int = 4) -> list[str]:
    """Do what is not done yet, check the whole, record it; remarks on what is only unusual."""
    if (folder / manifest.NAME).exists():
        return ["it was prepared before; --verify-only compares it with its manifest"]
    if not folder.exists():
        (archive,) = streets.locate([ARCHIVE], archives, datasets.MAPILLARY)
        streets.place(archive, ["training", "train"], ".", folder)
    data = check(folder, workers)
    streets.finish(data, {"archive": ARCHIVE.names[0]})
    return []


def check(folder: Path, workers: int = 4) -> MapillaryVistas:
    """Look at every frame; one `InputError` names all that is wrong.

    Images and training labels by their headers; validation labels are decoded.
    """
    places = MapillaryVistas.places(folder)
    _require_parts(folder, places)
    data, problems, splits = MapillaryVistas(folder, places, {}), Problems(folder), {}
    for split, wanted in FRAMES.items():
        names = sorted(path.stem for path in (folder / places[f"{split} images"]).glob("*.jpg"))
        problems.require(f"images for {split}", len(names), wanted)
        names = problems.partners("label", names, partial(data.label, split))
        look = partial(_look, data, split)
        splits[split] = problems.inspect(names, look, workers, f"Looking at {split}")
    problems.stop()
    return MapillaryVistas(folder, places, splits)


def _require_parts(folder: Path, places: dict[str, str]) -> None:
    lacking = [MapillaryVistas.SPELLINGS[part][0] for part in MapillaryVistas.SPELLINGS if part not in places]
    if lacking and any(folder.glob("*/v2.0/labels")):
        raise InputError(
            f"{folder} has the labels of v2.0 alone, with 124 classes; CTRL-UDA uses the 66 of v1, which the "
            "archives of v1.0 to v1.2 have, and that of v2.0 in its folders v1.2."
        )
    if lacking:
        raise InputError(f"{folder} has no folder {', '.join(lacking)}; unpack the archive again.")


def _look(data: MapillaryVistas, split: str, name: str) -> tuple[int, int]:
    image, label = data.image(split, name), data.label(split, name)
    ids = data.ids(split, name).shape if split == "val" else stored.size(label)
    return require_same_size({image: stored.size(image), label: ids})


if __name__ == "__main__":
    command.run(app)
