"""What LPTN trains and is judged on: crops of two folders of photographs, and whole test pairs.

The layout is the official one, `root/{train,test}/{A,B}/*.jpg`: A holds the source domain (camera renderings,
day), B the target domain (expert retouching, night). In unpaired training A and B show *different* photographs
(FiveK: 2250 and 2250 others); the test pairs share their file names (FiveK: 500).

A training set is asked with a `Draw(index, seed)` instead of a plain index. Every random choice of that sample
comes from `random.Random(seed)`, so the same draw gives the same crop in any worker, process or resumed run.

Images are float32 arrays (H, W, 3), RGB in [0, 1], until a sample leaves this file as tensors (3, H, W).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from cvpr21lib import images
from cvpr21lib.errors import InputError
from cvpr21lib.sampling import Draw

Pixels = np.ndarray[Any, Any]
Photographs = str | Path | Sequence[Pixels] | Mapping[str, Pixels]
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}


class UnpairedCrops(Dataset[dict[str, Tensor]]):
    """A crop of a source image and, from an image drawn among *all* targets, a crop at its own position.

    `sources`, `targets`: a folder, a sequence of arrays (H, W, 3), or a mapping from names to arrays.
    `crop`: side of the square crops in pixels; None gives crops of free size, 60-100 % of each side, the same
    size for source and target but another one for each draw (official `if_fix_size: false`): batch size 1 only.
    `augment`: flips and transposition, the same for source and target.
    `cache`: keep all images decoded in memory as 8 bits (4.7 GB for FiveK at 480p), read once at the start.

    `dataset[Draw(index, seed)]` is {"source": (3, s, s), "target": (3, s, s), "alpha": ()}, float32; the images
    are in [0, 1], alpha (the sample's mixing weight for the gradient penalty) is in [0, 1).
    """

    def __init__(
        self,
        sources: Photographs,
        targets: Photographs,
        crop: int | None = 256,
        augment: bool = True,
        cache: bool = False,
    ) -> None:
        self.sources, self.targets = _open(sources, cache), _open(targets, cache)
        self.crop, self.augment = crop, augment
        for photographs in (self.sources, self.targets):
            _require_room(photographs, crop)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = random.Random(draw.seed)
        source = self.sources[draw.index]
        target = self.targets[rng.randrange(len(self.targets))]
        height, width = crop_size(rng, source, target, self.crop)
        source = crop(source, *position(rng, source, height, width), height, width)
        target = crop(target, *position(rng, target, height, width), height, width)
        return _sample(rng, source, target, self.augment)

    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of every image that this set reads (for the record)."""
        return _fingerprint(self.sources, self.targets)


class PairedCrops(Dataset[dict[str, Tensor]]):
    """The same crop of a source image and of its own retouched version (equal names, equal sizes).

    For supervised training, which the paper does not do; parameters and samples as in `UnpairedCrops`.
    Arrays given as sequences are paired by their order, everything else by name (without the suffix).
    """

    def __init__(
        self,
        sources: Photographs,
        targets: Photographs,
        crop: int | None = 256,
        augment: bool = True,
        cache: bool = False,
    ) -> None:
        self.sources, self.targets = _open(sources, cache), _open(targets, cache)
        self.crop, self.augment = crop, augment
        _require_pairs(self.sources, self.targets)
        _require_room(self.sources, crop)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = random.Random(draw.seed)
        source, target = self.sources[draw.index], self.targets[draw.index]
        height, width = crop_size(rng, source, target, self.crop)
        where = position(rng, source, height, width)
        source, target = crop(source, *where, height, width), crop(target, *where, height, width)
        return _sample(rng, source, target, self.augment)

    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of every image that this set reads (for the record)."""
        return _fingerprint(self.sources, self.targets)


class TestPairs(Dataset[dict[str, Any]]):
    """Whole images: `dataset[i]` is {"name": str, "source": (3, H, W), "target": (3, H, W)}, in the order of names.

    Without `targets` (day to night has no ground truth) there is no "target".
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(self, sources: Photographs, targets: Photographs | None = None) -> None:
        self.sources = _open(sources)
        self.targets = None if targets is None else _open(targets)
        if self.targets is not None:
            _require_pairs(self.sources, self.targets)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair = {"name": self.sources.names[index], "source": _tensor(self.sources[index])}
        return pair if self.targets is None else {**pair, "target": _tensor(self.targets[index])}

    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of every image that this set reads (for the record)."""
        return _fingerprint(self.sources, *([] if self.targets is None else [self.targets]))


def find(data_root: str | Path | None, size: str = "480p") -> Path:
    """The folder that holds `train/` and `test/`: FiveK at `size` ("480p", "1080p", "original"), or any two domains.

    Looked for as `data_root/FiveK_480p`, `data_root/FiveK/FiveK_480p` (the official place) and `data_root` itself,
    unless its name says that it is FiveK at another size.
    """
    if data_root is None:
        raise InputError(f"data_root is not set: name the folder that holds FiveK_{size}. {_remedy('data', size)}")
    root, name = Path(data_root), f"FiveK_{size}"
    candidates = [root / name, root / "FiveK" / name]
    if root.name == name or not root.name.startswith("FiveK_"):
        candidates.append(root)
    for candidate in candidates:
        if (candidate / "train").is_dir() or (candidate / "test").is_dir():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise InputError(
        f"The data set {name} (photographs in train/A, train/B, test/A, test/B) was not found; looked in {looked}. "
        f"{_remedy(root, size)}"
    )


def crop(image: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """The window of `height` x `width` pixels whose first row and column are `top` and `left`."""
    return image[top : top + height, left : left + width]


def augment(image: Pixels, hflip: bool, vflip: bool, transpose: bool) -> Pixels:
    """Mirror left-right, mirror top-bottom, then swap rows and columns, each if told to."""
    if hflip:
        image = image[:, ::-1]
    if vflip:
        image = image[::-1]
    return image.transpose(1, 0, 2) if transpose else image


def crop_size(rng: random.Random, source: Pixels, target: Pixels, crop: int | None) -> tuple[int, int]:
    """Height and width of a crop that fits both images: fixed, or 60-100 % of the smaller height and width."""
    if crop is not None:
        return crop, crop
    height, width = (min(source.shape[axis], target.shape[axis]) for axis in (0, 1))
    return round(height * rng.uniform(0.6, 1)), round(width * rng.uniform(0.6, 1))


def position(rng: random.Random, image: Pixels, height: int, width: int) -> tuple[int, int]:
    """Top row and left column of a window, uniform over all places where it fits."""
    return rng.randint(0, image.shape[0] - height), rng.randint(0, image.shape[1] - width)


def _sample(rng: random.Random, source: Pixels, target: Pixels, augmented: bool) -> dict[str, Tensor]:
    if augmented:
        flags = [rng.random() < 0.5 for _ in range(3)]
        source, target = augment(source, *flags), augment(target, *flags)
    # 24 bits are exact in float32; a 53-bit fraction could be rounded up to 1.
    alpha = rng.getrandbits(24) / 2**24
    return {"source": _tensor(source), "target": _tensor(target), "alpha": torch.tensor(alpha)}


def _tensor(image: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))


class _Images(Protocol):
    """Images by position: `names`, `sizes` (height, width), and pixels float32 (H, W, 3) in [0, 1]."""

    names: list[str]
    sizes: list[tuple[int, int]]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Pixels: ...
    def describe(self, index: int) -> str: ...
    def fingerprint(self) -> str: ...


def _open(photographs: Photographs, cache: bool = False) -> _Images:
    if isinstance(photographs, str | Path):
        return Folder(Path(photographs), cache)
    return Arrays(photographs)


class Folder:
    """The images of one folder, sorted by name. Sizes are read from the headers at once, pixels when asked."""

    def __init__(self, folder: Path, cache: bool = False) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise InputError(f"The folder of photographs {folder} does not exist. {_remedy(_root(folder), '480p')}")
        found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        # macOS archives bring a hidden "._name.jpg" beside each photograph.
        self.paths = sorted((path for path in found if not path.name.startswith(".")), key=lambda path: path.stem)
        if not self.paths:
            kinds = ", ".join(sorted(SUFFIXES))
            raise InputError(f"The folder {folder} holds no photographs ({kinds}). {_remedy(_root(folder), '480p')}")
        self.names = [path.stem for path in self.paths]
        self.sizes = [_size(path) for path in self.paths]
        self._decoded = [_eight_bits(path) for path in tqdm(self.paths, f"Decoding {folder}")] if cache else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:
        if self._decoded is not None:
            return self._decoded[index].astype(np.float32) / np.float32(255)
        return images.read(self.paths[index]).pixels

    def describe(self, index: int) -> str:
        return str(self.paths[index])

    def fingerprint(self) -> str:
        listing = "\n".join(f"{path.name} {path.stat().st_size}" for path in self.paths)
        return hashlib.sha256(listing.encode()).hexdigest()


class Arrays:
    """Images in memory, float32 (H, W, 3) in [0, 1]; a mapping is sorted by name, a sequence named by position."""

    def __init__(self, arrays: Sequence[Pixels] | Mapping[str, Pixels]) -> None:
        if isinstance(arrays, Mapping):
            named = dict(sorted(arrays.items()))
        else:
            named = {str(i): array for i, array in enumerate(arrays)}
        if not named:
            raise InputError("There are no images: an empty collection was given where photographs are needed.")
        for name, array in named.items():
            if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.float32:
                raise InputError(
                    f"Image {name} is {array.dtype} of shape {array.shape}; "
                    "expected float32 of shape (H, W, 3), RGB in [0, 1]."
                )
        self.names, self._arrays = list(named), list(named.values())
        self.sizes = [(array.shape[0], array.shape[1]) for array in self._arrays]

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: int) -> Pixels:
        return self._arrays[index]

    def describe(self, index: int) -> str:
        return f"image {self.names[index]}"

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, array in zip(self.names, self._arrays, strict=True):
            digest.update(f"{name} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


def _size(path: Path) -> tuple[int, int]:
    """Height and width from the header alone, as `images.read` will turn the image."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a readable image ({error}); fetch it again or remove it.") from error


def _eight_bits(path: Path) -> Pixels:
    photo = images.read(path)
    if photo.bits != 8:
        raise InputError(f"cache=True keeps 8 bits a channel, but {path} has {photo.bits}; set cache=False.")
    return np.rint(photo.pixels * 255).astype(np.uint8)


def _require_room(photographs: _Images, crop: int | None) -> None:
    small = [i for i, size in enumerate(photographs.sizes) if crop is not None and min(size) < crop]
    if small:
        shown = ", ".join(
            f"{photographs.describe(i)} ({photographs.sizes[i][1]} x {photographs.sizes[i][0]})" for i in small[:5]
        )
        raise InputError(
            f"{len(small)} of {len(photographs)} images are smaller than the crop of {crop} x {crop} pixels: {shown}"
            f"{', ...' if len(small) > 5 else ''}. Leave them out or choose a smaller crop."
        )


def _require_pairs(sources: _Images, targets: _Images) -> None:
    unmatched = sorted(set(sources.names) ^ set(targets.names))
    if sources.names != targets.names:
        raise InputError(
            f"Sources and targets are not pairs: {len(sources)} sources ({sources.describe(0)}, ...), "
            f"{len(targets)} targets ({targets.describe(0)}, ...), without partner: "
            f"{', '.join(unmatched[:5])}{', ...' if len(unmatched) > 5 else ''}. Pairs need equal file names in A "
            "and B; the training folders of the unpaired FiveK package hold different photographs on purpose "
            "(train unpaired, or build pairs with `python -m data_scripts.fivek --pairs`)."
        )
    for i, (ours, theirs) in enumerate(zip(sources.sizes, targets.sizes, strict=True)):
        if ours != theirs:
            raise InputError(
                f"A pair differs in size: {sources.describe(i)} is {ours[1]} x {ours[0]}, "
                f"{targets.describe(i)} is {theirs[1]} x {theirs[0]} pixels; both must be the same photograph."
            )


def _fingerprint(*collections: _Images) -> str:
    return hashlib.sha256("\n".join(each.fingerprint() for each in collections).encode()).hexdigest()


def _root(folder: Path) -> Path:
    """`root` of `root/FiveK_480p/train/A`, for the command that brings the data set."""
    above = folder.resolve().parents
    return above[2] if len(above) > 2 else folder


def _remedy(root: str | Path, size: str) -> str:
    source = "--archive FiveK.zip" if size == "480p" else f"--size {size} --sources DIR --targets DIR"
    return (
        f"Bring it with `python -m data_scripts.fivek --root {root} {source}`, or lay out any two folders of your own "
        f"with `python -m data_scripts.folders --root {root} --a DIR --b DIR`."
    )
