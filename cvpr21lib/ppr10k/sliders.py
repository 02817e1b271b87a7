"""What six sliders of Lightroom do to a photograph, approximately, for those who do not have it.

PPR10K's augmentation moves sliders in the sidecars of raw files (`xmp`) and renders these again. This module
does something like it to a finished photograph. It is *not* Adobe's rendering: that starts from raw values,
depends on the camera, and follows curves that are not published. What is meant to agree is the unit of each
slider, its direction, and roughly its effect. The steps, in this order:

- temperature and tint: chromatic adaptation (Bradford) between black bodies, in linear light;
- exposure: linear light times 2^stops; what leaves [0, 1] may still be brought back by the highlights;
- highlights: the brighter half is lifted or lowered, by up to 0.23 at white, its hue unchanged;
- contrast: an S-curve through 0, 1/2 and 1, for each channel;
- saturation: the distance from the luma times 1 + saturation / 100.

The last three act on sRGB-encoded values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k.metrics import XYZ_FROM_RGB

Image = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sliders:
    """How far each slider is moved; 0 leaves the photograph as it is."""

    temperature: float = 0.0
    """Kelvins added to the temperature of the light that is assumed: more makes the photograph warmer."""
    tint: float = 0.0
    """Camera Raw's unit, 1/3000 across the Planckian locus in CIE 1960 (u, v): more is more magenta. ±150."""
    exposure: float = 0.0
    """Stops. ±5."""
    highlights: float = 0.0
    """±100."""
    contrast: float = 0.0
    """±100."""
    saturation: float = 0.0
    """±100; -100 is grey."""
    as_shot: float = 5500.0
    """The temperature, in kelvins, that the photograph was rendered for; with the offset 2000 to 50000."""

    def __post_init__(self) -> None:
        limits = {"tint": 150.0, "exposure": 5.0, "highlights": 100.0, "contrast": 100.0, "saturation": 100.0}
        for name, limit in limits.items():
            if not abs(getattr(self, name)) <= limit:
                raise InputError(
                    f"{name} is {getattr(self, name)}; expected at least {-limit} and at most {limit}"
                )
        for kelvins in (self.as_shot, self.as_shot + self.temperature):
            if not 2000 <= kelvins <= 50000:
                raise InputError(f"the light's temperature is {kelvins} K; expected 2000 to 50000")
        white_balance(self.temperature, self.tint, self.as_shot)

    @classmethod
    def from_offsets(cls, values: Mapping[str, float], as_shot: float = 5500.0) -> Sliders:
        """From what `xmp.offsets` draws, by the sidecar's names: `Exposure2012` is `exposure`."""
        named = {slider.removesuffix("2012").lower(): value for slider, value in values.items()}
        known = {field.name for field in fields(cls)} - {"as_shot"}
        if unknown := named.keys() - known:
            raise InputError(
                f"no such slider here: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
            )
        return cls(**named, as_shot=as_shot)


def render(image: Image, sliders: Sliders) -> Image:
    """A photograph (H, W, 3), RGB, sRGB-encoded floats in [0, 1], with the sliders moved: the same kind.

    Raises `InputError` for another shape or type, and for values outside [0, 1].
    """
    _check(image)
    if sliders.temperature or sliders.tint or sliders.exposure:
        image = _encoded(_light(_linear(image), sliders))
    if sliders.highlights:
        image = _highlights(image, sliders.highlights / 100)
    image = np.clip(image, 0, 1)
    if sliders.contrast:
        image = _contrast(image, sliders.contrast / 100)
    if sliders.saturation:
        image = np.clip(_saturation(image, 1 + sliders.saturation / 100), 0, 1)
    return image


def white_balance(temperature: float, tint: float, as_shot: float) -> Image:
    """The matrix (3, 3) on columns of linear R, G, B that a new assumption about the light makes.

    Under a light of `as_shot` kelvins a grey card was rendered grey. If that light is now assumed to be bluer
    (more kelvins) or greener (more tint), the same card must have been warmer or more magenta.
    """
    before, after = (_BRADFORD @ _white(*light) for light in ((as_shot, 0.0), (as_shot + temperature, tint)))
    if after.min() < _DARKEST_CONE:
        raise InputError(
            f"no light has {as_shot + temperature:g} K and a tint of {tint:g}; move one of them towards 0"
        )
    return _TO_RGB @ np.diag(before / after) @ _FROM_RGB


def _light(linear: Image, sliders: Sliders) -> Image:
    """Everything that happens in linear light is one matrix."""
    matrix = white_balance(sliders.temperature, sliders.tint, sliders.as_shot) * 2**sliders.exposure
    return np.maximum(cv2.transform(linear, matrix), 0)


def _highlights(image: Image, amount: float) -> Image:
    """Luma y > 1/2 becomes y + 0.45 amount u^2 / (1 + u) with u = 2 y - 1; it still rises with y."""
    luma = cv2.transform(image, _LUMA)
    above = np.maximum(2 * luma - 1, 0)
    gain = 1 + 0.45 * amount * above**2 / ((1 + above) * np.maximum(luma, 0.5))
    return image * gain[..., None]


def _contrast(image: Image, amount: float) -> Image:
    """x + 0.8 amount x (1 - x) (2 x - 1): slope 1 + 0.4 amount in the middle, 1 - 0.8 amount at both ends."""
    return image + 0.8 * amount * image * (1 - image) * (2 * image - 1)


def _saturation(image: Image, factor: float) -> Image:
    luma = cv2.transform(image, _LUMA)[..., None]
    return luma + factor * (image - luma)


def _linear(encoded: Image) -> Image:
    """sRGB to linear light (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _encoded(linear: Image) -> Image:
    """Linear light, also above 1, to sRGB."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _white(kelvins: float, tint: float) -> Image:
    """X, Y = 1, Z of the light: that of a black body, moved across the locus of black bodies by the tint."""
    here, there = _planckian(kelvins), _planckian(kelvins + 1)
    along = (there - here) / np.hypot(*(there - here))
    # The locus runs from red to blue; green lies to the right of that direction.
    u, v = here + tint / 3000 * np.array([along[1], -along[0]])
    x, y = 3 * u / (2 * u - 8 * v + 4), 2 * v / (2 * u - 8 * v + 4)
    return np.array([x / y, 1, (1 - x - y) / y])


def _planckian(kelvins: float) -> Image:
    """CIE 1960 (u, v) of a black body, by Krystek's formula of 1985 (to 0.0001 up to 15000 K)."""
    t = kelvins
    return np.array(
        [
            (0.860117757 + 1.54118254e-4 * t + 1.28641212e-7 * t**2)
            / (1 + 8.42420235e-4 * t + 7.08145163e-7 * t**2),
            (0.317398726 + 4.22806245e-5 * t + 4.20481691e-8 * t**2)
            / (1 - 2.89741816e-5 * t + 1.61456053e-7 * t**2),
        ]
    )


def _check(image: Image) -> None:
    is_rgb = image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    if not is_rgb or image.dtype not in (np.float32, np.float64):
        raise InputError(
            "expected an RGB image (H, W, 3) of float32 or float64, "
            f"but got {image.dtype} of the shape {image.shape}"
        )
    if not (image.min() >= 0 and image.max() <= 1):
        raise InputError(f"expected values in [0, 1], but they span [{image.min():.4g}, {image.max():.4g}]")


_LUMA = np.array([[0.2126, 0.7152, 0.0722]])
"""ITU-R BT.709."""

_DARKEST_CONE = 0.02
"""What each of the three responses to a light must reach; white has 1."""

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""Sharpened cone responses of X, Y, Z."""

_FROM_RGB = _BRADFORD @ XYZ_FROM_RGB
_TO_RGB = np.linalg.inv(_FROM_RGB)
