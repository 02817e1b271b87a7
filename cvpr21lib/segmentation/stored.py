"""Pictures exactly as they are stored: 8 bits, and not turned by an EXIF tag.

Masks, boxes and saliency maps of a data set were made on the stored pixels, so these readers, unlike the
one for photographs (`cvpr21lib.images`), leave the orientation alone.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from cvpr21lib.errors import InputError


class DamagedFile(InputError):
    """A picture of a data set that is there but cannot be decoded."""


def read_rgb(path: Path) -> np.ndarray:
    """The picture as uint8 (H, W, 3), RGB; grey becomes RGB."""
    return np.asarray(decode(path).convert("RGB"))


def read_grey(path: Path) -> np.ndarray:
    """A grey picture as uint8 (H, W). RGB whose channels agree is grey too; colours are an `InputError`."""
    image = decode(path)
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise InputError(f"{path} has pixels of mode {image.mode!r}; expected 8-bit grey.")
    if image.mode in ("P", "RGB", "RGBA"):
        channels = np.asarray(image.convert("RGB"))
        if (channels != channels[..., :1]).any():
            raise InputError(
                f"{path} is a coloured picture (mode {image.mode}); expected grey values 0 to 255, "
                "not a heat map."
            )
        return channels[..., 0].copy()
    return np.asarray(image.convert("L"))


def decode(path: Path) -> Image.Image:
    """The picture with all of its pixels decoded, so that damage anywhere in the file shows here.

    Raises:
        DamagedFile: it is empty, cut short, or not a picture.
        InputError: it does not exist.
    """
    image = header(path)
    try:
        image.load()
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    return image


def header(path: Path) -> Image.Image:
    """The picture opened but not decoded: its size, mode and text chunks are known."""
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, from the header alone."""
    with header(path) as image:
        return image.height, image.width


#: What Pillow's decoders raise on bytes that do not hold together.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
)


def _damaged(path: Path, error: Exception) -> DamagedFile:
    reason = "it is no picture" if isinstance(error, UnidentifiedImageError) else error
    return DamagedFile(f"{path} is damaged or cut short ({reason}); fetch it again.")
