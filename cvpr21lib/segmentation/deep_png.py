"""PNG files of 16 bits that hold numbers rather than light: depth, disparity, ids."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import stored

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BIT_DEPTH = 24
"""Where the header of a PNG file, which always comes first, says how many bits a channel has."""


def read(path: Path) -> np.ndarray:
    """One number for each pixel, uint16 (H, W). Of several channels all must agree.

    Raises:
        InputError: no such file, a damaged one, fewer bits than 16, or channels that differ.
    """
    picture = _decode(path)
    if picture.mode.startswith("I"):
        return np.asarray(picture).astype(np.uint16)
    channels = _channels(path)
    if (channels != channels[..., :1]).any():
        raise InputError(
            f"{path} has {channels.shape[2]} channels that differ; expected one number for each pixel."
        )
    return channels[..., 0].copy()


def read_channels(path: Path) -> np.ndarray:
    """Three numbers for each pixel, uint16 (H, W, 3), in the order of the file.

    Raises:
        InputError: no such file, a damaged one, fewer bits than 16, or another number of channels.
    """
    picture = _decode(path)
    if picture.mode != "RGB":
        raise InputError(f"{path} has pixels of mode {picture.mode!r}; expected three channels of 16 bits.")
    return _channels(path)


def _decode(path: Path) -> Image.Image:
    """Through Pillow, which notices damage, but rounds three channels to 8 bits each."""
    picture = stored.decode(path)
    with path.open("rb") as file:
        start = file.read(_BIT_DEPTH + 1)
    if not start.startswith(_SIGNATURE) or start[_BIT_DEPTH] != 16:
        found = f"a PNG of {start[_BIT_DEPTH]} bits" if start.startswith(_SIGNATURE) else "no PNG"
        raise InputError(
            f"{path} is {found}; expected 16 bits for each number. A program has converted it, and what it "
            "rounded off is lost: take the original file out of its archive again."
        )
    return picture


def _channels(path: Path) -> np.ndarray:
    """Through OpenCV, which keeps 16 bits but turns RGB into BGR."""
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise InputError(f"{path}: this kind of 16-bit PNG cannot be decoded; unpack it again.")
    return values[..., ::-1] if values.shape[2] == 3 else values
