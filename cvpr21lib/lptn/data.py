"""What LPTN trains and is judged on: crops of two folders of photographs, and whole test pairs.

The layout is the official one, `root/{train,test}/{A,B}/*.jpg`: A holds the source domain (camera
renderings, day), B the target domain (expert retouching, night). In unpaired training A and B show
*different* photographs (FiveK: 2250 and 2250 others); test pairs share their file names (FiveK: 500).

A training set is asked with a `Draw(index, seed)` instead of a plain index. Every random choice of that
sample comes from `random.Random(seed)`, so one draw gives one crop in any worker, process or resumed run.

Images are arrays (H, W, 3), RGB, float32 in [0, 1] or (cached) uint8, until a sample leaves this file as
float32 tensors (3, H, W) in [0, 1].
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cvpr21lib.errors import InputError
from cvpr21lib.lptn import photographs
from cvpr21lib.lptn.photographs import Photographs, Pixels, Source
from cvpr21lib.sampling import Draw


class Crops(Dataset[dict[str, Tensor]], ABC):
    """Crops of source and target images; how the two belong together is up to the subclass.

    `sources`, `targets`: a folder, a sequence of arrays (H, W, 3), or a mapping from names to arrays.
    `crop`: side of the square crops in pixels; None gives crops of free size, 60-100 % of each side, equal
    for source and target but another for each draw (official `if_fix_size: false`): batch size 1 only.
    `augment`: flips and transposition, the same for source and target.
    `cache`: keep all images decoded in memory as 8 bits (4.7 GB for FiveK at 480p), read at the start.

    `dataset[Draw(index, seed)]` is {"source": (3, s, s), "target": (3, s, s), "alpha": ()}, float32; images
    in [0, 1], alpha (the sample's mixing weight for the gradient penalty) in [0, 1).
    """

    def __init__(
        self,
        sources: Source,
        targets: Source,
        crop: int | None = 256,
        augment: bool = True,
        cache: bool = False,
    ) -> None:
        self.sources, self.targets = photographs.open(sources, cache), photographs.open(targets, cache)
        self.crop, self.augment = crop, augment
        self._check()

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = random.Random(draw.seed)
        return _sample(rng, *self._cut(rng, draw.index), self.augment)

    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of all images that this set reads (for the record)."""
        return _fingerprint(self.sources, self.targets)

    @abstractmethod
    def _check(self) -> None:
        """Refuse images that do not fit."""

    @abstractmethod
    def _cut(self, rng: random.Random, index: int) -> tuple[Pixels, Pixels]:
        """The crop of source `index`, and its target."""


class UnpairedCrops(Crops):
    """A crop of a source image and, from an image drawn among *all* targets, a crop at its own position."""

    def _check(self) -> None:
        for images in (self.sources, self.targets):
            _require_room(images, self.crop)

    def _cut(self, rng: random.Random, index: int) -> tuple[Pixels, Pixels]:
        source = self.sources[index]
        target = self.targets[rng.randrange(len(self.targets))]
        size = crop_size(rng, source, target, self.crop)
        source = crop(source, *position(rng, source, *size), *size)
        return source, crop(target, *position(rng, target, *size), *size)


class PairedCrops(Crops):
    """The same crop of a source image and of its own retouched version (equal names, equal sizes).

    For supervised training, which the paper does not do. Arrays given as sequences are paired by their order,
    everything else by name (without the suffix).
    """

    def _check(self) -> None:
        _require_pairs(self.sources, self.targets)
        _require_room(self.sources, self.crop)

    def _cut(self, rng: random.Random, index: int) -> tuple[Pixels, Pixels]:
        source, target = self.sources[index], self.targets[index]
        size = crop_size(rng, source, target, self.crop)
        corner = position(rng, source, *size)
        return crop(source, *corner, *size), crop(target, *corner, *size)


class TestPairs(Dataset[dict[str, Any]]):
    """Whole images, in the order of their names, paired as in `PairedCrops`.

    `dataset[i]` is {"name": str, "source": (3, H, W), "target": (3, H, W)}; without `targets` (day to night
    has no ground truth) there is no "target".
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(self, sources: Source, targets: Source | None = None) -> None:
        self.sources = photographs.open(sources)
        self.targets = None if targets is None else photographs.open(targets)
        if self.targets is not None:
            _require_pairs(self.sources, self.targets)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair = {"name": self.sources.names[index], "source": _tensor(self.sources[index])}
        return pair if self.targets is None else {**pair, "target": _tensor(self.targets[index])}

    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of all images that this set reads (for the record)."""
        return _fingerprint(self.sources, *([] if self.targets is None else [self.targets]))


def find(data_root: str | Path | None, size: str = "480p") -> Path:
    """The folder with `train/` and `test/`: FiveK at `size` ("480p", "1080p", "original"), or two domains.

    Looked for as `data_root/FiveK_480p`, `data_root/FiveK/FiveK_480p` (the official place) and `data_root`
    itself, unless its name says that it is FiveK at another size.
    """
    name = f"FiveK_{size}"
    if data_root is None:
        raise InputError(f"data_root is not set: name the folder that holds {name}. {_remedy('data', size)}")
    root = Path(data_root)
    places = [root / name, root / "FiveK" / name]
    if root.name == name or not root.name.startswith("FiveK_"):
        places.append(root)
    for place in places:
        if (place / "train").is_dir() or (place / "test").is_dir():
            return place
    raise InputError(
        f"The data set {name} (photographs in train/A, train/B, test/A, test/B) was not found; "
        f"looked in {', '.join(map(str, places))}. {_remedy(root, size)}"
    )


def _remedy(root: str | Path, size: str) -> str:
    given = "--archive FiveK.zip" if size == "480p" else f"--size {size} --sources DIR --targets DIR"
    return (
        f"Bring it with `python -m data_scripts.fivek --root {root} {given}`, or lay out any two folders of "
        f"your own with `python -m data_scripts.folders --root {root} --a DIR --b DIR`."
    )


def crop_size(rng: random.Random, source: Pixels, target: Pixels, crop: int | None) -> tuple[int, int]:
    """Height and width of a crop that fits both images: fixed, or 60-100 % of the smaller of each."""
    if crop is not None:
        return crop, crop
    height, width = (min(source.shape[axis], target.shape[axis]) for axis in (0, 1))
    return round(height * rng.uniform(0.6, 1)), round(width * rng.uniform(0.6, 1))


def position(rng: random.Random, image: Pixels, height: int, width: int) -> tuple[int, int]:
    """Top row and left column of a window, uniform over all places where it fits."""
    return rng.randint(0, image.shape[0] - height), rng.randint(0, image.shape[1] - width)


def crop(image: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """The window of `height` x `width` pixels whose first row and column are `top` and `left`."""
    return image[top : top + height, left : left + width]


def flips(rng: random.Random) -> tuple[bool, bool, bool]:
    """Whether to mirror left-right, to mirror top-bottom, to transpose: each with probability one half."""
    return rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.5


def augment(image: Pixels, hflip: bool, vflip: bool, transpose: bool) -> Pixels:
    """Mirror left-right, mirror top-bottom, then swap rows and columns, each if told to."""
    if hflip:
        image = image[:, ::-1]
    if vflip:
        image = image[::-1]
    return image.transpose(1, 0, 2) if transpose else image


def _sample(rng: random.Random, source: Pixels, target: Pixels, augmented: bool) -> dict[str, Tensor]:
    if augmented:
        chosen = flips(rng)
        source, target = augment(source, *chosen), augment(target, *chosen)
    # 24 bits are exact in float32; a 53-bit fraction could be rounded up to 1.
    alpha = rng.getrandbits(24) / 2**24
    return {"source": _tensor(source), "target": _tensor(target), "alpha": torch.tensor(alpha)}


def _tensor(image: Pixels) -> Tensor:
    channels_first = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(channels_first / np.float32(255) if image.dtype == np.uint8 else channels_first)


def _require_room(images: Photographs, crop: int | None) -> None:
    small = [i for i, size in enumerate(images.sizes) if crop is not None and min(size) < crop]
    if small:
        raise InputError(
            f"{len(small)} of {len(images)} images are smaller than the crop of {crop} x {crop} pixels: "
            f"{_some([images.describe(i) for i in small])}. Leave them out or choose a smaller crop."
        )


def _require_pairs(sources: Photographs, targets: Photographs) -> None:
    if sources.names != targets.names:
        alone = sorted(set(sources.names) ^ set(targets.names))
        raise InputError(
            f"Sources and targets are not pairs: {len(sources)} sources from {sources.describe(0)} on, "
            f"{len(targets)} targets from {targets.describe(0)} on; without a partner: {_some(alone)}. "
            "Pairs need equal file names in A and B. The training folders of the unpaired FiveK hold "
            "different photographs on purpose: train unpaired, or build pairs from your own renderings with "
            "`python -m data_scripts.fivek --pairs`."
        )
    for i in range(len(sources)):
        if sources.sizes[i] != targets.sizes[i]:
            raise InputError(
                f"A pair differs in size: {sources.describe(i)} and {targets.describe(i)}; "
                "both must show the same photograph at the same size."
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _fingerprint(*collections: Photographs) -> str:
    return hashlib.sha256("\n".join(images.fingerprint() for images in collections).encode()).hexdigest()
