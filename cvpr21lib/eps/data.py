"""What EPS trains on, makes masks of, and is judged by.

    Training      random crops of image and saliency, with the image's labels
    Inference     whole images with their labels, to make pseudo-masks of
    Validation    the same with ground truth, to judge them by

Each works on any source (`cvpr21lib.eps.sources`): `Folders` of VOC 2012 or COCO 2014, or `Scenes` in memory.

A training set is asked with a `Draw(index, seed)`. Every random choice of that sample comes from
`random.Random(seed)`, so one draw gives one crop in any worker, process or resumed run.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cvpr21lib.eps.resnet38 import normalise
from cvpr21lib.eps.sources import Folders, Scenes, Source
from cvpr21lib.errors import InputError
from cvpr21lib.sampling import Draw, mix
from cvpr21lib.segmentation import crops
from cvpr21lib.segmentation.coco import COCO2014
from cvpr21lib.segmentation.layout import Layout
from cvpr21lib.segmentation.stored import DamagedFile
from cvpr21lib.segmentation.voc import VOC2012

__all__ = [
    "COCO_CROPS",
    "VOC_CROPS",
    "Augmentation",
    "Folders",
    "Inference",
    "Scenes",
    "Source",
    "Training",
    "Validation",
    "find",
    "find_saliency",
]

DatasetName = Literal["voc12", "coco14"]
OnDamage = Literal["stop", "skip"]

LAYOUTS: dict[str, type[Layout]] = {"voc12": VOC2012, "coco14": COCO2014}
TRAINING_SPLIT = {"voc12": "train_aug", "coco14": "train"}
VALIDATION_SPLIT = {"voc12": "train", "coco14": "train"}
"""On whose images pseudo-masks are judged."""

ATTEMPTS = 20
"""Damaged images in a row after which a run stops even if it should skip them."""


@dataclass(frozen=True)
class Augmentation:
    """How a training crop is made; these are the official values for VOC."""

    long_side: tuple[int, int] | None = (256, 512)
    """Range of the longer side after resizing, pixels; None: as it is."""
    crop: int | None = 448
    """Side of the crop, pixels, filled up around smaller images; None: the whole image."""
    flip: bool = True
    """Mirror left-right with probability one half."""
    jitter: tuple[float, float, float, float] | None = (0.3, 0.3, 0.3, 0.1)
    """Largest change of brightness, contrast and saturation (factors), and of hue (share of the circle)."""


VOC_CROPS = Augmentation()
COCO_CROPS = Augmentation(long_side=(256, 448), crop=321)


class Training(Dataset[dict[str, Tensor]]):
    """Crops in the official way: resize, mirror, change colours, normalise, cut.

    `dataset[Draw(index, seed)]` is {"image": (3, s, s) normalised, "saliency": (1, s, s) in [0, 1],
    "label": (C,) in {0, 1}}, all float32. Around an image smaller than the crop both image and saliency are
    0: the mean colour, not salient. `saliency=False`, for the baseline, leaves that entry out and the rest as
    it is.

    `on_damage="skip"` replaces a sample whose image or saliency map cannot be decoded by another one, drawn
    from the same seed; `damaged` names those met, by whichever loader process. With "stop" it is an error.
    """

    def __init__(
        self,
        source: Source,
        augmentation: Augmentation = VOC_CROPS,
        saliency: bool = True,
        on_damage: OnDamage = "stop",
    ) -> None:
        if saliency and not source.has_saliency:
            raise InputError(
                "EPS learns from saliency, but the source has none; name the folder of its maps."
            )
        if on_damage not in get_args(OnDamage):
            raise InputError(f"on_damage is {on_damage!r}; it can be {', '.join(get_args(OnDamage))}.")
        self.source, self.augmentation, self.saliency, self.on_damage = (
            source,
            augmentation,
            saliency,
            on_damage,
        )
        self._met = torch.zeros(len(source.names), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.source.names)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        for _ in range(ATTEMPTS):
            try:
                return self._sample(draw)
            except DamagedFile as error:
                if self.on_damage == "stop":
                    raise
                damage = error
            self._note(draw.index, damage)
            draw = Draw(mix(draw.seed, "instead") % len(self), mix(draw.seed, "again"))
        raise InputError(f"{ATTEMPTS} images in a row are damaged, the last one: {damage}") from damage

    @property
    def damaged(self) -> list[str]:
        """The images met so far of which a file could not be decoded."""
        return [self.source.names[index] for index in self._met.nonzero().flatten().tolist()]

    def fingerprint(self) -> str:
        """The source's (for the record)."""
        return self.source.fingerprint()

    def _sample(self, draw: Draw) -> dict[str, Tensor]:
        rng, how = random.Random(draw.seed), self.augmentation
        long = None if how.long_side is None else rng.randint(*how.long_side)
        mirrored = how.flip and rng.random() < 0.5
        image = _turned(self.source.image(draw.index), long, mirrored)
        if how.jitter is not None:
            image = crops.change_colours(rng, image, *how.jitter)
        window = crops.place(rng, image.height, image.width, how.crop)
        sample = {"image": crops.cut(normalise(np.asarray(image)), window)}
        if self.saliency:
            saliency = _turned(self.source.saliency(draw.index), long, mirrored)
            sample["saliency"] = crops.cut(torch.tensor(np.asarray(saliency))[None] / 255, window)
        return {**sample, "label": torch.from_numpy(self.source.label(draw.index))}

    def _note(self, index: int, damage: DamagedFile) -> None:
        if not self._met[index]:
            self._met[index] = True
            warnings.warn(f"skipped: {damage}", stacklevel=2)


class Inference(Dataset[dict[str, Any]]):
    """Whole images in order: {"name": str, "image": uint8 (H, W, 3), "label": (C,) float32 array}.

    A damaged image is an error here: its mask must not be missing silently.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source = self.source
        return {"name": source.names[index], "image": source.image(index), "label": source.label(index)}

    def fingerprint(self) -> str:
        """The source's (for the record)."""
        return self.source.fingerprint()


class Validation(Inference):
    """The same with "mask": uint8 (H, W), 0 background, c + 1 class c, 255 void."""

    def __init__(self, source: Source) -> None:
        if not source.has_masks:
            raise InputError("Masks are judged by ground truth, but the source has none; ask for its masks.")
        super().__init__(source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "mask": self.source.mask(index)}


def find(data_root: str | Path | None, dataset: DatasetName) -> Layout:
    """The data set "voc12" or "coco14" below, or at, `data_root`; `InputError` if it is not complete."""
    if dataset not in LAYOUTS:
        raise InputError(f"dataset is {dataset!r}; it can be {', '.join(LAYOUTS)}.")
    return LAYOUTS[dataset].find(data_root)


def find_saliency(layout: Layout, saliency_root: str | Path | None = None) -> Path:
    """The folder of saliency maps: `saliency_root`, or where `data_scripts.saliency` puts the user's own.

    A fallback is used only if its folder is named.
    """
    folder = saliency_folder(layout) if saliency_root is None else Path(saliency_root)
    if folder.is_dir():
        return folder
    fallback = saliency_folder(layout, fallback=True)
    made = f" There is a fallback: to use it, set saliency_root to {fallback}." if fallback.is_dir() else ""
    dataset = next(name for name, kind in LAYOUTS.items() if isinstance(layout, kind))
    raise InputError(
        f"The folder of saliency maps {folder} does not exist.{made} Bring your maps with `python -m "
        f"data_scripts.saliency --root {layout.root} --dataset {dataset} --source DIR`, or make worse ones "
        "with --fallback instead of --source."
    )


def saliency_folder(layout: Layout, fallback: bool = False) -> Path:
    """Where `data_scripts.saliency` puts the maps of a data set: beside its folder."""
    return layout.root.with_name(f"{layout.root.name}_saliency" + ("_fallback" if fallback else ""))


def _turned(pixels: np.ndarray, long: int | None, mirrored: bool) -> Image.Image:
    picture = Image.fromarray(pixels)
    picture = picture if long is None else crops.scale(picture, long)
    return crops.mirror(picture) if mirrored else picture
