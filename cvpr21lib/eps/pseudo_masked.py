"""What stage 2 trains on: random crops of images with their pseudo-masks, as deeplab-pytorch makes them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from cvpr21lib.eps import mask_folder
from cvpr21lib.eps.resnet38 import normalise
from cvpr21lib.errors import InputError
from cvpr21lib.sampling import Draw
from cvpr21lib.segmentation import masks, stored
from cvpr21lib.segmentation.layout import Layout, some
from cvpr21lib.segmentation.masks import VOID


class PseudoMasked(Dataset[dict[str, Tensor]]):
    """The images of one split of a data set with the masks in `folder`, one NAME.png each.

    `dataset[Draw(index, seed)]` is {"image": (3, s, s) normalised, "mask": (s, s) int64, 255 void}: resized
    by one of the factors `zoom`, filled up on the right and below to the size of the crop (image: mean
    colour, mask: void), cut at random, and mirrored by chance.

    All that is missing, and a mask of another size than its image, is named at once.
    """

    def __init__(
        self,
        layout: Layout,
        split: str,
        folder: Path,
        crop: int = 321,
        zoom: Sequence[float] = (1.0,),
        progress: bool = True,
    ) -> None:
        self.layout, self.names, self.folder = layout, layout.names(split), folder
        self.num_classes = len(layout.classes) + 1
        self.crop, self.zoom = crop, zoom
        self.masks_fingerprint = self._check(progress)
        """SHA-256 over names and masks' fingerprints (or their bytes, where they carry none)."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng, name = random.Random(draw.seed), self.names[draw.index]
        image = normalise(stored.read_rgb(self.layout.image(name)))
        mask = torch.from_numpy(masks.read(self._mask(name), self.num_classes).copy())
        return sample(rng, image, mask, self.crop, self.zoom)

    def fingerprint(self) -> str:
        """SHA-256 over the masks and the sizes in bytes of the images."""
        digest = hashlib.sha256(self.masks_fingerprint.encode())
        for name in self.names:
            digest.update(f"{name} {self.layout.image(name).stat().st_size}\n".encode())
        return digest.hexdigest()

    def _mask(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def _check(self, progress: bool) -> str:
        missing = [name for name in self.names if not self._mask(name).is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(self.names)} training images have no pseudo-mask in {self.folder}: "
                f"{some(missing)}; make them with stage 1 first, or name the right folder"
            )
        digest, unlike = hashlib.sha256(), []
        for name in tqdm(self.names, "Checking masks", delay=2, leave=False, disable=not progress):
            path = self._mask(name)
            with stored.header(path) as mask:
                made_by, shape = mask.info.get(mask_folder.KEY), (mask.height, mask.width)
            if shape != (size := stored.size(self.layout.image(name))):
                unlike.append(f"{name} ({shape[0]} x {shape[1]} instead of {size[0]} x {size[1]})")
            digest.update(f"{name} {made_by or hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        if unlike:
            raise InputError(
                f"{len(unlike)} of {len(self.names)} pseudo-masks in {self.folder} differ in size from their "
                f"images: {some(unlike)}"
            )
        return digest.hexdigest()


def sample(
    rng: random.Random, image: Tensor, mask: Tensor, crop: int, zoom: Sequence[float]
) -> dict[str, Tensor]:
    """One training sample of a normalised image (3, H, W) and its mask (H, W) uint8; see `PseudoMasked`."""
    factor = rng.choice(zoom)
    size = [max(1, int(side * factor)) for side in mask.shape]
    image = F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
    mask = F.interpolate(mask[None, None], size, mode="nearest-exact")[0, 0]
    below, right = (max(0, crop - side) for side in size)
    image, mask = F.pad(image, (0, right, 0, below)), F.pad(mask, (0, right, 0, below), value=VOID)
    top, left = (rng.randint(0, side - crop) for side in mask.shape)
    window = (..., slice(top, top + crop), slice(left, left + crop))
    image, mask = image[window], mask[window]
    if rng.random() < 0.5:
        image, mask = image.flip(2), mask.flip(1)
    return {"image": image.contiguous(), "mask": mask.long()}
