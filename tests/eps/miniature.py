"""VOC 2012, SBD and COCO 2014 in miniature, laid out as their publishers lay them out."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix

from cvpr21lib.segmentation import coco, masks, voc
from data_scripts import coco2014, voc2012
from data_scripts.archives import Archive
from tests.conftest import photograph

VOC_SHOWN = ("train", "boat", "sofa", "person")
COCO_SHOWN = (7, 9, 63, 1)  # train, boat, couch, person


def scene(seed: int, height: int, width: int, values: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (H, W, 3) and its classes uint8 (H, W): a box for each of `values`, in its colour."""
    image, mask = photograph(seed, height, width).copy(), np.zeros((height, width), np.uint8)
    rng = np.random.default_rng(seed)
    for value in values:
        top, left = int(rng.integers(2, height // 3)), int(rng.integers(2, width // 2))
        box = np.s_[top : top + height // 2, left : left + width // 3]
        mask[box], image[box] = value, masks.PALETTE[value]
    return image, mask


def sizes(number: int, size: tuple[int, int]) -> tuple[int, int]:
    """Landscape and portrait by turns, no two images alike."""
    height, width = size[0] + number % 3, size[1] + number % 5
    return (height, width) if number % 2 else (width, height)


def voc_and_sbd(
    folder: Path, train: int = 3, extra: int = 3, val: int = 2, size: tuple[int, int] = (48, 64)
) -> tuple[Path, Path]:
    """`folder`/VOCdevkit/VOC2012 and `folder`/benchmark_RELEASE/dataset.

    `train` images with masks of both, `extra` ones that only SBD has masks of, `val` ones of which SBD has
    the first. Image i shows VOC_SHOWN[i % 4], every third one a second class. VOC's masks have void contours.
    """
    ours, theirs = folder / "VOCdevkit/VOC2012", folder / "benchmark_RELEASE/dataset"
    for path in (
        *(ours / name for name in (voc.IMAGES, voc.ANNOTATIONS, voc.VOC_MASKS, "ImageSets/Segmentation")),
        theirs / "cls",
    ):
        path.mkdir(parents=True)
    names = {
        "train": [f"2007_{number:06d}" for number in range(train)],
        "extra": [f"2008_{number:06d}" for number in range(extra)],
        "val": [f"2009_{number:06d}" for number in range(val)],
    }
    for number, name in enumerate(name for part in names.values() for name in part):
        shown = [VOC_SHOWN[number % 4], *([VOC_SHOWN[(number + 1) % 4]] if number % 3 == 0 else [])]
        image, mask = scene(number, *sizes(number, size), [voc.CLASSES.index(each) + 1 for each in shown])
        Image.fromarray(image).save(ours / voc.IMAGES / f"{name}.jpg", quality=95)
        objects = "".join(
            f"<object><name>{each}</name><difficult>1</difficult><part><name>head</name></part></object>"
            for each in shown
        )
        (ours / voc.ANNOTATIONS / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
        if name not in names["extra"]:
            masks.write(ours / voc.VOC_MASKS / f"{name}.png", contoured(mask))
        if name not in names["val"][1:]:
            savemat(theirs / "cls" / f"{name}.mat", {"GTcls": as_matlab(mask)})
    lists = ours / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("\n".join(names["train"]) + "\n")
    (lists / "val.txt").write_text("\n".join(names["val"]) + "\n")
    (theirs / "train.txt").write_text("\n".join([*names["extra"], *names["val"][:1]]) + "\n")
    (theirs / "val.txt").write_text("\n".join(names["train"]) + "\n")
    return ours, theirs


def as_matlab(mask: np.ndarray) -> dict[str, object]:
    """The fields of SBD's struct `GTcls`; boundaries are one sparse matrix a class (here without any)."""
    boundaries = np.empty((len(voc.CLASSES), 1), object)
    for number in range(len(voc.CLASSES)):
        boundaries[number, 0] = csc_matrix(mask.shape, dtype=bool)
    present = np.array([[value] for value in np.unique(mask[mask > 0])], np.uint8)
    return {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": present}


def voc_counts(train: int = 3, extra: int = 3, val: int = 2) -> voc2012.Counts:
    """What the script should find in `voc_and_sbd`."""
    shown = [0] * len(voc.CLASSES)
    for number in range(train + extra):
        for each in VOC_SHOWN[number % 4], VOC_SHOWN[(number + 1) % 4]:
            if each == VOC_SHOWN[number % 4] or number % 3 == 0:
                shown[voc.CLASSES.index(each)] += 1
    images = train + extra + val
    return voc2012.Counts(images, images - val + 1, train, val, train + extra, tuple(shown))


def coco_counts(train: int = 4, val: int = 2) -> dict[str, coco2014.Count]:
    """What the script should find in `coco_2014`."""
    return {"train": coco2014.Count(train + 1, train), "val": coco2014.Count(val + 1, val)}


def contoured(mask: np.ndarray) -> np.ndarray:
    """With void on both sides of every change of class."""
    edge = np.zeros(mask.shape, bool)
    down, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return np.where(edge, np.uint8(masks.VOID), mask)


def coco_2014(folder: Path, train: int = 4, val: int = 2, size: tuple[int, int] = (48, 64)) -> Path:
    """`folder` with train2014/, val2014/ and annotations/; the last image of each split has no annotation.

    Image i shows COCO_SHOWN[i % 4] as a polygon, every third one a crowd of people as run lengths below it.
    """
    (folder / "annotations").mkdir(parents=True)
    categories = [{"id": number, "name": name} for number, name in coco.CATEGORIES.items()]
    for split, count in (("train", train), ("val", val)):
        (folder / f"{split}2014").mkdir()
        images, annotations = [], []
        for number in range(count + 1):
            height, width = sizes(number, size)
            identity = number * 7 + (2 if split == "val" else 1)
            name = f"COCO_{split}2014_{identity:012d}.jpg"
            shown = COCO_SHOWN[number % 4]
            values = [coco.CONTIGUOUS[shown] + 1] if number < count else []
            image, mask = scene(number, height, width, values)
            Image.fromarray(image).save(folder / f"{split}2014" / name, quality=95)
            images.append({"id": identity, "file_name": name, "height": height, "width": width})
            if number == count:
                continue
            rows, columns = np.nonzero(mask)
            top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
            polygon = [int(each) for each in (left, top, right, top, right, bottom, left, bottom)]
            annotations.append(annotation(len(annotations), identity, shown, [polygon]))
            if number % 3 == 0:
                run = {
                    "size": [height, width],
                    "counts": [0, height * (width // 2), height * (width - width // 2)],
                }
                annotations.append(annotation(len(annotations), identity, 1, run, crowd=1))
        contents = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"annotations/instances_{split}2014.json").write_text(json.dumps(contents))
    return folder


def annotation(
    identity: int, image: int, category: int, segmentation: object, crowd: int = 0
) -> dict[str, object]:
    """One annotation as in COCO's JSON."""
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
    }


def tar(folder: Path, inside: str, archive: Path) -> Path:
    """`folder` as `inside` in a tar archive (compressed if its name says so)."""
    with tarfile.open(archive, "w:gz" if archive.suffix == ".tgz" else "w") as packed:
        packed.add(folder, inside)
    return archive


def zipped(folder: Path, archive: Path) -> Path:
    """`folder`, under its own name, in a zip archive."""
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder.parent))
    return archive


def described(path: Path, url: str | None = None) -> Archive:
    """The archive at `path` as its publisher would describe it."""
    content = path.read_bytes()
    return Archive(
        url or f"http://nowhere.invalid/{path.name}", len(content), hashlib.md5(content).hexdigest()
    )
