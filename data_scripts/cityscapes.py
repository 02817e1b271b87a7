"""Cityscapes: `python -m data_scripts.cityscapes --root DIR --archives DIR` makes `DIR/Cityscapes`.

The archives come after a registration at cityscapes-dataset.com:

    leftImg8bit_trainvaltest.zip (11 GB)   -> leftImg8bit/
    gtFine_trainvaltest.zip (241 MB)       -> gtFine/
    disparity_trainvaltest.zip (3.5 GB), camera_trainvaltest.zip (2 MB)
                                           -> disparity/, camera/: only with --depth, to evaluate depth
    frames.json                            the 2,975 training and 500 validation frames

Folders that you have already can be put there before, and are not made again; each may also lie in a folder
named after its archive, as in leftImg8bit_trainvaltest/leftImg8bit. `--depth` can be given later.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from cyclopts import App

from cvpr21lib.papers import datasets
from cvpr21lib.segmentation import deep_png, stored
from cvpr21lib.segmentation.cityscapes import Cityscapes, read_camera
from cvpr21lib.segmentation.streets import require_same_size
from data_scripts import command, licence, manifest, streets
from data_scripts.streets import Problems, Walled

# The MD5 are those that its site shows, as many projects repeat them; of the cameras it is not known here.
ARCHIVES = {
    "images": Walled(("leftImg8bit_trainvaltest.zip",), "11 GB", "0a6e97e94b616a514066c9e2adb0c97f"),
    "labels": Walled(("gtFine_trainvaltest.zip",), "241 MB", "4237c19de34c8a376e9ba46b495d6f66"),
    "disparity": Walled(("disparity_trainvaltest.zip",), "3.5 GB", "2c8272766993c983321f34c73daada5c"),
    "camera": Walled(("camera_trainvaltest.zip",), "2 MB"),
}
NEEDED, FOR_DEPTH = ("images", "labels"), ("disparity", "camera")
FRAMES = {"train": 2_975, "val": 500}

TERMS = "the licence that is shown at the registration, and license.txt in the archives"

app = App(name="python -m data_scripts.cityscapes", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    archives: Path | None = None,
    depth: bool = False,
    workers: int = 4,
    accept_licence: bool = False,
    verify_only: bool = False,
) -> None:
    """Unpack and check Cityscapes (12 GB on the disk, 16 GB with depth), or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds, or will hold, Cityscapes: the library's data_root.
    archives
        Folder with the archives; without it, the root.
    depth
        Also disparity and cameras, to evaluate depth.
    workers
        Frames that are looked at at the same time.
    accept_licence
        You have read the terms and accept them.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    folder = root / Cityscapes.FOLDER
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    licence.require(datasets.CITYSCAPES, accept_licence, TERMS)
    for remark in prepare(folder, archives or root, depth, workers):
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def prepare(folder: Path, archives: Path, depth: bool = False, workers: int = 4) -> list[str]:
    """Do what is not done yet, check the whole, record it; remarks on what is only unusual."""
    parts = (*NEEDED, *(FOR_DEPTH if depth else ()))
    if (folder / manifest.NAME).exists() and set(parts) <= set(Cityscapes.read(folder).folders):
        return ["it was prepared before; --verify-only compares it with its manifest"]
    lacking = [part for part in parts if part not in Cityscapes.places(folder)]
    found = streets.locate([ARCHIVES[part] for part in lacking], archives, datasets.CITYSCAPES)
    for part, archive in zip(lacking, found, strict=True):
        name = Cityscapes.SPELLINGS[part][0]
        streets.place(archive, [name], name, folder / name)
    data = check(folder, parts, workers)
    streets.finish(data, {"archives": [ARCHIVES[part].names[0] for part in parts]})
    return []


def check(folder: Path, parts: tuple[str, ...], workers: int = 4) -> Cityscapes:
    """Look at every frame; one `InputError` names all that is wrong.

    Images and training labels by their headers; validation labels, and depth, are decoded.
    """
    places = Cityscapes.places(folder)
    data = Cityscapes(folder, {part: places[part] for part in parts}, {})
    problems, splits = Problems(folder), {}
    for split, wanted in FRAMES.items():
        images = (folder / data.folders["images"] / split).glob("*/*_leftImg8bit.png")
        names = sorted(path.name.removesuffix("_leftImg8bit.png") for path in images)
        problems.require(f"images for {split}", len(names), wanted)
        names = problems.partners("image in its city's folder", names, partial(data.image, split))
        names = problems.partners("label", names, partial(data.label, split))
        if "disparity" in parts:
            for number, part in enumerate(FOR_DEPTH):
                names = problems.partners(part, names, partial(_depth_file, data, split, number))
        look = partial(_look, data, split)
        splits[split] = problems.inspect(names, look, workers, f"Looking at {split}")
    problems.stop()
    return Cityscapes(folder, data.folders, splits)


def _depth_file(data: Cityscapes, split: str, number: int, name: str) -> Path:
    return data.depth_files(split, name)[number]


def _look(data: Cityscapes, split: str, name: str) -> tuple[int, int]:
    image, label = data.image(split, name), data.label(split, name)
    ids = data.ids(split, name).shape if split == "val" else stored.size(label)
    sizes = {image: stored.size(image), label: ids}
    if "disparity" in data.folders:
        disparity, camera = data.depth_files(split, name)
        sizes[disparity] = deep_png.read(disparity).shape
        read_camera(camera)
    return require_same_size(sizes)


if __name__ == "__main__":
    command.run(app)
