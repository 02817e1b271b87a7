"""Class maps on the disk, so that thresholds and CRFs can be tried without the network.

One compressed .npz an image: the maps of its labelled classes in half precision, about 0.3 MB each at VOC's
size (5 GB for VOC's 10,582 images). Half precision moves a value by at most 0.00025.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvpr21lib import atomic, record
from cvpr21lib.eps.mask_folder import Filled, Kind, digest, fill
from cvpr21lib.eps.pseudo_masks import ClassMaps
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import crf, permutohedral, stored
from cvpr21lib.segmentation.crf import CRF
from cvpr21lib.segmentation.layout import some
from cvpr21lib.segmentation.stored import DamagedFile


def crf_masks(
    maps: Path,
    names: Sequence[str],
    image: Callable[[str], Path],
    output: Path,
    setting: CRF = crf.PSA,
    alpha: float = 4.0,
    **how: Any,
) -> Filled:
    """Fill the folder `output` with the CRF's masks of the images in `names`, from their saved `maps`.

    `image` tells where an image is (a data set's `layout.image`); `how` goes to `mask_folder.fill`. A mask is
    made again when its class maps, the setting, α, or the CRF's code have changed. Class maps that are
    missing are an `InputError` before any work.
    """
    missing = [name for name in names if not (maps / f"{name}.npz").is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} images have no class maps in {maps}: {some(missing)}; "
            "make them first"
        )
    code = record.code_fingerprint((crf, permutohedral))

    def make(name: str) -> np.ndarray:
        return crf_mask(stored.read_rgb(image(name)), read(maps / f"{name}.npz"), setting, alpha)

    def made_by(name: str) -> str:
        return digest("crf", setting, alpha, code, read_fingerprint(maps / f"{name}.npz"))

    return fill(output, names, make, made_by, **how)


def crf_mask(image: np.ndarray, found: ClassMaps, setting: CRF = crf.PSA, alpha: float = 4.0) -> np.ndarray:
    """The pseudo-mask after the CRF, uint8 (H, W): 0 is background, c + 1 is class c.

    Only the labelled classes and the background take part; without labels all is background. `image` is RGB,
    uint8 (H, W, 3), of the maps' size.
    """
    q = setting(image, crf.class_scores(found.maps.numpy(), alpha))
    return np.array([0, *(number + 1 for number in found.classes)], np.uint8)[q.argmax(0)]


def write(path: Path, found: ClassMaps, fingerprint: str) -> None:
    """Save the class maps of one image, whole or not at all."""
    with atomic.write(path) as temporary:
        np.savez_compressed(
            temporary,
            classes=np.array(found.classes, np.uint8),
            maps=found.maps.numpy().astype(np.float16),
            fingerprint=np.array(fingerprint),
        )


def read(path: Path) -> ClassMaps:
    """What `write` saved, in float32. `DamagedFile` if it is cut short or something else."""
    classes, maps = _arrays(path, "classes", "maps")
    return ClassMaps(tuple(classes.tolist()), torch.from_numpy(maps.astype(np.float32)))


def read_fingerprint(path: Path) -> str:
    """Of what made the maps. `DamagedFile` as in `read`."""
    return str(_arrays(path, "fingerprint")[0])


def _arrays(path: Path, *names: str) -> list[np.ndarray]:
    try:
        with np.load(path) as file:
            return [file[name] for name in names]
    except FileNotFoundError as error:
        raise InputError(f"the class maps {path} do not exist; make them first") from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedFile(
            f"the class maps {path} are damaged ({error}); remove the file and make it again"
        ) from error


CLASS_MAPS = Kind(".npz", write, read_fingerprint)
"""For `mask_folder.fill`."""
