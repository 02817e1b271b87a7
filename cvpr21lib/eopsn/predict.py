"""Panoptic maps of photographs: one, a data set's, or a folder's as files that `evaluate` scores.

net = trained.load("net.safetensors", k=20)
folder(net, "val2017", "predictions.json", classes.of_coco(20))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from cvpr21lib import inference
from cvpr21lib.eopsn import classes as coco_classes
from cvpr21lib.eopsn import data, merge, trained
from cvpr21lib.eopsn.classes import Classes
from cvpr21lib.eopsn.merge import Instance, Rule
from cvpr21lib.eopsn.model import PanopticFPN, bgr, stack
from cvpr21lib.eopsn.quality import OpenQuality
from cvpr21lib.eopsn.trained import Method
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import coco2017, panoptic, stored
from cvpr21lib.segmentation.panoptic import Annotation, ImageId, Panoptic

SUFFIXES = (".jpg", ".jpeg", ".png")


def panoptic_map(
    net: PanopticFPN,
    image: Tensor,
    size: tuple[int, int],
    classes: Classes,
    rule: Rule | None = None,
    official: bool = False,
) -> Panoptic:
    """What the network sees in an image (3, H, W), BGR less the mean, as a map of the original `size`.

    Segments have COCO's categories, or -1 for whatever is unknown. `official` is that of `detect`.
    """
    device = next(net.parameters()).device
    prediction = net.predict(stack([image.to(device)], data.DIVISOR), [size], official)[0]
    found = prediction.detections
    instances = [
        Instance(patch.pixels.cpu().numpy(), patch.top, patch.left, score, classes.category(label))
        for patch, score, label in zip(
            prediction.masks, found.scores.tolist(), found.labels.tolist(), strict=True
        )
    ]
    return merge.merge(instances, prediction.semantic.cpu().numpy(), classes.stuff, rule).panoptic


def score(
    net: PanopticFPN,
    test: data.Test,
    classes: Classes,
    fabric: Fabric,
    rule: Rule | None = None,
    official: bool = False,
    workers: int = 0,
    progress: bool = False,
) -> dict[str, float]:
    """`OpenQuality.numbers` on a test set. Every process takes its share of the images."""
    path = test.layout.panoptic("val")
    truths, quality = panoptic.read_json(path), OpenQuality(classes.categories, classes.unknown)
    pictures: DataLoader[Any] = DataLoader(
        test,
        batch_size=None,
        sampler=range(fabric.global_rank, len(test), fabric.world_size),
        collate_fn=_as_it_is,
        num_workers=workers,
    )
    shown = progress and fabric.global_rank == 0
    twin = net.folded()
    for file, image in tqdm(pictures, "Judging panoptic maps", unit="image", leave=False, disable=not shown):
        target = panoptic.load(truths.images[file.id], path.with_suffix(""))
        quality.add(target, panoptic_map(twin, image, file.size, classes, rule, official))
    quality.counts = _sum(quality.counts, fabric)
    found = _sum(np.array([quality.found[number] for number in quality.unknown]).reshape(-1, 2), fabric)
    quality.found = dict(zip(quality.unknown, found, strict=True))
    return quality.numbers()


def folder(
    net: PanopticFPN,
    images: str | Path,
    out: str | Path,
    classes: Classes,
    *,
    listed: str | Path | None = None,
    side: int = 800,
    longest: int = 1333,
    rule: Rule | None = None,
    official: bool = False,
    progress: bool = True,
) -> Path:
    """Segment every photograph of a folder, and write COCO's panoptic format. Returns `out`.

    Args:
        out: a JSON file, which is written last; the PNGs go into a folder of its name.
        listed: a JSON file of COCO's that gives the images their ids, and says which are wanted; without it,
            an image's id is its name, as a number if it is one.
        side, longest: as of `data.Test`.

    Raises:
        InputError: no photographs, some that are listed but missing, or a damaged one.
    """
    images, out = Path(images), Path(out)
    if out.suffix != ".json":
        raise InputError(f"out is {out}; expected the name of a JSON file, which the PNGs' folder shares.")
    wanted = _listed(images) if listed is None else _wanted(images, Path(listed))
    pngs = out.with_suffix("")
    pngs.mkdir(parents=True, exist_ok=True)
    made: dict[ImageId, Annotation] = {}
    twin = net.folded()
    for number, path in tqdm(wanted.items(), "Segmenting", unit="image", disable=not progress):
        pixels = stored.read_rgb(path)
        size = (pixels.shape[0], pixels.shape[1])
        pred = panoptic_map(twin, _input(pixels, side, longest), size, classes, rule, official)
        name = f"{path.stem}.png"
        panoptic.write_png(pngs / name, pred.ids)
        made[number] = Annotation(name, pred.segments)
    panoptic.write_json(out, made)
    return out


def command(
    photos: Path,
    weights: Path,
    out: Path,
    *,
    k: int = 20,
    method: Method = "eopsn",
    clusters: int = trained.CLUSTERS,
    listed: Path | None = None,
    official: bool = False,
    device: str | None = None,
) -> str:
    """`folder` for the command line, with weights of ours or official ones; says what was done."""
    net = trained.load(weights, trained.config(method, k, clusters), k).to(inference.device(device))
    made = folder(net, photos, out, coco_classes.of_coco(k), listed=listed, official=official)
    return f"{len(panoptic.read_json(made).images):,} photographs segmented: {made}, and PNGs beside it"


def _input(pixels: np.ndarray, side: int, longest: int) -> Tensor:
    """A photograph, uint8 (H, W, 3) RGB, as the network takes it."""
    height, width = data.resized((pixels.shape[0], pixels.shape[1]), side, longest)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return bgr(torch.from_numpy(np.array(resized)).permute(2, 0, 1))


def _listed(images: Path) -> Mapping[ImageId, Path]:
    if not images.is_dir():
        raise InputError(f"the folder of photographs {images} does not exist.")
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{images} holds no photographs ({', '.join(SUFFIXES)}).")
    found: dict[ImageId, Path] = {}
    for path in paths:
        number: ImageId = int(path.stem) if path.stem.isdecimal() else path.stem
        if number in found:
            raise InputError(f"{found[number]} and {path} have the same id, {number}; rename one of them.")
        found[number] = path
    return found


def _wanted(images: Path, listed: Path) -> Mapping[ImageId, Path]:
    files = coco2017.listed(listed, coco2017.read_json(listed))
    missing = [one.file_name for one in files if not (images / one.file_name).is_file()]
    if missing:
        raise InputError(
            f"{len(missing):,} of {len(files):,} images of {listed} are missing in {images}: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}."
        )
    return {one.id: images / one.file_name for one in files}


def _sum(counts: np.ndarray, fabric: Fabric) -> np.ndarray:
    total = fabric.all_reduce(torch.from_numpy(counts), reduce_op="sum")
    assert isinstance(total, Tensor)
    return total.cpu().numpy()


def _as_it_is(picture: Any) -> Any:
    return picture
