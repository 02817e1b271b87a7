"""Values of a wide-gamut rendering as sRGB: FiveK's experts were saved in ProPhoto RGB.

Pillow's colour management stops at 8 bits a channel; these renderings have 16.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import ImageCms

from cvpr21lib.errors import InputError
from cvpr21lib.images import Photo

Chromaticity = tuple[float, float]

# ISO 22028-2 (ROMM RGB, known as ProPhoto RGB) and IEC 61966-2-1 (sRGB): red, green, blue, white as (x, y).
PROPHOTO = ((0.734699, 0.265301), (0.159597, 0.840403), (0.036598, 0.000105), (0.345704, 0.358540))
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.3290))

BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""XYZ to the cone responses in which the white point is exchanged."""


def to_srgb(photo: Photo, name: str) -> np.ndarray:
    """The pixels of `photo` as sRGB, float32 (H, W, 3) in [0, 1]; colours outside of sRGB are clipped.

    A photograph without profile is taken for sRGB. Raises `InputError`, with the photograph's `name`, for
    profiles other than sRGB and ProPhoto RGB.
    """
    profile = "sRGB" if photo.icc is None else _description(photo.icc, name)
    if "sRGB" in profile or "61966-2" in profile:
        return photo.pixels
    if "ProPhoto" in profile or "ROMM" in profile:
        return prophoto_to_srgb(photo.pixels)
    raise InputError(f"{name} is in the colour space {profile!r}; export it as sRGB (or ProPhoto RGB).")


def prophoto_to_srgb(pixels: np.ndarray) -> np.ndarray:
    """Decode, change primaries and white point, clip, encode: (..., 3) in [0, 1] to the same."""
    linear = np.where(pixels < 1 / 32, pixels / 16, pixels**1.8)
    matrix = np.linalg.inv(_to_xyz(SRGB)) @ _adapt(PROPHOTO[3], SRGB[3]) @ _to_xyz(PROPHOTO)
    light = np.clip(linear @ matrix.T.astype(np.float32), 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


def _to_xyz(space: tuple[Chromaticity, ...]) -> np.ndarray:
    """Linear RGB to XYZ, such that (1, 1, 1) is the white of luminance 1."""
    primaries = np.stack([_xyz(xy) for xy in space[:3]], axis=1)
    return primaries * np.linalg.solve(primaries, _xyz(space[3]))


def _adapt(old: Chromaticity, new: Chromaticity) -> np.ndarray:
    scale = (BRADFORD @ _xyz(new)) / (BRADFORD @ _xyz(old))
    return np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD


def _xyz(xy: Chromaticity) -> np.ndarray:
    return np.array([xy[0] / xy[1], 1, (1 - xy[0] - xy[1]) / xy[1]])


def _description(icc: bytes, name: str) -> str:
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(icc))).strip()
    except (ImageCms.PyCMSError, OSError) as error:
        raise InputError(
            f"{name} carries a damaged colour profile ({error}); export it again as sRGB."
        ) from error
