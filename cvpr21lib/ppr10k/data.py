"""What PPR10K's recipe trains and is judged on: augmented views of portraits, and whole photographs.

A training set is asked with a `Draw(index, seed)` instead of a plain index. Every random choice of that
sample comes from `random.Random(seed)`, so one draw gives one sample in any worker, process or resumed run.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import index, photographs, views
from cvpr21lib.ppr10k.index import VERSIONS, Expert, Index
from cvpr21lib.ppr10k.photographs import Source
from cvpr21lib.sampling import Draw

Resize = Literal["official", "bilinear"]


class Views(Dataset[dict[str, Tensor]]):
    """Views of training photographs, each version of a photograph being one item (53,250 in all).

    `dataset[Draw(index, seed)]` is, float32 in [0, 1],

    - {"source": (3, S, S), "target": (3, S, S), "mask": (1, S, S)} with S = `size`: the same random window of
      60-100 % of each side, resized to a square, mirrored with probability one half (if `flip`);
    - with `glc`, S = `crop`: a random square out of the whole photograph resized to `size` x `size`, and
      {"other": (3, S, S), "corners": (4,) int64}, another square, out of a version of the same photograph
      that is drawn uniformly and may be the same one. `corners` are the squares' first rows and columns
      h1, w1, h2, w2. Nothing is mirrored (official code).

    `source`: an index (its training part), or `Shot`s in memory by name.
    `expert`: whose retouching is the target; photographs in memory have one target only.
    `resize`: without `glc`, as the official code does (see `views`), or everything by OpenCV's bilinear
    interpolation. With `glc` that is the official way.
    `versions`: how many source versions of each photograph to use: 6 (official), or 1, the original alone.
    `cache`: read decoded photographs where `data_scripts.ppr10k --cache` has kept them.
    """

    def __init__(
        self,
        source: Source,
        expert: Expert = "a",
        glc: bool = False,
        size: int = 448,
        crop: int = 336,
        resize: Resize = "official",
        versions: int = VERSIONS,
        flip: bool = True,
        cache: bool = True,
    ) -> None:
        self.photographs = photographs.open(source, "train", expert, cache)
        self.glc, self.size, self.crop = glc, size, crop
        self.resize, self.versions, self.flip = resize, versions, flip
        self._check()

    def __len__(self) -> int:
        return len(self.photographs.names) * self.versions

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        photo, version = divmod(draw.index, self.versions)
        sample = self._two_views if self.glc else self._one_view
        return sample(random.Random(draw.seed), photo, version)

    def fingerprint(self) -> str:
        """SHA-256 over all photographs that this set reads (for the record)."""
        return self.photographs.fingerprint(self.versions)

    def _one_view(self, rng: random.Random, photo: int, version: int) -> dict[str, Tensor]:
        pictures = self._pictures(photo, version)
        of_source, of_others = views.RESIZE[self.resize]
        window = views.free_window(rng, *pictures["source"].shape[:2])
        mirrored = self.flip and rng.random() < 0.5
        sample = {}
        for name, picture in pictures.items():
            resize = of_source if name == "source" else of_others
            resized = resize(views.cut(picture, window), self.size)
            sample[name] = views.tensor(views.mirror(resized) if mirrored else resized)
        return sample

    def _two_views(self, rng: random.Random, photo: int, version: int) -> dict[str, Tensor]:
        pictures = self._pictures(photo, version)
        pictures["other"] = self.photographs.source(photo, rng.randrange(self.versions))
        first, second = (views.square_window(rng, self.size, self.crop) for _ in range(2))
        sample = {}
        for name, picture in pictures.items():
            resized = views.bilinear(picture, self.size)
            sample[name] = views.tensor(views.cut(resized, second if name == "other" else first))
        return {**sample, "corners": torch.tensor([*first[:2], *second[:2]])}

    def _pictures(self, photo: int, version: int) -> dict[str, views.Pixels]:
        return {
            "source": self.photographs.source(photo, version),
            "target": self.photographs.target(photo),
            "mask": self.photographs.mask(photo),
        }

    def _check(self) -> None:
        if self.resize not in views.RESIZE:
            raise InputError(f"resize is {self.resize!r}; it can be {' or '.join(views.RESIZE)}")
        if self.glc and not 1 <= self.crop <= self.size:
            raise InputError(f"crop is {self.crop} pixels; it must be from 1 to size, {self.size} pixels.")
        if self.versions < 1:
            raise InputError(f"versions is {self.versions}; it must be at least 1.")
        few = [
            f"{name} ({versions})"
            for name, versions in zip(self.photographs.names, self.photographs.versions, strict=True)
            if versions < self.versions
        ]
        if few:
            raise InputError(
                f"{self.versions} source versions of each photograph are asked for, but {len(few)} of "
                f"{len(self.photographs.names)} photographs have fewer ({', '.join(few[:3])}); choose "
                "versions=1, or prepare the data again with all of source_aug_6."
            )


class Photos(Dataset[dict[str, Any]]):
    """Whole photographs for validation, in the order of their names.

    `dataset[i]` is {"name": "<group>_<number>", "group": the name up to the first "_", "source": (3, H, W),
    "target": (3, H, W), "mask": (1, H, W)}; images float32 in [0, 1], the source as it was, not augmented.

    `source`: an index (its validation part), or `Shot`s in memory by name.
    """

    def __init__(self, source: Source, expert: Expert = "a", cache: bool = True) -> None:
        self.photographs = photographs.open(source, "val", expert, cache)

    def __len__(self) -> int:
        return len(self.photographs.names)

    def __getitem__(self, i: int) -> dict[str, Any]:
        name = self.photographs.names[i]
        return {
            "name": name,
            "group": name.split("_")[0],
            "source": views.tensor(self.photographs.source(i)),
            "target": views.tensor(self.photographs.target(i)),
            "mask": views.tensor(self.photographs.mask(i)),
        }

    def fingerprint(self) -> str:
        """SHA-256 over all photographs that this set reads (for the record)."""
        return self.photographs.fingerprint(1)


def find(data_root: str | Path | None) -> Index:
    """The index of the prepared data set: `data_root/PPR10K_360p/index.json`, or `data_root/index.json`."""
    if data_root is None:
        raise InputError(
            f"data_root is not set: name the folder that holds {index.FOLDER}. {_remedy('data')}"
        )
    places = [Path(data_root) / index.FOLDER, Path(data_root)]
    for place in places:
        if (place / index.NAME).is_file():
            return index.read(place)
    looked = ", ".join(str(place / index.NAME) for place in places)
    raise InputError(f"The data set PPR10K was not found; looked for {looked}. {_remedy(data_root)}")


def _remedy(root: str | Path) -> str:
    return (
        "Download the 360p images and masks by hand (github.com/csjliang/PPR10K has the links), "
        f"then prepare them with `{index.command(root)}`."
    )
