"""Where images, saliency maps, labels and ground truth come from: folders or memory, behind one face."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from tqdm.auto import tqdm

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import image_labels, stored
from cvpr21lib.segmentation import masks as label_masks
from cvpr21lib.segmentation.layout import Layout, some
from cvpr21lib.segmentation.stored import DamagedFile

FALLBACK = "fallback saliency: geodesic distance from the border; no trained model"
"""Stands in the PNG text chunk "Description" of every map that `data_scripts.saliency --fallback` makes."""


class Source(Protocol):
    """Images of C classes by position, and what is known about each."""

    num_classes: int  # C, without the background
    has_saliency: bool
    has_masks: bool

    @property
    def names(self) -> Sequence[str]:
        """One for each position."""

    def image(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3), RGB."""

    def saliency(self, index: int) -> np.ndarray:
        """uint8 (H, W), 255 where something salient is."""

    def label(self, index: int) -> np.ndarray:
        """y in {0, 1}^C, float32; all 0 for an image without any label."""

    def mask(self, index: int) -> np.ndarray:
        """Ground truth, uint8 (H, W): 0 background, c + 1 class c, 255 void."""

    def fingerprint(self) -> str:
        """Changes with the data (for the record)."""


class Folders:
    """The images of one split of a data set on the disk.

    `saliency` is the folder with NAME.png for each image (`data.find_saliency`), `masks` asks for ground
    truth. What is missing, and saliency of another size than its image, is named now, not in the middle of
    an epoch; only damage inside of a file shows when it is read.
    """

    def __init__(self, layout: Layout, split: str, saliency: Path | None = None, masks: bool = False) -> None:
        self.layout, self.names, self.num_classes = layout, layout.names(split), len(layout.classes)
        self.has_saliency, self.has_masks = saliency is not None, masks
        self.saliency_folder = saliency
        labels = layout.labels()
        remedy = f"Run `python -m data_scripts.{layout.script} --root {layout.root.parent}` again."
        self._refuse([name for name in self.names if name not in labels], "have no image labels", remedy)
        self._labels = [labels[name] for name in self.names]
        self._refuse(self._missing(layout.image), f"are missing in {layout.root}", remedy)
        if masks:
            self._refuse(self._missing(layout.mask), f"have no mask in {layout.root}", remedy)
        self.saliency_kind = "none" if saliency is None else self._check_saliency(saliency)

    saliency_kind: Literal["none", "given", "fallback"]
    """A fallback is made without a trained model; belongs into the record."""

    def image(self, index: int) -> np.ndarray:
        return stored.read_rgb(self.layout.image(self.names[index]))

    def saliency(self, index: int) -> np.ndarray:
        return stored.read_grey(self._saliency_path(self.names[index]))

    def label(self, index: int) -> np.ndarray:
        return image_labels.vector(self._labels[index], self.num_classes)

    def mask(self, index: int) -> np.ndarray:
        return label_masks.read(self.layout.mask(self.names[index]), self.num_classes + 1)

    def fingerprint(self) -> str:
        """SHA-256 over names, labels, and sizes in bytes of images and saliency maps: the same wherever the
        folders lie. It starts with "fallback-" if the saliency is one."""
        digest = hashlib.sha256()
        for name, label in zip(self.names, self._labels, strict=True):
            paths = [self.layout.image(name), *([self._saliency_path(name)] if self.has_saliency else [])]
            digest.update(f"{name} {label} {[path.stat().st_size for path in paths]}\n".encode())
        return ("fallback-" if self.saliency_kind == "fallback" else "") + digest.hexdigest()

    def _saliency_path(self, name: str) -> Path:
        if self.saliency_folder is None:
            raise InputError(f"No folder of saliency maps was named, but that of {name} is asked for.")
        return self.saliency_folder / f"{name}.png"

    def _check_saliency(self, folder: Path) -> Literal["given", "fallback"]:
        remedy = f"Look at all maps with `python -m data_scripts.saliency --source {folder} ...`."
        self._refuse(self._missing(self._saliency_path), f"have no saliency map in {folder}", remedy)
        fallback, unlike = False, []
        for name in tqdm(self.names, "Comparing sizes", delay=2):
            try:
                with stored.header(self._saliency_path(name)) as saliency:
                    fallback |= saliency.info.get("Description") == FALLBACK
                    found = saliency.height, saliency.width
                wanted = stored.size(self.layout.image(name))
            except DamagedFile:
                continue  # whoever reads the file says so, or skips it
            if found != wanted:
                unlike.append(f"{name} (map {found[1]} x {found[0]}, image {wanted[1]} x {wanted[0]})")
        self._refuse(unlike, f"have a saliency map of another size in {folder}", remedy)
        return "fallback" if fallback else "given"

    def _missing(self, place: Callable[[str], Path]) -> list[str]:
        return [name for name in self.names if not place(name).is_file()]

    def _refuse(self, found: Sequence[str], what: str, remedy: str) -> None:
        if found:
            raise InputError(f"{len(found)} of {len(self.names)} images {what}: {some(found)}. {remedy}")


class Scenes:
    """A source in memory.

    `images` are uint8 (H, W, 3); `labels` the class numbers of each, 0 for the first class; `saliency` and
    `masks` uint8 (H, W) as in `Source`.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        labels: Sequence[Sequence[int]],
        num_classes: int,
        saliency: Sequence[np.ndarray] | None = None,
        masks: Sequence[np.ndarray] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.names = names or [f"{position:05d}" for position in range(len(images))]
        self.num_classes = num_classes
        self.has_saliency, self.has_masks = saliency is not None, masks is not None
        self._images, self._labels, self._saliency, self._masks = images, labels, saliency, masks
        for what, given in {"labels": labels, "saliency": saliency, "masks": masks, "names": names}.items():
            if given is not None and len(given) != len(images):
                raise InputError(f"There are {len(images)} scenes, but {len(given)} {what}.")
        for index in range(len(images)):
            self._check(index)

    def image(self, index: int) -> np.ndarray:
        return self._images[index]

    def saliency(self, index: int) -> np.ndarray:
        if self._saliency is None:
            raise InputError("These scenes have no saliency.")
        return self._saliency[index]

    def label(self, index: int) -> np.ndarray:
        return image_labels.vector(self._labels[index], self.num_classes)

    def mask(self, index: int) -> np.ndarray:
        if self._masks is None:
            raise InputError("These scenes have no masks.")
        return self._masks[index]

    def fingerprint(self) -> str:
        """SHA-256 over names, labels, shapes, and each picture's mean and spread to a whole grey value.

        Not over the pixels: computed ones differ in their last bits from processor to processor.
        """
        digest = hashlib.sha256()
        for index, name in enumerate(self.names):
            pictures = [
                given[index] for given in (self._images, self._saliency, self._masks) if given is not None
            ]
            listed = [(picture.shape, round(picture.mean()), round(picture.std())) for picture in pictures]
            digest.update(f"{name} {tuple(self._labels[index])} {listed}\n".encode())
        return digest.hexdigest()

    def _check(self, index: int) -> None:
        name, image = self.names[index], self._images[index]
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"Scene {name} is {image.dtype} {image.shape}; expected uint8 (H, W, 3).")
        for what, given in (("saliency", self._saliency), ("mask", self._masks)):
            if given is not None and (given[index].shape, given[index].dtype) != (image.shape[:2], np.uint8):
                raise InputError(
                    f"The {what} of scene {name} is {given[index].dtype} {given[index].shape}; "
                    f"expected uint8 {image.shape[:2]}."
                )
        outside = [number for number in self._labels[index] if not 0 <= number < self.num_classes]
        if outside:
            last = self.num_classes - 1
            raise InputError(f"Scene {name} has the label {outside[0]}; expected 0 to {last}.")
