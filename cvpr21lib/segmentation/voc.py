"""PASCAL VOC 2012 with the masks of SBD, as `data_scripts.voc2012` lays it out."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation.layout import Layout

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

IMAGES, ANNOTATIONS, VOC_MASKS = "JPEGImages", "Annotations", "SegmentationClass"
"""Folders of VOC itself."""
MASKS, SBD_MASKS = "SegmentationClassAug", "SegmentationClassSBD"
"""Folders that `data_scripts.voc2012` adds."""


class VOC2012(Layout):
    """Splits: train (1,464), train_aug (10,582), val (1,449). Masks: VOC's, or SBD's."""

    folder = "VOC2012"
    elsewhere = ("VOCdevkit/VOC2012",)
    script = "voc2012"
    classes = CLASSES

    def image(self, name: str) -> Path:
        return self.root / IMAGES / f"{name}.jpg"

    def mask(self, name: str) -> Path:
        return self.root / MASKS / f"{name}.png"

    def sbd_mask(self, name: str) -> Path:
        """SBD's own mask of one of its 11,355 images: without void along contours, to judge boundaries."""
        return self.root / SBD_MASKS / f"{name}.png"

    def split_list(self, split: str) -> Path:
        return self.root / "ImageSets" / "Segmentation" / f"{split}.txt"


def labels_from_xml(path: Path) -> tuple[int, ...]:
    """The classes of all objects in one file of VOC's `Annotations`, ascending; "difficult" objects count.

    They count in the labels that EPS was trained with too (the official code of PSA, from which it stems).
    """
    try:
        names = {element.text or "" for element in ElementTree.parse(path).iterfind("object/name")}
    except (ElementTree.ParseError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); fetch VOC 2012 again.") from error
    unknown = sorted(names - set(CLASSES))
    if unknown:
        raise InputError(
            f"{path} names an object {unknown[0]!r}, which is none of VOC's {len(CLASSES)} classes."
        )
    return tuple(number for number, name in enumerate(CLASSES) if name in names)
