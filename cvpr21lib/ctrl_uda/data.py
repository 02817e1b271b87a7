"""What CTRL-UDA learns from and is judged on: SYNTHIA with labels and depth, real streets without.

    Training      a source frame with labels and depth, and a target image
    Validation    whole target images with their labels at native size, and metric depth if asked for

`open_training` and `open_validation` make them of the data sets on the disk; any `Frames` in memory will do.

Sizes are (width, height), as the experiments name them. Which one belongs to which experiment is the recipe's
business: nothing here has a default for it. The two domains need not agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cvpr21lib.ctrl_uda.label_maps import VOID, LabelMap, label_map
from cvpr21lib.errors import InputError
from cvpr21lib.sampling import Draw, mix
from cvpr21lib.segmentation import stored
from cvpr21lib.segmentation.cityscapes import Cityscapes
from cvpr21lib.segmentation.layout import some
from cvpr21lib.segmentation.mapillary import MapillaryVistas
from cvpr21lib.segmentation.streets import Streets, require_same_size
from cvpr21lib.segmentation.synthia import Synthia

TargetName = Literal["cityscapes", "mapillary"]
LAYOUTS: dict[str, type[Streets]] = {
    "synthia": Synthia,
    "cityscapes": Cityscapes,
    "mapillary": MapillaryVistas,
}

MEAN = np.array([104.00698793, 116.66876762, 122.67891434], np.float32)
"""ImageNet's mean in the order blue, green, red, on 0 ... 255 (official code)."""


class Frames(Protocol):
    """Frames by position: images, and what is known about each pixel."""

    @property
    def names(self) -> Sequence[str]:
        """One for each position."""

    def image(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3), RGB."""

    def ids(self, index: int) -> np.ndarray:
        """uint8 (H, W): the data set's own number of each pixel's class."""

    def depth(self, index: int) -> np.ndarray:
        """float32 (H, W), centimetres; NaN where it is not known."""

    def fingerprint(self) -> str:
        """Changes with the data (for the record)."""


class Source(Dataset[dict[str, Tensor]]):
    """Frames with labels: {"source": (3, h, w) as `normalise` makes it, "label": (h, w) int64, 255 for none,
    "depth": (h, w) float32, inverse}, the latter only with `depth`.

    `size` is (w, h). Everything is stretched to it: the image bicubic, the rest by nearest neighbours.
    """

    def __init__(
        self, frames: Frames, to_classes: LabelMap, size: tuple[int, int], depth: bool = True
    ) -> None:
        require_frames(frames, "source")
        self.frames, self.to_classes, self.size, self.depth = frames, to_classes, require_size(size), depth

    def __len__(self) -> int:
        return len(self.frames.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, ids = self.frames.image(index), self.frames.ids(index)
        depth = self.frames.depth(index) if self.depth else None
        require_agreement(self.frames.names[index], image, ids, depth)
        sample = {
            "source": normalise(stretch(image, self.size)),
            "label": torch.from_numpy(self.to_classes(nearest(ids, self.size)).astype(np.int64)),
        }
        if depth is not None:
            # Depth goes through OpenCV and ids through Pillow (official code): their nearest pixels differ.
            near = cv2.resize(depth, self.size, interpolation=cv2.INTER_NEAREST)
            sample["depth"] = torch.from_numpy(inverse(near))
        return sample

    def fingerprint(self) -> str:
        """The frames' (for the record)."""
        return self.frames.fingerprint()


class Target(Dataset[dict[str, Tensor]]):
    """Frames without labels: {"target": (3, h, w) as `normalise` makes it}; `size` is (w, h).

    With `pad` an image keeps its shape, and is filled up at the bottom or on the right (Mapillary's have many
    shapes); otherwise it is stretched.
    """

    def __init__(self, frames: Frames, size: tuple[int, int], pad: bool = False) -> None:
        require_frames(frames, "target")
        self.frames, self.size, self.pad = frames, require_size(size), pad

    def __len__(self) -> int:
        return len(self.frames.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"target": sized(self.frames.image(index), self.size, self.pad)}

    def fingerprint(self) -> str:
        """The frames' (for the record)."""
        return self.frames.fingerprint()


class Training(Dataset[dict[str, Tensor]]):
    """`dataset[Draw(index, seed)]` is source frame `index` and a target drawn by `seed`, in one sample.

    An epoch has each source frame once. Targets are drawn independently (the official code shuffles them and
    deals them out).
    """

    def __init__(self, source: Source, target: Target) -> None:
        self.source, self.target = source, target

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        other = mix(draw.seed, "target") % len(self.target)
        return {**self.source[draw.index], **self.target[other]}

    def fingerprint(self) -> str:
        """SHA-256 over those of both domains (for the record)."""
        both = f"{self.source.fingerprint()}\n{self.target.fingerprint()}"
        return hashlib.sha256(both.encode()).hexdigest()


class Validation(Dataset[dict[str, Any]]):
    """Whole frames in order: {"name": str, "image": (3, h, w) tensor as `normalise` makes it, "label": uint8
    array (H, W), 255 for none, "depth": float32 array (H, W), metres, NaN where unknown}, the latter only
    with `depth`.

    The image has the size (w, h), labels and depth are native. With `pad` the image is filled up as in
    `Target`, and the labels, with void, in the same direction to the same shape: stretched to (H, W), the
    prediction for the one fits the other (official code, for Mapillary).
    """

    def __init__(
        self,
        frames: Frames,
        to_classes: LabelMap,
        size: tuple[int, int],
        pad: bool = False,
        depth: bool = False,
    ) -> None:
        require_frames(frames, "validation")
        if pad and depth:
            raise InputError("Depth of padded images is not evaluated; ask for one of pad and depth.")
        self.frames, self.to_classes, self.size = frames, to_classes, require_size(size)
        self.pad, self.depth = pad, depth

    def __len__(self) -> int:
        return len(self.frames.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, image, ids = self.frames.names[index], self.frames.image(index), self.frames.ids(index)
        depth = self.frames.depth(index) if self.depth else None
        require_agreement(name, image, ids, depth)
        label = self.to_classes(ids)
        sample = {
            "name": name,
            "image": sized(image, self.size, self.pad),
            "label": pad_to_shape(label, self.size, VOID) if self.pad else label,
        }
        return sample if depth is None else {**sample, "depth": depth / np.float32(100)}

    def fingerprint(self) -> str:
        """The frames' (for the record)."""
        return self.frames.fingerprint()


class Folders:
    """The frames of one split on the disk.

    `ids` and `depth` say what will be asked for. Files that are missing are named now, not in the middle
    of an epoch; damage inside of a file shows when it is read.
    """

    def __init__(self, layout: Streets, split: str, ids: bool = True, depth: bool = False) -> None:
        self.layout, self.split = layout, split
        self.names = [frame.name for frame in layout.frames(split)]
        self._files = {"image": self._paths(lambda name: (layout.image(split, name),))}
        if ids:
            self._files["label"] = self._paths(lambda name: (layout.label(split, name),))
        if depth:
            self._files["depth"] = self._paths(lambda name: layout.depth_files(split, name))
        for what, paths in self._files.items():
            self._refuse_missing(what, paths)

    def image(self, index: int) -> np.ndarray:
        return stored.read_rgb(self.layout.image(self.split, self.names[index]))

    def ids(self, index: int) -> np.ndarray:
        return self.layout.ids(self.split, self.names[index])

    def depth(self, index: int) -> np.ndarray:
        return self.layout.depth(self.split, self.names[index])

    def fingerprint(self) -> str:
        """SHA-256 over names and sizes in bytes of all files that are read: the same wherever they lie."""
        digest = hashlib.sha256()
        for index, name in enumerate(self.names):
            sizes = [path.stat().st_size for paths in self._files.values() for path in paths[index]]
            digest.update(f"{name} {sizes}\n".encode())
        return digest.hexdigest()

    def _paths(self, place: Callable[[str], tuple[Path, ...]]) -> list[tuple[Path, ...]]:
        return [place(name) for name in self.names]

    def _refuse_missing(self, what: str, paths: Sequence[Sequence[Path]]) -> None:
        missing = [str(path) for each in paths for path in each if not path.is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} {what} files of {len(self.names)} {self.split} frames are missing: "
                f"{some(missing)}. {self.layout.remedy(self.layout.root)}"
            )


def open_training(
    data_root: str | Path | None,
    target: TargetName,
    num_classes: int,
    source_size: tuple[int, int],
    target_size: tuple[int, int],
    depth: bool = True,
    corrected: bool = False,
) -> Training:
    """SYNTHIA and the training images of `target`. `corrected` is the label map of that name."""
    classes = label_map("synthia", num_classes, corrected)
    source = Source(Folders(find(data_root, "synthia"), "train", depth=depth), classes, source_size, depth)
    return Training(source, open_target(data_root, target, target_size))


def open_target(data_root: str | Path | None, target: TargetName, size: tuple[int, int]) -> Target:
    """The training images of `target`, in the order of their names."""
    return Target(Folders(find(data_root, target), "train", ids=False), size, pad=target == "mapillary")


def open_validation(
    data_root: str | Path | None,
    target: TargetName,
    num_classes: int,
    size: tuple[int, int],
    depth: bool = False,
) -> Validation:
    """The validation images of `target` with labels; of Cityscapes also with depth, if asked for."""
    frames = Folders(find(data_root, target), "val", depth=depth)
    return Validation(frames, label_map(target, num_classes), size, pad=target == "mapillary", depth=depth)


def find(data_root: str | Path | None, dataset: Literal["synthia"] | TargetName) -> Streets:
    """The data set below, or at, `data_root`; `InputError` if it is not complete."""
    if dataset not in LAYOUTS:
        raise InputError(f"dataset is {dataset!r}; it can be {', '.join(LAYOUTS)}.")
    return LAYOUTS[dataset].find(data_root)


def normalise(image: np.ndarray) -> Tensor:
    """RGB (H, W, 3) on 0 ... 255 as a float32 tensor (3, H, W): blue, green, red, minus `MEAN`."""
    bgr = image[..., ::-1].astype(np.float32) - MEAN
    return torch.from_numpy(np.ascontiguousarray(bgr.transpose(2, 0, 1)))


def sized(image: np.ndarray, size: tuple[int, int], pad: bool) -> Tensor:
    """The network's input (3, h, w) from uint8 RGB (H, W, 3), stretched or padded to `size`, (w, h)."""
    return normalise(resize_with_pad(image, size) if pad else stretch(image, size))


def stretch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic to `size`, (w, h), by Pillow: uint8 (h, w, 3)."""
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values (H, W) of the nearest pixels at `size`, (w, h), by Pillow."""
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.NEAREST))


def resize_with_pad(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image (H, W, 3), as large as fits into `size`, (w, h), in its upper left corner; else black."""
    height, width = image.shape[:2]
    # In floating point and cut off, as the official code does: the last row or column depends on it.
    if width / height > size[0] / size[1]:
        inside = size[0], max(1, int(height * (size[0] / width)))
    else:
        inside = max(1, int(width * (size[1] / height))), size[1]
    filled = np.zeros((size[1], size[0], 3), np.uint8)
    filled[: inside[1], : inside[0]] = stretch(image, inside)
    return filled


def pad_to_shape(values: np.ndarray, size: tuple[int, int], fill: int) -> np.ndarray:
    """Values (H, W), not scaled, with `fill` below or on the right until the shape is that of `size`."""
    height, width = values.shape
    shape = size[0] / size[1]
    rows, columns = (height, int(shape * height)) if shape > width / height else (int(width / shape), width)
    filled = np.full((max(rows, height), max(columns, width)), fill, values.dtype)
    filled[:height, :width] = values
    return filled


def inverse(centimetres: np.ndarray) -> np.ndarray:
    """Inverse depth 65536 / (z + 1), float32, of z in centimetres: 648.9 at 1 m, 1.0 for SYNTHIA's sky."""
    return np.float32(65536) / (centimetres.astype(np.float32) + np.float32(1))


def require_frames(frames: Frames, which: str) -> None:
    """Refuse an empty domain."""
    if not len(frames.names):
        raise InputError(f"There are no {which} frames; name a data set that has some.")


def require_size(size: tuple[int, int]) -> tuple[int, int]:
    """Refuse what is no size."""
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"size is {size}; expected width and height in pixels, at least 1.")
    return size


def require_agreement(name: str, image: np.ndarray, ids: np.ndarray, depth: np.ndarray | None) -> None:
    """Refuse a frame whose pictures differ in size."""
    pictures = {"image": image, "label": ids, **({} if depth is None else {"depth": depth})}
    require_same_size({f"the {what} of {name}": picture.shape for what, picture in pictures.items()})
