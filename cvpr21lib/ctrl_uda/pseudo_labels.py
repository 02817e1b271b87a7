"""Self-training's labels: what the network is sure of on the target, as label masks on the disk.

A pixel whose likeliest class has a probability of at least 0.9 keeps it; all others become void. One
threshold serves all classes. The official code writes eight bytes a pixel, the first image of each batch
alone, and nothing of which model it was.

A set of labels is a folder named by its fingerprint, of everything that determines it. It is there when it is
complete: until then it is called FINGERPRINT.part, and the same call continues it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn
from tqdm.auto import tqdm

from cvpr21lib import atomic, inference, record
from cvpr21lib.ctrl_uda.label_maps import PALETTES
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import masks, stored
from cvpr21lib.segmentation.masks import VOID

THRESHOLD = 0.9


def make(
    root: Path,
    network: nn.Module,
    names: Sequence[str],
    image: Callable[[str], Tensor],
    fabric: Fabric,
    *,
    threshold: float = THRESHOLD,
    settings: Any = None,
    progress: bool = True,
) -> Path:
    """See that `root` has the pseudo-labels that `network`, as it is now, gives the images in `names`.

    Args:
        network: maps (1, 3, H, W) to logits (1, C, h, w), first of several outputs. It is used in evaluation
            mode, and given back in its own.
        names: of the images; a name may have folders in it.
        image: an image (3, H, W) as the network takes it. Its labels have its size.
        fabric: every process makes its share, and returns when all are done.
        settings: what else determines the labels, like how images are prepared: goes into the fingerprint.

    Returns:
        The folder for `read`, whose name is the fingerprint.
    """
    made_by = fingerprint(network, threshold, list(names), settings)
    folder, part = root / made_by, root / f"{made_by}.part"
    if not fabric.broadcast(folder.is_dir()):
        mine = [
            name for name in names[fabric.global_rank :: fabric.world_size] if not _file(part, name).is_file()
        ]
        with inference.evaluating(network):
            shown = progress and fabric.is_global_zero
            for name in tqdm(mine, "Pseudo-labels", leave=False, disable=not shown):
                pixels = image(name)
                logits = network(pixels[None].to(fabric.device))[0]
                label = confident(logits, pixels.shape[1:], threshold)[0].cpu().numpy()
                write(_file(part, name), label, logits.shape[1], made_by)
        fabric.barrier()
        if fabric.is_global_zero:
            part.mkdir(parents=True, exist_ok=True)  # no names, no files
            part.rename(folder)
        fabric.barrier()
    return folder


def confident(logits: Tensor, size: Sequence[int], threshold: float = THRESHOLD) -> Tensor:
    """Pseudo-labels uint8 (N, H, W) from logits (N, C, h, w): the likeliest class c where p_c ≥ `threshold`.

    The logits are enlarged to `size` (bilinear, corners aligned) before the softmax. Elsewhere it is 255.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"the threshold is {threshold}; expected a probability, above 0 and up to 1.")
    enlarged = F.interpolate(logits.float(), tuple(size), mode="bilinear", align_corners=True)
    probability, label = enlarged.softmax(1).max(1)
    return torch.where(probability >= threshold, label, VOID).to(torch.uint8)


def write(path: Path, label: np.ndarray, num_classes: int, made_by: str) -> None:
    """Write a label, uint8 (H, W), as a coloured PNG that carries `made_by`: whole, or not at all."""
    colours = np.zeros((256, 3), np.uint8)  # void is black
    known = PALETTES.get(num_classes, masks.PALETTE[:VOID])
    colours[: len(known)] = known
    picture, text = Image.fromarray(label), PngInfo()
    picture.putpalette(colours.tobytes())
    text.add_text(KEY, made_by)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.write(path) as temporary:
        picture.save(temporary, "PNG", pnginfo=text, optimize=True)


def read(folder: Path, name: str, num_classes: int) -> np.ndarray:
    """The pseudo-label of an image, uint8 (H, W), 255 where none, from a folder that `make` returned.

    Raises:
        InputError: no such file, a damaged one, one with other classes, or one made by another model.
    """
    path = _file(folder, name)
    if not path.is_file():
        raise InputError(f"there is no pseudo-label {path}; {_MAKE_AGAIN}")
    with stored.header(path) as picture:
        made_by = picture.info.get(KEY)
    if made_by != folder.name:
        raise InputError(
            f"{path} was made by {made_by or 'an unknown model'}, not by {folder.name} like its folder; "
            f"{_MAKE_AGAIN}"
        )
    return masks.read(path, num_classes)


_MAKE_AGAIN = "remove the folder, and run again to make it anew."


def fingerprint(network: nn.Module, *settings: Any) -> str:
    """Sixteen hex digits of the network's weights and of `settings`, plain values or dataclasses."""
    digest = hashlib.sha256(json.dumps(record.plain(settings)).encode())
    for key, value in network.state_dict().items():
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


KEY = "Fingerprint"
"""The PNG text chunk that says what made a label."""


def _file(folder: Path, name: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"the image is called {name!r}; expected a name inside its folder.")
    return folder / f"{name}.png"
