"""SYNTHIA-RAND-CITYSCAPES: `python -m data_scripts.synthia --root DIR --archives DIR` makes
`DIR/Synthia/RAND_CITYSCAPES`.

The archive SYNTHIA_RAND_CITYSCAPES.rar (about 20 GB) comes after a registration at synthia-dataset.net. Not
SYNTHIA_RAND_CVPR16.rar: that is another set of frames, without depth.

    RGB/ Depth/ GT/                        as in the archive
    parsed_LABELS/                         the ids 0 ... 22 alone, out of the 16-bit files of GT/LABELS
    frames.json                            the 9,400 frames, each of which was decoded

Folders that you have already can be put there before, and are not made again: the archive's, unpacked by
hand, or parsed_LABELS as the authors of DADA share it (the ids are looked at all the same).
"""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path

from cyclopts import App
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.papers import datasets
from cvpr21lib.segmentation import deep_png, stored, synthia
from cvpr21lib.segmentation.streets import require_same_size
from cvpr21lib.segmentation.synthia import Synthia
from data_scripts import command, licence, manifest, scratch, streets
from data_scripts.streets import Problems, Walled

ARCHIVE = Walled(("SYNTHIA_RAND_CITYSCAPES.rar", "RAND_CITYSCAPES.rar"), "about 20 GB")
WRONG = "SYNTHIA_RAND_CVPR16"
FRAMES = 9_400

TERMS = "the terms of use shown with the download (CC BY-NC-SA 3.0 when last looked at)"

app = App(name="python -m data_scripts.synthia", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    archives: Path | None = None,
    workers: int = 4,
    accept_licence: bool = False,
    verify_only: bool = False,
) -> None:
    """Unpack, decode and check SYNTHIA (another 20 GB on the disk), or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds, or will hold, Synthia: the library's data_root.
    archives
        Folder with SYNTHIA_RAND_CITYSCAPES.rar; without it, the root.
    workers
        Frames that are decoded at the same time.
    accept_licence
        You have read the terms and accept them.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    folder = root / Synthia.FOLDER
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    licence.require(datasets.SYNTHIA, accept_licence, TERMS)
    for remark in prepare(folder, archives or root, workers):
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def prepare(folder: Path, archives: Path, workers: int = 4) -> list[str]:
    """Do what is not done yet, check the whole, record it; remarks on what is only unusual."""
    if (folder / manifest.NAME).exists():
        return ["it was prepared before; --verify-only compares it with its manifest"]
    if not folder.exists():
        refuse_other_archive(archives)
        (archive,) = streets.locate([ARCHIVE], archives, datasets.SYNTHIA)
        streets.place(archive, ["RGB"], ".", folder)
    refuse_other_frames(folder)
    if "labels" not in Synthia.places(folder):
        parse_labels(folder, workers)
    data = check(folder, workers)
    streets.finish(data, {"archive": ARCHIVE.names[0]})
    return []


def refuse_other_archive(archives: Path) -> None:
    """Say so where only SYNTHIA's other random set was downloaded."""
    there = [path for path in archives.glob("*CVPR16*") if path.is_file()]
    if there and not any((archives / name).is_file() for name in ARCHIVE.names):
        raise InputError(f"{there[0]} is {_another()}")


def refuse_other_frames(folder: Path) -> None:
    """Say so where the folder is not SYNTHIA-RAND-CITYSCAPES but its sibling, or has no depth."""
    places = Synthia.places(folder)
    names = [path.stem for path in (folder / "RGB").glob("*.png")]
    if names and not any(re.fullmatch(r"\d{7}", name) for name in names):
        raise InputError(f"{folder} has frames like {min(names)}: it is {_another()}")
    lacking = [part for part in ("images", "depth") if part not in places]
    if lacking:
        named = " and no folder ".join(Synthia.SPELLINGS[part][-1] for part in lacking)
        raise InputError(
            f"{folder} has no folder {named}. If it was unpacked from {WRONG}, it is {_another()}"
        )


def _another() -> str:
    return (
        f"SYNTHIA's other random set ({WRONG}), which has other views and no depth. Download "
        f"{ARCHIVE.names[0]} instead, and remove what came from the other."
    )


def parse_labels(folder: Path, workers: int = 4) -> None:
    """Make parsed_LABELS out of GT/LABELS: all of it, or nothing and an error that names what is damaged."""
    packed = folder / Synthia.SPELLINGS["packed labels"][0]
    if not packed.is_dir():
        raise InputError(f"{folder} has neither parsed_LABELS nor GT/LABELS; unpack the archive again.")
    names = sorted(path.stem for path in packed.glob("*.png"))
    target = folder / Synthia.SPELLINGS["labels"][0]
    problems = Problems(folder)
    with scratch.beside(target) as partial_folder:
        parsed = partial_folder / "parsed"
        parsed.mkdir()
        problems.inspect(names, partial(_parse_one, packed, parsed), workers, "Decoding labels")
        problems.stop()
        parsed.rename(target)


def _parse_one(packed: Path, parsed: Path, name: str) -> tuple[int, int]:
    ids = synthia.unpack_ids(packed / f"{name}.png")
    Image.fromarray(ids).save(parsed / f"{name}.png")
    return ids.shape[0], ids.shape[1]


def check(folder: Path, workers: int = 4) -> Synthia:
    """Decode every file of every frame; one `InputError` names all that is wrong."""
    data, problems = Synthia(folder, Synthia.places(folder), {}), Problems(folder)
    names = sorted(path.stem for path in (folder / data.folders["images"]).glob("*.png"))
    problems.require("images", len(names), FRAMES)
    whole = problems.partners("label", names, lambda name: data.label("train", name))
    whole = problems.partners("depth", whole, lambda name: data.depth_files("train", name)[0])
    frames = problems.inspect(whole, partial(_look, data), workers, "Looking at frames")
    problems.stop()
    return Synthia(folder, data.folders, {"train": frames})


def _look(data: Synthia, name: str) -> tuple[int, int]:
    (depth,) = data.depth_files("train", name)
    return require_same_size(
        {
            data.image("train", name): stored.read_rgb(data.image("train", name)).shape,
            data.label("train", name): data.ids("train", name).shape,
            depth: deep_png.read(depth).shape,
        }
    )


if __name__ == "__main__":
    command.run(app)
