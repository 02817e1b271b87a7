"""MS COCO 2014 for segmentation: `python -m data_scripts.coco2014 --root DIR` makes `DIR/COCO2014`.

    train2014/ val2014/ annotations/           COCO's own archives
    SegmentationClass/{train2014,val2014}/     class masks (palette PNG), drawn from the instance annotations
    ImageSets/{train,val}.txt                  the 82,081 and 40,137 images that have an annotation
    image_labels.json                          which of the 80 classes each of them shows

Folders that you have already can be put there before, and are not made again: COCO's own, or
SegmentationClass as EPS's authors share it. How they drew it is not known; ours follows
`cvpr21lib.segmentation.coco.semantic_mask`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cyclopts import App
from tqdm.auto import tqdm

from cvpr21lib import atomic
from cvpr21lib.errors import InputError
from cvpr21lib.papers import datasets
from cvpr21lib.segmentation import coco, image_labels, layout, masks, stored
from cvpr21lib.segmentation.coco import COCO2014
from cvpr21lib.segmentation.layout import some
from data_scripts import command, licence, manifest, scratch
from data_scripts.archives import Archive
from data_scripts.unpack import unpack

if TYPE_CHECKING:
    from pycocotools.coco import COCO

# COCO's site publishes no checksums. The sizes are those that its server announced in users' logs, the MD5
# those that many projects check against (that of the annotations is also the server's ETag).
ARCHIVES = {
    "train2014": Archive(
        "http://images.cocodataset.org/zips/train2014.zip", 13_510_573_713, "0da8c0bd3d6becc4dcb32757491aca88"
    ),
    "val2014": Archive(
        "http://images.cocodataset.org/zips/val2014.zip", 6_645_013_297, "a3d79f5ed8d289b7a7554ce06a5782b3"
    ),
    "annotations": Archive(
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
        252_872_794,
        "0a379cfc70b0e71301e0f377548639bd",
    ),
}


class Count(NamedTuple):
    """How many there must be in a split."""

    images: int
    annotated: int


COUNTS = {"train": Count(82_783, 82_081), "val": Count(40_504, 40_137)}

TERMS = 'the page "Terms of Use"'

app = App(name="python -m data_scripts.coco2014", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    archives: Path | None = None,
    workers: int = 4,
    accept_licence: bool = False,
    verify_only: bool = False,
) -> None:
    """Fetch, convert and check COCO 2014 (20 GB, 42 GB on the disk), or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds, or will hold, COCO2014: the library's data_root.
    archives
        Folder with train2014.zip, val2014.zip and annotations_trainval2014.zip, if you have them already.
    workers
        Masks that are drawn at the same time.
    accept_licence
        You have read the terms and accept them.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    folder = root / COCO2014.folder
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    licence.require(datasets.COCO2014, accept_licence, TERMS)
    for remark in prepare(folder, archives, workers):
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def prepare(folder: Path, archives: Path | None = None, workers: int = 4) -> list[str]:
    """Do what is not done yet, check the whole, record it; remarks on what is only unusual."""
    data = COCO2014(folder)
    if (folder / manifest.NAME).exists():
        return ["it was prepared before; --verify-only compares it with its manifest"]
    folder.mkdir(parents=True, exist_ok=True)
    for part, archive in ARCHIVES.items():
        if not (folder / part).is_dir():
            _place(archive.bring(folder.parent, archives and archives / archive.name), folder / part)
    splits = {
        split: coco.read_instances(folder / f"annotations/instances_{split}2014.json") for split in COUNTS
    }
    check(data, splits)
    if not (folder / coco.MASKS).is_dir():
        with scratch.beside(folder / coco.MASKS) as partial_folder:
            for split, instances in splits.items():
                _draw(instances, partial_folder / "masks" / f"{split}2014", workers)
            (partial_folder / "masks").rename(folder / coco.MASKS)
    _require_masks(data, [name for instances in splits.values() for name, _ in _annotated(instances)])
    _write_lists(data, splits)
    manifest.write(folder, {archive.name: archive.url for archive in ARCHIVES.values()})
    return []


def _place(archive: Path, folder: Path) -> None:
    with scratch.beside(folder) as partial_folder:
        inside = unpack(archive, partial_folder / "content") / folder.name
        if not inside.is_dir():
            raise InputError(f"{archive} holds no folder {folder.name}; is it another archive?")
        inside.rename(folder)


def check(data: COCO2014, splits: Mapping[str, COCO]) -> None:
    """Raise one `InputError` that names all that is wrong with images and annotations."""
    problems = []
    for split, instances in splits.items():
        known = {Path(image["file_name"]).stem: image for image in instances.imgs.values()}
        found = Count(len(known), len(dict(_annotated(instances))))
        if found != COUNTS[split]:
            problems.append(
                f"{split} has {found.images} images, {found.annotated} of them annotated, instead of "
                f"{COUNTS[split].images} and {COUNTS[split].annotated}"
            )
        missing = {name for name in known if not data.image(name).is_file()}
        if missing:
            problems.append(f"{len(missing)} images of {split} are missing ({some(sorted(missing))})")
        unlike = [
            name
            for name, image in tqdm(known.items(), f"Looking at {split}")
            if name not in missing and stored.size(data.image(name)) != (image["height"], image["width"])
        ]
        if unlike:
            problems.append(
                f"{len(unlike)} images of {split} differ in size from the annotations ({some(unlike)})"
            )
    if problems:
        raise InputError(f"{data.root} is not as it should be: {'; '.join(problems)}.")


def _annotated(instances: COCO) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Names and annotations of the images that have some, in the order of their numbers."""
    for number in sorted(instances.imgs):
        if instances.imgToAnns.get(number):
            yield Path(instances.imgs[number]["file_name"]).stem, instances.imgToAnns[number]


def _draw(instances: COCO, folder: Path, workers: int) -> None:
    folder.mkdir(parents=True)
    sizes = {
        Path(image["file_name"]).stem: (image["height"], image["width"]) for image in instances.imgs.values()
    }
    jobs = [(name, annotations, *sizes[name]) for name, annotations in _annotated(instances)]
    with ThreadPoolExecutor(workers) as pool:
        for _ in tqdm(pool.map(partial(_draw_one, folder), jobs), f"Drawing {folder.name}", len(jobs)):
            pass


def _draw_one(folder: Path, job: tuple[str, Sequence[Mapping[str, Any]], int, int]) -> None:
    name, annotations, height, width = job
    masks.write(folder / f"{name}.png", coco.semantic_mask(annotations, height, width))


def _write_lists(data: COCO2014, splits: Mapping[str, COCO]) -> None:
    labels = {}
    for split, instances in splits.items():
        found = {name: coco.labels(annotations) for name, annotations in _annotated(instances)}
        labels |= found
        data.split_list(split).parent.mkdir(exist_ok=True)
        with atomic.write(data.split_list(split)) as temporary:
            temporary.write_text("\n".join(found) + "\n")
    image_labels.write(data.root / layout.LABELS, labels, coco.CLASSES)


def _require_masks(data: COCO2014, names: Sequence[str]) -> None:
    missing = [name for name in names if not data.mask(name).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} images have no mask in {data.root / coco.MASKS} "
            f"({some(missing)}); remove the folder to have them drawn."
        )


if __name__ == "__main__":
    command.run(app)
