"""Label masks: PNG files whose pixel values are class numbers, coloured by a palette for the eye alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cvpr21lib import atomic
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import stored

VOID = 255
"""Pixels that are neither trained on nor judged: outlines and unclear objects."""


def read(path: Path, num_classes: int) -> np.ndarray:
    """The class of each pixel, uint8 (H, W): 0 is background, c + 1 is class c, 255 is void.

    `num_classes` counts the background: 21 for VOC, 81 for COCO.

    Raises:
        InputError: no such file, a damaged one, colours instead of classes, or numbers that are no class.
    """
    image = stored.decode(path)
    if image.mode not in ("P", "L"):
        raise InputError(
            f"{path} has pixels of mode {image.mode!r}; a label mask holds class numbers, as a palette or "
            "grey PNG. Colours of a palette are not labels: take the original file, not one made RGB."
        )
    mask = np.asarray(image)
    strange = np.unique(mask[(mask >= num_classes) & (mask != VOID)])
    if len(strange):
        raise InputError(
            f"{path} holds {', '.join(map(str, strange[:5]))}{', ...' if len(strange) > 5 else ''}; "
            f"expected the classes 0 to {num_classes - 1}, and {VOID} for void. Were its colours made grey?"
        )
    return mask


def write(path: Path, mask: np.ndarray) -> None:
    """Write `mask`, uint8 (H, W), as a palette PNG in VOC's colours: whole, or not at all."""
    image = Image.fromarray(mask)
    image.putpalette(PALETTE.tobytes())
    with atomic.write(path) as temporary:
        image.save(temporary, "PNG")


def classes(mask: np.ndarray) -> tuple[int, ...]:
    """The classes that occur, 0 for the first one after the background; ascending."""
    return tuple(int(value) - 1 for value in np.unique(mask) if value not in (0, VOID))


def _palette() -> np.ndarray:
    """VOC's colours, uint8 (256, 3): bits 0, 3, 6 of a class number are the top bits of its red, bits 1, 4, 7
    those of its green, bits 2, 5 those of its blue."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> channel) & 1) << (7 - bit)).astype(np.uint8)
        numbers = numbers >> 3
    return colours


PALETTE = _palette()
