"""COCO 2017 for open-set panoptic segmentation: `python -m data_scripts.coco_panoptic --root DIR`.

It makes `DIR/COCO2017`:

    train2017/ val2017/                        COCO's own images
    annotations/instances_{train,val}2017.json
    annotations/panoptic_{train,val}2017.json  and folders of the same names with their PNGs
    splits/K5/ splits/K10/ splits/K20/         what EOPSN may know when K % of the 80 things are unknown:
        semantic/NAME.png                      8 bits: 0 known things, 1 .. 53 stuff, 255 void
        instances.json                         all training images; no unknown things, no crowds

Folders and files that you have already can be put there before, and are not fetched again. NAME is that of
the image, and need not be a number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cyclopts import App
from PIL import Image
from tqdm.auto import tqdm

from cvpr21lib import atomic
from cvpr21lib.eopsn import classes
from cvpr21lib.eopsn.classes import Classes
from cvpr21lib.errors import InputError
from cvpr21lib.papers import datasets
from cvpr21lib.segmentation import coco, coco2017, panoptic, stored
from cvpr21lib.segmentation.coco2017 import COCO2017, ImageFile
from cvpr21lib.segmentation.layout import some
from cvpr21lib.segmentation.panoptic import Annotation, Annotations
from data_scripts import command, licence, manifest, scratch, space
from data_scripts.obtain import obtain
from data_scripts.unpack import unpack


class Source(NamedTuple):
    """One of COCO's archives."""

    url: str
    size: int  # bytes
    sha256: str
    holds: tuple[str, ...]  # what is wanted of it, by its place in the archive and in the data set

    @property
    def name(self) -> str:
        return Path(self.url).name


SITE = "http://images.cocodataset.org"

# COCO's site publishes no checksums. Sizes and SHA-256 are those that several projects noted, independently
# of each other, of the archives that they had fetched.
ARCHIVES = (
    Source(
        f"{SITE}/zips/train2017.zip",
        19_336_861_798,
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        ("train2017",),
    ),
    Source(
        f"{SITE}/zips/val2017.zip",
        815_585_330,
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        ("val2017",),
    ),
    Source(
        f"{SITE}/annotations/annotations_trainval2017.zip",
        252_907_541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
    ),
    Source(
        f"{SITE}/annotations/panoptic_annotations_trainval2017.zip",
        860_725_834,
        "c05f76d2129b6b561eb70efe16e7006df62f73fb92889132d373b9d90e31a370",
        (
            "annotations/panoptic_train2017",
            "annotations/panoptic_val2017",
            "annotations/panoptic_train2017.json",
            "annotations/panoptic_val2017.json",
        ),
    ),
)


class Count(NamedTuple):
    """How many there must be in a split."""

    images: int
    instances: int


# Images as COCO's site says; instances, crowds included, as counted in cocodataset/cocoapi, issue 117.
COUNTS = {"train": Count(118_287, 860_001), "val": Count(5_000, 36_781)}

TERMS = 'the page "Terms of Use"'

app = App(name="python -m data_scripts.coco_panoptic", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    archives: Path | None = None,
    workers: int = 4,
    accept_licence: bool = False,
    verify_only: bool = False,
) -> None:
    """Fetch, split and check COCO 2017 (21 GB, about 50 GB on the disk), or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds, or will hold, COCO2017: the library's data_root.
    archives
        Folder with train2017.zip, val2017.zip, annotations_trainval2017.zip and
        panoptic_annotations_trainval2017.zip, if you have them already.
    workers
        Semantic labels that are made at the same time.
    accept_licence
        You have read the terms and accept them.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    folder = root / COCO2017.folder
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    licence.require(datasets.COCO2017, accept_licence, TERMS)
    for remark in prepare(folder, archives, workers):
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def prepare(folder: Path, archives: Path | None = None, workers: int = 4) -> list[str]:
    """Do what is not done yet, check the whole, record it; remarks on what is only unusual."""
    if (folder / manifest.NAME).exists():
        return ["it was prepared before; --verify-only compares it with its manifest"]
    folder.mkdir(parents=True, exist_ok=True)
    for archive in ARCHIVES:
        bring(archive, folder, archives)
    data = COCO2017(folder)
    splits = {name: Split.read(data, name) for name in COUNTS}
    check(data, splits)
    hide_unknown(data, splits["train"], workers)
    manifest.write(folder, {archive.name: archive.url for archive in ARCHIVES})
    return []


def bring(archive: Source, folder: Path, archives: Path | None = None) -> None:
    """Fetch the archive, or take the one in `archives`, and put what `folder` lacks of it there.

    The archive of panoptic_train2017, inside of its archive, holds more files than its counter can: programs
    that go by it find 52,751 of 118,287, 2^16 too few. Python goes by the list of files.
    """
    missing = [part for part in archive.holds if not (folder / part).exists()]
    if not missing:
        return
    if archives is None:
        print(f"{space.readable(archive.size)} from {archive.url}, into {folder.parent}")
    given = archive.url if archives is None else str(archives / archive.name)
    path = obtain(given, folder.parent, archive.sha256)
    with scratch.beside(folder / archive.name) as partial_folder:
        content = unpack(path, partial_folder / "content")
        for part in missing:
            nested, found = content / f"{part}.zip", content / part
            if nested.is_file():
                found = unpack(nested, partial_folder / nested.stem) / nested.stem
            if not found.exists():
                raise InputError(f"{path} holds no {part}; is it another archive?")
            (folder / part).parent.mkdir(exist_ok=True)
            found.rename(folder / part)


class Split(NamedTuple):
    """The annotations of train2017 or val2017."""

    files: list[ImageFile]
    instances: list[Mapping[str, Any]]
    panoptic: Annotations

    @classmethod
    def read(cls, data: COCO2017, split: str) -> Split:
        path = data.instances(split)
        dataset = coco.read_instances(path).dataset
        return cls(
            coco2017.listed(path, dataset), dataset["annotations"], panoptic.read_json(data.panoptic(split))
        )


def check(data: COCO2017, splits: Mapping[str, Split]) -> None:
    """Raise one `InputError` that names all that is wrong with images and annotations."""
    problems = []
    for name, (files, instances, labels) in splits.items():
        found = Count(len(files), len(instances))
        if found != COUNTS[name]:
            problems.append(
                f"{name} has {found.images} images and {found.instances} instances, instead of "
                f"{COUNTS[name].images} and {COUNTS[name].instances}"
            )
        if labels.categories != coco2017.CATEGORIES:
            problems.append(f"the panoptic categories of {name} are not COCO's 133")
        ids = {one.id for one in files}
        for what, those in (
            ("without panoptic annotation", ids - labels.images.keys()),
            ("in the panoptic annotations alone", labels.images.keys() - ids),
        ):
            if those:
                problems.append(f"{len(those)} images of {name} are {what} ({_some(those)})")
        folder = data.images(name)
        missing = {one.file_name for one in files if not (folder / one.file_name).is_file()}
        if missing:
            problems.append(f"{len(missing)} images of {name} are missing ({_some(missing)})")
        unlike = {
            one.file_name
            for one in tqdm(files, f"Looking at {name}")
            if one.file_name not in missing and stored.size(folder / one.file_name) != one.size
        }
        if unlike:
            problems.append(
                f"{len(unlike)} images of {name} differ in size from the annotations ({_some(unlike)})"
            )
        folder = data.panoptic(name).with_suffix("")
        absent = {one.file_name for one in labels.images.values() if not (folder / one.file_name).is_file()}
        if absent:
            problems.append(
                f"{len(absent)} panoptic PNGs of {name} are missing ({_some(absent)}): some programs unpack "
                f"only a part, so remove {folder} and let this script do it"
            )
    if problems:
        raise InputError(f"{data.root} is not as it should be: {'; '.join(problems)}.")


def hide_unknown(data: COCO2017, train: Split, workers: int = 4) -> None:
    """Write what is known of the training images for each K, going on where a call was interrupted."""
    known = {k: classes.of_coco(k) for k in classes.UNKNOWN_THINGS if not data.known_instances(k).is_file()}
    for k in known:
        data.semantic(k).mkdir(parents=True, exist_ok=True)
    folder = data.panoptic("train").with_suffix("")
    jobs = [
        (train.panoptic.images[one.id], {data.semantic(k) / one.png: each for k, each in known.items()})
        for one in train.files
    ]
    with ThreadPoolExecutor(workers) as pool:
        try:
            for _ in tqdm(pool.map(partial(_label, folder), jobs), "Making semantic labels", len(jobs)):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for k, each in known.items():
        _write_instances(data.known_instances(k), train, each)


def _label(folder: Path, job: tuple[Annotation, Mapping[Path, Classes]]) -> None:
    annotation, wanted = job
    missing = {path: known for path, known in wanted.items() if not path.exists()}
    if not missing:
        return
    image = panoptic.load(annotation, folder)
    for path, known in missing.items():
        try:
            labels = known.semantic(image)
        except InputError as error:
            raise InputError(f"{folder / annotation.file_name}: {error}") from error
        with atomic.write(path) as temporary:
            Image.fromarray(labels).save(temporary, "PNG")


def _write_instances(path: Path, train: Split, known: Classes) -> None:
    content = {
        "images": [
            {"id": one.id, "file_name": one.file_name, "height": one.size[0], "width": one.size[1]}
            for one in train.files
        ],
        "annotations": [one for one in train.instances if known.keeps(one)],
        "categories": [{"id": number, "name": known.categories[number].name} for number in known.known],
    }
    with atomic.write(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _some(names: Iterable[Any]) -> str:
    return some(sorted(map(str, names)))


if __name__ == "__main__":
    command.run(app)
