"""The images of the three benchmarks, as `data_scripts` lays them out, and images in memory.

    FLICKR-25K   38 classes   train  4,496   test 1,700   database  23,300
    NUS-WIDE     21           train 10,500   test 2,100   database 193,734
    MS-COCO      80           train 10,000   test 5,000   database 117,218

The official list of FLICKR-25K trains on 5,000 rows, of which 504 are repeats; they count once here. 38 of
its test images and 381 of its database show none of the classes: nothing is relevant to them, so MAP cannot
exceed 97.8 %. They stay, as in the official protocol.

Images go to the networks as the official code has them: the shorter side resized to 256, the middle 224 x 224
cut out, RGB in [0, 1], without ImageNet's mean and standard deviation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as T

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import splits
from cvpr21lib.prosgan.splits import Name, Splits
from cvpr21lib.sampling import Draw
from cvpr21lib.segmentation import stored
from cvpr21lib.segmentation.layout import some

BenchmarkName = Literal["FLICKR-25K", "NUS-WIDE", "MS-COCO"]


@dataclass(frozen=True)
class Benchmark:
    """A data set as the tables know it."""

    name: BenchmarkName
    """Also its folder below the data root."""
    images: str
    """The folder below the data root from which images are named."""
    script: str
    """Who brings it: `python -m data_scripts.<script>`."""
    classes: int
    counts: tuple[int, int, int]
    """Images of train, test and database."""


FLICKR_25K = Benchmark("FLICKR-25K", "FLICKR-25K", "flickr25k", 38, (4_496, 1_700, 23_300))
NUS_WIDE = Benchmark("NUS-WIDE", "NUS-WIDE", "nus_wide", 21, (10_500, 2_100, 193_734))
MS_COCO = Benchmark("MS-COCO", "COCO2014", "coco_hashing", 80, (10_000, 5_000, 117_218))
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (FLICKR_25K, NUS_WIDE, MS_COCO)
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A benchmark on the disk."""

    benchmark: Benchmark
    folder: Path
    """Where the paths of the images start."""
    splits: Splits


def find(data_root: str | Path | None, name: BenchmarkName) -> Prepared:
    """The prepared benchmark below `data_root`.

    Raises:
        InputError: an unknown name, nothing there, or splits that are damaged or of other classes.
    """
    if name not in BENCHMARKS:
        raise InputError(f"there is no data set {name!r}; choose one of {', '.join(BENCHMARKS)}.")
    benchmark = BENCHMARKS[name]
    remedy = f"Bring it with `python -m data_scripts.{benchmark.script} --root {data_root or 'data'}`."
    if data_root is None:
        raise InputError(f"data_root is not set: name the folder that holds {benchmark.name}. {remedy}")
    path = Path(data_root) / benchmark.name / splits.FILE
    if not path.is_file():
        raise InputError(f"The data set {benchmark.name} was not found; looked for {path}. {remedy}")
    found = splits.read(path)
    if len(found.classes) != benchmark.classes:
        raise InputError(
            f"{path} has {len(found.classes)} classes instead of {benchmark.classes}. Remove it. {remedy}"
        )
    return Prepared(benchmark, Path(data_root) / benchmark.images, found)


class Photographs(Dataset[dict[str, Tensor]]):
    """One part of a benchmark: `dataset[i]`, or `dataset[Draw(i, seed)]`, is

        {"image": (3, S, S) float32 in [0, 1], "label": (C,) float32, "index": int64, the place i}

    with S = `size`. Nothing is random: the official code does not augment. `labels` are all of them, `(N, C)`
    uint8. Images that are missing are named now, not in the middle of an epoch.
    """

    def __init__(self, prepared: Prepared, part: Name, size: int = 224, shorter_side: int = 256) -> None:
        if not 1 <= size <= shorter_side:
            raise InputError(f"size is {size}; it must be from 1 to shorter_side, {shorter_side} pixels.")
        chosen = prepared.splits.parts[part]
        self.images, self.labels = chosen.images, chosen.labels
        self.folder, self.size, self.shorter_side = prepared.folder, size, shorter_side
        missing = [image for image in self.images if not (self.folder / image).is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(self.images)} images of {part} are missing in {self.folder} "
                f"({some(missing)}); run `python -m data_scripts.{prepared.benchmark.script} --root "
                f"{self.folder.parent}` again."
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int | Draw) -> dict[str, Tensor]:
        index = place.index if isinstance(place, Draw) else place
        image = read(self.folder / self.images[index], self.size, self.shorter_side)
        return _sample(image, self.labels[index], index)

    def fingerprint(self) -> str:
        """SHA-256 over names, labels, sizes in bytes, and the size that the images are brought to."""
        digest = hashlib.sha256(f"{self.size} of {self.shorter_side}\n".encode())
        for image, label in zip(self.images, self.labels, strict=True):
            digest.update(f"{image} {(self.folder / image).stat().st_size} {label.tolist()}\n".encode())
        return digest.hexdigest()


class InMemory(Dataset[dict[str, Tensor]]):
    """`images` (N, channels, H, W), floats in [0, 1], with `labels` (N, C) of 0 and 1: samples as those of
    `Photographs`."""

    def __init__(self, images: Tensor, labels: Tensor | np.ndarray) -> None:
        self.images, self.labels = images, np.asarray(labels).astype(np.uint8)
        if images.ndim != 4 or self.labels.ndim != 2 or len(images) != len(self.labels) or not len(images):
            raise InputError(
                f"the images have shape {tuple(images.shape)} and the labels {self.labels.shape}; expected "
                "(N, channels, H, W) and (N, C) with the same N, at least 1."
            )
        if not images.is_floating_point() or not 0 <= images.min() <= images.max() <= 1:
            raise InputError(f"the images are {images.dtype} and not floats in [0, 1]; divide bytes by 255.")
        if not np.isin(labels, (0, 1)).all():
            raise InputError("the labels hold other values than 0 and 1.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int | Draw) -> dict[str, Tensor]:
        index = place.index if isinstance(place, Draw) else place
        return _sample(self.images[index], self.labels[index], index)

    def fingerprint(self) -> str:
        """SHA-256 over the values of images and labels: an adversarial image is another image. Computed
        images differ between machines in their last bits; a record should say how they were made."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.labels.shape}".encode())
        digest.update(self.images.detach().cpu().contiguous().numpy().tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def read(path: Path, size: int = 224, shorter_side: int = 256) -> Tensor:
    """A picture as the networks take it: `(3, size, size)` float32, RGB in [0, 1].

    As it is stored, not turned by an EXIF tag (official code). Grey, palettes and CMYK become RGB, and
    transparency is dropped; 16 bits a channel, which Pillow would cut off at 255, are an `InputError`.
    """
    image = stored.decode(path)
    if image.mode[0] in "IF":
        raise InputError(f"{path} has pixels of mode {image.mode!r}; save it with 8 bits a channel.")
    return prepare(image.convert("RGB"), size, shorter_side)


def prepare(image: Image.Image, size: int = 224, shorter_side: int = 256) -> Tensor:
    """An RGB picture resized (bilinear, antialiased, as Pillow does it) and cut as `read` has it."""
    resized = T.resize(image, [shorter_side], InterpolationMode.BILINEAR)
    return T.to_dtype(T.pil_to_tensor(T.center_crop(resized, [size, size])), torch.float32, scale=True)


def _sample(image: Tensor, label: np.ndarray, index: int) -> dict[str, Tensor]:
    return {
        "image": image,
        "label": torch.from_numpy(label.astype(np.float32)),
        "index": torch.tensor(index),
    }
