"""What EOPSN and its baselines train on, and are tested on: COCO 2017 with some of its classes unknown.

    data = Training(data_root, k=20)
    examples = collate([data[Draw(place, seed)], ...])
    net(examples.batch, examples.truths)

A training set is asked with a `Draw(index, seed)`, where index is the place in its list of `images`. Every
random choice of that example comes from `random.Random(seed)`: so one draw gives one example in any worker,
process or resumed run, and any image can be had at any time, as the exemplar image that EOPSN appends to a
batch: `data[Draw(place, mix(seed, "exemplar", step))]`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cvpr21lib.eopsn import boxes as box
from cvpr21lib.eopsn import classes
from cvpr21lib.eopsn.classes import Classes
from cvpr21lib.eopsn.masks import Polygons
from cvpr21lib.eopsn.model import Batch, Objects, Size, Truth, bgr, stack
from cvpr21lib.errors import InputError
from cvpr21lib.sampling import Draw
from cvpr21lib.segmentation import coco2017, stored
from cvpr21lib.segmentation.coco2017 import COCO2017, ImageFile

DIVISOR = 32
"""Batches are padded to multiples of it, the stride of the network's deepest stage."""
LEAST_SIDE = 1e-5
"""Boxes that are not longer than this in both directions, pixels, are dropped (detectron2)."""


@dataclass(frozen=True)
class Augmentation:
    """How an image is brought to the network (official code)."""

    sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    """One of them becomes the shorter side, pixels."""
    longest: int = 1333
    """But the longer side is at most this."""
    flip: bool = True
    """Mirror left-right with probability one half."""

    def __post_init__(self) -> None:
        if not self.sides or min(*self.sides, self.longest) < 1:
            raise InputError(
                f"sides={self.sides} and longest={self.longest}; expected at least one side, and pixels of 1 "
                "or more."
            )


OFFICIAL = Augmentation()


class Example(NamedTuple):
    """One image as the network takes it, and what is known of it."""

    place: int  # in the data set's list of images
    image: Tensor  # (3, H, W) float32, BGR less the mean
    truth: Truth
    flipped: bool  # whether it is the mirror image of the stored one, as `pseudo_truth.relative` asks


@dataclass(frozen=True)
class Examples:
    """A batch of them."""

    places: list[int]
    batch: Batch
    truths: list[Truth]
    flipped: list[bool]

    def to(self, device: torch.device | str) -> Examples:
        """The same with all tensors on another device."""
        batch = self.batch._replace(images=self.batch.images.to(device))
        return Examples(self.places, batch, [_to(truth, device) for truth in self.truths], self.flipped)

    def plus(self, extra: Example) -> Examples:
        """With one more image, on the device of the others."""
        device = self.batch.images.device
        images = [
            image[:, :height, :width]
            for image, (height, width) in zip(self.batch.images, self.batch.sizes, strict=True)
        ]
        return Examples(
            [*self.places, extra.place],
            stack([*images, extra.image.to(device)], DIVISOR),
            [*self.truths, _to(extra.truth, device)],
            [*self.flipped, extra.flipped],
        )


def collate(examples: Sequence[Example]) -> Examples:
    """Pad them to one size."""
    places, images, truths, flipped = map(list, zip(*examples, strict=True))
    return Examples(places, stack(images, DIVISOR), truths, flipped)


class Training(Dataset[Example]):
    """The training images of COCO 2017 with K = 5, 10 or 20 % of the things unknown.

    Images without any annotation stay. Objects whose box has no area inside the image are dropped. Files that
    are missing are named now; only damage inside of one shows when it is read.

    Raises:
        InputError: the data set or a file of it is missing, two images have the same id, or the list of
            instances does not belong to this K.
    """

    collate = staticmethod(collate)

    def __init__(
        self, data_root: str | Path | None, k: int = 20, augmentation: Augmentation = OFFICIAL
    ) -> None:
        self.classes = classes.of_coco(k)
        self.layout, self.k, self.augmentation = COCO2017.find(data_root, k), k, augmentation
        self.instances = Instances.read(self.layout.known_instances(k), self.classes)
        self.images = [one.id for one in self.instances.images]
        """Their ids, numbers or names; `PseudoTruth` takes them."""
        files = self.instances.images
        self.layout.require(self.layout.images("train"), [one.file_name for one in files], "images")
        self.layout.require(self.layout.semantic(k), [one.png for one in files], "semantic labels")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> Example:
        rng, place = random.Random(draw.seed), draw.index
        flipped = self.augmentation.flip and rng.random() < 0.5
        side = rng.choice(self.augmentation.sides)
        image, semantic = self._image(place), self._semantic(place)
        size = resized(self.instances.images[place].size, side, self.augmentation.longest)
        pixels = np.array(_turned(image, size, flipped, Image.Resampling.BILINEAR))
        label = np.array(_turned(semantic, size, flipped, Image.Resampling.NEAREST)).astype(np.int64)
        label[label == classes.VOID] = len(self.classes.stuff) + 1
        objects, polygons = self._objects(place, size, flipped)
        truth = Truth(torch.from_numpy(label), objects, polygons)
        return Example(place, bgr(torch.from_numpy(pixels).permute(2, 0, 1)), truth, flipped)

    def fingerprint(self) -> str:
        """SHA-256 over the objects, and the names and sizes in bytes of all files (for the record)."""
        digest = hashlib.sha256(self.instances.digest())
        folders = self.layout.images("train"), self.layout.semantic(self.k)
        for one in self.instances.images:
            paths = folders[0] / one.file_name, folders[1] / one.png
            digest.update(f"{one.file_name} {[path.stat().st_size for path in paths]}\n".encode())
        return digest.hexdigest()

    def _image(self, place: int) -> np.ndarray:
        file = self.instances.images[place]
        return _checked(self.layout.images("train") / file.file_name, file, stored.read_rgb)

    def _semantic(self, place: int) -> np.ndarray:
        file = self.instances.images[place]
        path = self.layout.semantic(self.k) / file.png
        label = _checked(path, file, stored.read_grey)
        last = len(self.classes.stuff)
        strange = label[(label > last) & (label != classes.VOID)]
        if len(strange):
            raise InputError(
                f"{path} has the label {strange[0]}; expected 0 to {last}, or {classes.VOID} for void."
            )
        return label

    def _objects(self, place: int, size: Size, flipped: bool) -> tuple[Objects, Polygons]:
        corners, labels, rings = self.instances.of(place)
        height, width = self.instances.images[place].size
        scale = np.array([size[1] / width, size[0] / height])
        if flipped:
            x1, y1, x2, y2 = corners.T
            corners = np.stack([width - x2, y1, width - x1, y2], 1)
            rings = [[ring * [-1, 1] + [width, 0] for ring in each] for each in rings]
        clipped = box.clip(torch.from_numpy(corners * np.tile(scale, 2)), size)
        kept = (clipped[:, 2:] - clipped[:, :2] > LEAST_SIDE).all(1)
        polygons = [[(ring * scale).ravel() for ring in rings[number]] for number in kept.nonzero()[:, 0]]
        return Objects(clipped[kept].float(), torch.from_numpy(labels)[kept]), Polygons(polygons)


class Picture(NamedTuple):
    """One test image."""

    file: ImageFile  # `png` is the name of its prediction
    image: Tensor  # (3, H, W) float32, BGR less the mean


class Test(Dataset[Picture]):
    """The 5,000 images of val2017, in the order of its panoptic annotations; `side` and `longest` as in
    `Augmentation`."""

    __test__ = False  # no test of pytest's

    def __init__(self, layout: COCO2017, side: int = 800, longest: int = 1333) -> None:
        path = layout.panoptic("val")
        self.files = coco2017.listed(path, coco2017.read_json(path))
        self.layout, self.side, self.longest = layout, side, longest
        layout.require(layout.images("val"), [one.file_name for one in self.files], "images")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Picture:
        file = self.files[place]
        image = _checked(self.layout.images("val") / file.file_name, file, stored.read_rgb)
        size = resized(file.size, self.side, self.longest)
        pixels = np.array(_turned(image, size, False, Image.Resampling.BILINEAR))
        return Picture(file, bgr(torch.from_numpy(pixels).permute(2, 0, 1)))


@dataclass(frozen=True, eq=False)
class Instances:
    """The known objects of all images, in few large arrays: worker processes share them, unlike lists."""

    images: list[ImageFile]
    boxes: np.ndarray
    """(n, 4) float64: x1, y1, x2, y2 in pixels of the stored image."""
    labels: np.ndarray
    """(n,) int64."""
    points: np.ndarray
    """(p, 2) float64: of all polygons, x and y in pixels."""
    first: np.ndarray
    """(N + 1,): objects first[i] .. first[i + 1] - 1 are those of image i."""
    first_ring: np.ndarray
    """(n + 1,): likewise, the polygons of an object."""
    first_point: np.ndarray
    """(r + 1,): likewise, the points of a polygon."""

    @classmethod
    def read(cls, path: Path, classes: Classes) -> Self:
        """From COCO's instance annotations without crowds and unknown things.

        Polygons of fewer than three points are left out, and objects that have no other (detectron2).

        Raises:
            InputError: also for an object of an image that is not listed, of a class that is not known, with
                a box that is not four finite numbers, or without polygons.
        """
        content = coco2017.read_json(path)
        images = coco2017.listed(path, content)
        place = {one.id: number for number, one in enumerate(images)}
        found: list[list[tuple[Any, int, list[np.ndarray]]]] = [[] for _ in images]
        for annotation in content.get("annotations", ()):
            try:
                one = _object(annotation, place, classes)
            except (KeyError, TypeError, ValueError) as error:
                which = annotation.get("id") if isinstance(annotation, Mapping) else annotation
                raise InputError(f"{path}, annotation {which}: {_reason(error)}") from error
            if one[1][2]:
                found[one[0]].append(one[1])
        objects = [each for of_image in found for each in of_image]
        rings = [ring for _, _, rings in objects for ring in rings]
        return cls(
            images,
            np.array([corners for corners, _, _ in objects], np.float64).reshape(-1, 4),
            np.array([label for _, label, _ in objects], np.int64),
            np.concatenate([np.zeros((0, 2)), *rings]),
            _starts([len(of_image) for of_image in found]),
            _starts([len(each) for _, _, each in objects]),
            _starts([len(ring) for ring in rings]),
        )

    def of(self, place: int) -> tuple[np.ndarray, np.ndarray, list[list[np.ndarray]]]:
        """Boxes (m, 4), labels (m,) and polygons, each (points, 2), of one image's objects."""
        start, stop = self.first[place : place + 2]
        rings = [
            [
                self.points[self.first_point[ring] : self.first_point[ring + 1]]
                for ring in range(self.first_ring[number], self.first_ring[number + 1])
            ]
            for number in range(start, stop)
        ]
        return self.boxes[start:stop], self.labels[start:stop], rings

    def digest(self) -> bytes:
        """SHA-256 over all objects."""
        digest = hashlib.sha256()
        for array in (self.boxes, self.labels, self.points, self.first, self.first_ring, self.first_point):
            digest.update(array.tobytes())
        return digest.digest()


def resized(size: Size, side: int, longest: int) -> Size:
    """`size` (height, width) with its shorter side as `side`, or its longer one as `longest` if that is
    smaller; rounded as in detectron2."""
    scale = side / min(size)
    height, width = (side, size[1] * scale) if size[0] < size[1] else (size[0] * scale, side)
    if max(height, width) > longest:
        scale = longest / max(height, width)
        height, width = height * scale, width * scale
    return max(1, int(height + 0.5)), max(1, int(width + 0.5))


def _turned(pixels: np.ndarray, size: Size, flipped: bool, how: Image.Resampling) -> Image.Image:
    picture = Image.fromarray(pixels)
    if flipped:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture.resize((size[1], size[0]), how)


def _checked(path: Path, file: ImageFile, read: Callable[[Path], np.ndarray]) -> np.ndarray:
    pixels = read(path)
    if pixels.shape[:2] != file.size:
        raise InputError(
            f"{path} has {pixels.shape[0]}×{pixels.shape[1]} pixels and its JSON says "
            f"{file.size[0]}×{file.size[1]}; expected the original size: prepare the data set again."
        )
    return pixels


def _object(
    annotation: Mapping[str, Any], place: Mapping[Any, int], classes: Classes
) -> tuple[int, tuple[np.ndarray, int, list[np.ndarray]]]:
    """The place of its image; its box, label and polygons."""
    if annotation["image_id"] not in place:
        raise InputError(f"it is of image {annotation['image_id']!r}, which is not listed.")
    if annotation["category_id"] not in classes.label:
        raise InputError(
            f"it is of category {annotation['category_id']}, which is not a known thing; expected the "
            "instances that were prepared for this K."
        )
    shape = annotation["segmentation"]
    if not isinstance(shape, list):
        raise InputError("it is drawn as run lengths, like a crowd; expected polygons.")
    x, y, width, height = map(float, annotation["bbox"])
    corners = np.array([x, y, x + width, y + height])
    rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in shape if len(ring) >= 6]
    if not all(np.isfinite(numbers).all() for numbers in (corners, *rings)):
        raise InputError("its box or a polygon is not finite.")
    return place[annotation["image_id"]], (corners, classes.label[annotation["category_id"]], rings)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"it is not in COCO's format ({error!r})."


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _to(truth: Truth, device: torch.device | str) -> Truth:
    objects = Objects(*(tensor.to(device) for tensor in truth.objects))
    return Truth(truth.semantic.to(device), objects, truth.masks)
