"""PASCAL VOC 2012 with SBD's masks: `python -m data_scripts.voc2012 --root DIR` makes `DIR/VOC2012`.

It is VOC's own folder, to which come

    SegmentationClassSBD/                      the 11,355 masks of SBD, from MATLAB files to palette PNG
    SegmentationClassAug/                      12,031 masks: VOC's where VOC has one, else SBD's
    ImageSets/Segmentation/train_aug.txt       10,582 images: all of VOC's train and of SBD, without VOC's val
    image_labels.json                          the classes of these 12,031 images, by VOC's annotations

A VOC2012 folder of your own can be put there before; what it has is not fetched again.
"""

from __future__ import annotations

import shutil
import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cyclopts import App
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from tqdm.auto import tqdm

from cvpr21lib import atomic
from cvpr21lib.errors import InputError
from cvpr21lib.papers import datasets
from cvpr21lib.segmentation import image_labels, layout, masks, stored, voc
from cvpr21lib.segmentation.image_labels import Labels
from cvpr21lib.segmentation.layout import some
from cvpr21lib.segmentation.voc import VOC2012
from data_scripts import command, licence, manifest, scratch
from data_scripts.archives import Archive
from data_scripts.unpack import unpack

# Addresses and MD5 as in torchvision 0.29; the sizes are those the servers announced in users' logs.
VOC_ARCHIVE = Archive(
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    1_999_639_040,
    "6cd6e144f989b92b3379bac3b3de84fd",
)
SBD_ARCHIVE = Archive(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    1_419_539_633,
    "82b4d87ceb2ed10f6038a1cba92111cb",
)


@dataclass(frozen=True)
class Counts:
    """How many there must be."""

    images: int = 17_125
    sbd: int = 11_355
    train: int = 1_464
    val: int = 1_449
    train_aug: int = 10_582
    per_class: tuple[int, ...] = (
        590, 504, 705, 468, 714, 393, 1150, 1005, 1228, 267,
        613, 1188, 445, 492, 4155, 522, 300, 649, 503, 567,
    )  # fmt: skip
    """Images of train_aug with each class in the official labels of EPS, in the order of `voc.CLASSES`."""


COUNTS = Counts()

TERMS = (
    "SBD (home.bharathh.info/pubs/codes/SBD) names none, but asks to be cited; for VOC's images the section "
    '"Database Rights"'
)

app = App(name="python -m data_scripts.voc2012", help=__doc__, version_flags=())


@app.default
def main(
    *,
    root: Path,
    voc_archive: Path | None = None,
    sbd_archive: Path | None = None,
    accept_licence: bool = False,
    verify_only: bool = False,
) -> None:
    """Fetch, convert and check VOC 2012 and SBD (3.4 GB, 8 GB on the disk), or verify what was prepared.

    Parameters
    ----------
    root
        Folder that holds, or will hold, VOC2012: the library's data_root.
    voc_archive
        VOCtrainval_11-May-2012.tar, if you have it already.
    sbd_archive
        SBD's benchmark.tgz, if you have it already.
    accept_licence
        You have read the terms and accept them.
    verify_only
        Compare what is there with its manifest, and change nothing.
    """
    folder = root / VOC2012.folder
    if verify_only:
        print(f"{folder}: {manifest.verify(folder)} files, all as they were prepared.")
        return
    licence.require(datasets.VOC2012, accept_licence, TERMS)
    for remark in prepare(folder, voc_archive, sbd_archive):
        print(f"note: {remark}", file=sys.stderr)
    print(f"{folder} is ready.")


def prepare(folder: Path, voc_archive: Path | None = None, sbd_archive: Path | None = None) -> list[str]:
    """Do what is not done yet, check the whole, record it; remarks on what is only unusual."""
    data = VOC2012(folder)
    if (folder / manifest.NAME).exists():
        return ["it was prepared before; --verify-only compares it with its manifest"]
    if not (folder / voc.IMAGES).is_dir():
        _place_voc(VOC_ARCHIVE.bring(folder.parent, voc_archive), folder)
    if not ((folder / voc.MASKS).is_dir() and data.split_list("train_aug").exists()):
        _place_sbd(SBD_ARCHIVE.bring(folder.parent, sbd_archive), data)
    labels = derive_labels(data)
    remarks = check(data, labels)
    image_labels.write(folder / layout.LABELS, labels, voc.CLASSES)
    manifest.write(folder, {"voc": VOC_ARCHIVE.url, "sbd": SBD_ARCHIVE.url})
    return remarks


def _place_voc(archive: Path, folder: Path) -> None:
    with scratch.beside(folder) as partial:
        inside = unpack(archive, partial / "content") / "VOCdevkit" / "VOC2012"
        if not (inside / voc.IMAGES).is_dir():
            raise InputError(f"{archive} holds no VOCdevkit/VOC2012/JPEGImages; is it the VOC 2012 archive?")
        inside.rename(folder)


def _place_sbd(archive: Path, data: VOC2012) -> None:
    """Make the masks of SBD, the list train_aug, and, at the end, the masks of its images and of val."""
    with scratch.beside(data.root / voc.MASKS) as partial:
        sbd = unpack(archive, partial / "content") / "benchmark_RELEASE" / "dataset"
        names = [name for split in ("train", "val") for name in layout.read_list(sbd / f"{split}.txt")]
        converted, chosen = partial / "sbd", partial / "aug"
        converted.mkdir(), chosen.mkdir()
        for name in tqdm(names, "Converting SBD"):
            masks.write(converted / f"{name}.png", read_mat(sbd / "cls" / f"{name}.mat", data.image(name)))
        with atomic.write(data.split_list("train_aug")) as temporary:
            temporary.write_text("\n".join(train_aug(data, names)) + "\n")
        for name in (*data.names("train_aug"), *data.names("val")):
            own = data.root / voc.VOC_MASKS / f"{name}.png"
            shutil.copyfile(own if own.exists() else converted / f"{name}.png", chosen / f"{name}.png")
        shutil.rmtree(data.root / voc.SBD_MASKS, ignore_errors=True)
        converted.rename(data.root / voc.SBD_MASKS)
        chosen.rename(data.root / voc.MASKS)


#: What SciPy raises on files that are damaged or hold something else.
_NO_MASK = (
    MatReadError, NotImplementedError, ValueError, TypeError, KeyError, IndexError, AttributeError, OSError,
    EOFError, struct.error, zlib.error,
)  # fmt: skip


def train_aug(data: VOC2012, sbd: Sequence[str]) -> list[str]:
    """VOC's train and all of SBD, without VOC's val; sorted."""
    return sorted((set(data.names("train")) | set(sbd)) - set(data.names("val")))


def read_mat(path: Path, image: Path) -> np.ndarray:
    """The class of each pixel, uint8 (H, W), in SBD's file at `path`; it must fit the image at `image`."""
    if not path.is_file():
        raise InputError(f"{path} does not exist, but SBD's lists name it; fetch SBD again.")
    try:
        mask = loadmat(path, squeeze_me=True, struct_as_record=False)["GTcls"].Segmentation
    except _NO_MASK as error:
        raise InputError(f"{path} is damaged, or no mask of SBD ({error}); fetch SBD again.") from error
    size = stored.size(image)
    if mask.shape != size:
        raise InputError(f"{path} is a mask of {mask.shape} pixels, but {image} has {size}.")
    if mask.max() > len(voc.CLASSES):
        raise InputError(f"{path} holds the class {mask.max()}; expected 0 to {len(voc.CLASSES)}.")
    return mask.astype(np.uint8)


def derive_labels(data: VOC2012) -> Labels:
    """The classes in the images of train_aug and val: by VOC's annotations, else by the mask."""
    labels = {}
    for name in tqdm((*data.names("train_aug"), *data.names("val")), "Reading annotations"):
        annotation = data.root / voc.ANNOTATIONS / f"{name}.xml"
        if annotation.exists():
            labels[name] = voc.labels_from_xml(annotation)
        else:
            labels[name] = masks.classes(masks.read(data.mask(name), len(voc.CLASSES) + 1))
    return labels


def check(data: VOC2012, labels: Labels) -> list[str]:
    """Raise one `InputError` that names all that is wrong; return remarks on what is only unusual."""
    lists = {split: data.names(split) for split in ("train", "val", "train_aug")}
    found = {
        "images": (len(list((data.root / voc.IMAGES).glob("*.jpg"))), COUNTS.images),
        "masks of SBD": (len(list((data.root / voc.SBD_MASKS).glob("*.png"))), COUNTS.sbd),
        **{f"names in {split}": (len(names), getattr(COUNTS, split)) for split, names in lists.items()},
    }
    problems = [
        f"{number} {what} instead of {wanted}" for what, (number, wanted) in found.items() if number != wanted
    ]
    for kind, place in (("image", data.image), ("mask", data.mask)):
        missing = [name for name in labels if not place(name).is_file()]
        if missing:
            problems.append(f"{len(missing)} without {kind} ({some(missing)})")
    if problems:
        raise InputError(f"{data.root} is not as it should be: {'; '.join(problems)}.")
    return _remarks(lists["train_aug"], labels)


def _remarks(names: Sequence[str], labels: Labels) -> list[str]:
    remarks = []
    empty = [name for name in names if not labels[name]]
    if empty:
        remarks.append(f"{len(empty)} training images show none of the classes ({some(empty)})")
    shown = [number for name in names for number in labels[name]]
    numbers = np.bincount(shown, minlength=len(voc.CLASSES))
    unlike = [
        f"{found} {each} instead of {right}"
        for each, found, right in zip(voc.CLASSES, numbers.tolist(), COUNTS.per_class, strict=True)
        if found != right
    ]
    if unlike:
        remarks.append(f"the labels of train_aug are not quite EPS's: {', '.join(unlike)}")
    return remarks


if __name__ == "__main__":
    command.run(app)
