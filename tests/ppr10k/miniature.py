"""A small PPR10K: a few groups of small portraits, laid out as the real data set is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from data_scripts import ppr10k

GROUPS = {0: 2, 7: 1, 1356: 2, 1680: 1}
"""Photographs by group: three to train on, three to validate."""
SIZE = 36, 54


def download(
    root: Path, groups: Mapping[int, int] = GROUPS, size: tuple[int, int] = SIZE, split: bool = False
) -> Path:
    """Lay the photographs out below `root`, which is returned, as they are published: `masks_360p`, and
    `train_val_images_tif_360p` with `source`, `source_aug_6`, `target_a`, `target_b` and `target_c`.

    `split`: as the official code wants them instead, `train/` and `val/` with `source_aug` or `source`,
    targets and `masks`. Every second photograph is upright. `size` is (height, width) in pixels.
    """
    for group, count in groups.items():
        for number in range(count):
            _photograph(root, group, number, size if number % 2 == 0 else size[::-1], split)
    return root


def prepared(root: Path, **options: object) -> Path:
    """The same, and indexed: what `find` takes for its `data_root`."""
    return index(download(root, **options))


def index(root: Path) -> Path:
    """Index what lies in `root` by now."""
    ppr10k.prepare(root, images=[str(root)], partial=True, workers=1)
    return root


def _photograph(root: Path, group: int, number: int, size: tuple[int, int], split: bool) -> None:
    name, train = f"{group}_{number}", group < 1356
    rng = np.random.default_rng((group, number))
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
    phases = rng.uniform(0, 6, 3)
    scene = 0.5 + 0.3 * np.sin(rows[..., None] / 9 + phases) * np.cos(columns[..., None] / 7 + phases)
    person = ((rows / size[0] - 0.6) / 0.4) ** 2 + ((columns / size[1] - 0.5) / 0.25) ** 2 < 1
    scene[person] = scene[person] * [0.3, 0.25, 0.2] + [0.6, 0.45, 0.35]
    folder = {kind: root / "train_val_images_tif_360p" / kind for kind in ("source", "source_aug_6")}
    if split:
        part = root / ("train" if train else "val")
        folder = {"source": part / "source", "source_aug_6": part / "source_aug"}
    flat = 0.2 + 0.5 * scene
    if not (split and train):
        _tiff(folder["source"] / f"{name}.tif", flat, np.uint16)
    if train:
        for version in range(6):
            light = rng.uniform(0.8, 1.2, 3) if version else 1
            _tiff(
                folder["source_aug_6"] / f"{name}{f'_{version}' if version else ''}.tif",
                flat * light,
                np.uint16,
            )
    for expert, gamma in (("a", 1.0), ("b", 0.9), ("c", 1.1)):
        _tiff(folder["source"].parent / f"target_{expert}" / f"{name}.tif", scene**gamma, np.uint8)
    masks = folder["source"].parent / "masks" if split else root / "masks_360p"
    masks.mkdir(parents=True, exist_ok=True)
    Image.fromarray(person.astype(np.uint8) * 255).save(masks / f"{name}.png")


def _tiff(path: Path, pixels: np.ndarray, dtype: type) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.rint(np.clip(pixels, 0, 1) * np.iinfo(dtype).max).astype(dtype)
    tifffile.imwrite(path, values, photometric="rgb", metadata=None)
