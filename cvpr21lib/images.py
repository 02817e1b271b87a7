"""The one image loader of the house: any photograph in, the same kind of photograph out.

`read` gives upright RGB values in [0, 1] whatever the file held: grey, palette, CMYK, 8 or 16 bits, with or
without alpha, turned by an EXIF tag or not. `write` puts them back at the same depth, with the same alpha and
colour profile. Pixels, alpha and profile are what is kept; other metadata (date, place, thumbnail) is not.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

from cvpr21lib import atomic
from cvpr21lib.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

#: Largest image that is decoded: 16384 × 16384 pixels, which leaves room for a 200-megapixel telephone and
#: none for a small file that unpacks into all of the memory. Pillow's own limit (179 million) is replaced.
MAX_PIXELS = 2**28

#: What `read` looks for, by content and not by suffix. Formats that Pillow would silently reduce to 8 bits
#: (JPEG 2000, PPM) or hand to another program (EPS) are left out.
READABLE = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP", "GIF")

#: What `write` makes of a suffix: JPEG at quality 95 with full colour resolution, WebP and TIFF without loss.
WRITABLE = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
}

_SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"lossless": True},
}

#: Pillow's limit is a module attribute; threads must not restore each other's value.
_pillow_limit = threading.Lock()


@dataclass(frozen=True, eq=False)
class Photo:
    """An upright photograph. Its values are the file's: gamma-encoded, sRGB unless `icc` says otherwise."""

    pixels: np.ndarray  # (H, W, 3) float32 in [0, 1], RGB
    alpha: np.ndarray | None = None  # (H, W) float32 in [0, 1], 1 = opaque, not multiplied into the pixels
    bits: int = 8  # 8 or 16 per channel, as stored and as written again
    icc: bytes | None = None  # embedded RGB colour profile


def read(path: str | Path) -> Photo:
    """Read the photograph at `path`; of an animation or a file of several pages, the first.

    Grey becomes RGB. CMYK becomes sRGB, through the embedded profile where there is one, at 8 bits. PNG and
    TIFF files of 16 bits keep them. The EXIF orientation is applied.

    Raises `InputError` where there is no such file, or it is empty, damaged, cut short, larger than
    `MAX_PIXELS`, not one of the `READABLE` formats, or has 32 bits per channel.
    """
    path = Path(path)
    encoded = _encoded(path)
    with _opened(encoded, path) as image:
        return _sixteen_bits(image, encoded, path) if _is_deep(image, encoded) else from_pil(image, str(path))


def write(path: str | Path, photo: Photo) -> None:
    """Write `photo` to `path`, whole or not at all; the suffix chooses the format (see `WRITABLE`).

    A photograph of 16 bits stays so in PNG and TIFF, and is rounded to 8 bits in the formats that have no
    more. Alpha needs PNG, TIFF or WebP: to JPEG and BMP it raises `InputError`, as do an unknown suffix, a
    missing folder, NaN, and a disk that is full or read-only. Values outside [0, 1] are clamped.
    """
    path = Path(path)
    encoded = _encode(photo, path, check_target(path, alpha=photo.alpha is not None))
    try:
        with atomic.write(path) as temporary:
            temporary.write_bytes(encoded)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def check_target(path: str | Path, alpha: bool = False) -> str:
    """The format `write` will use for `path`; raises its `InputError` now, before any long computation."""
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise InputError(
            f"{path}: cannot write a {path.suffix or 'nameless'} file; use {', '.join(WRITABLE)}"
        )
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    kind = WRITABLE[path.suffix.lower()]
    if alpha and kind in ("JPEG", "BMP"):
        raise InputError(f"{path}: the photograph has transparency, which {kind} cannot hold; use .png")
    return kind


def to_tensor(photo: Photo) -> Tensor:
    """The pixels as a tensor `(3, H, W)` float32 in [0, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(photo.pixels.transpose(2, 0, 1)))


def from_tensor(tensor: Tensor, like: Photo) -> Photo:
    """`like` with the pixels of a tensor `(3, H, W)`, clamped to [0, 1]; depth, alpha and profile stay."""
    pixels = tensor.detach().float().clamp(0, 1).cpu().numpy().transpose(1, 2, 0)
    return replace(like, pixels=np.ascontiguousarray(pixels))


def from_pil(image: Image.Image, name: str = "the image") -> Photo:
    """A Pillow image of any mode with at most 16 bits, turned upright. `name` is what an error calls it."""
    image.load()
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    icc = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        return from_array(_upright(np.asarray(image, np.uint16), orientation), _if_rgb(icc))
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise InputError(
            f"{name} has pixels of Pillow's mode {image.mode!r}; save it as RGB with 8 or 16 bits"
        )
    if image.mode == "CMYK" and icc:
        image, icc = _cmyk_to_srgb(image, icc, name), None
    colour = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return from_array(_upright(np.asarray(colour), orientation), _if_rgb(icc))


def from_array(values: np.ndarray, icc: bytes | None = None) -> Photo:
    """An array `(H, W)` or `(H, W, C)` of uint8 or uint16: grey, grey and alpha, RGB, or RGB and alpha."""
    values = values[..., None] if values.ndim == 2 else values
    channels, top = values.shape[2], np.float32(np.iinfo(values.dtype).max)
    colours = values[..., :3] if channels >= 3 else np.broadcast_to(values[..., :1], (*values.shape[:2], 3))
    pixels = colours.astype(np.float32, order="C")
    pixels /= top
    alpha = values[..., -1].astype(np.float32, order="C") / top if channels in (2, 4) else None
    return Photo(pixels, alpha, 8 * values.dtype.itemsize, icc)


def to_array(photo: Photo) -> np.ndarray:
    """The photograph as uint8 or uint16 `(H, W, 3)`, or `(H, W, 4)` with alpha; rounded half to even."""
    values = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    if not np.isfinite(values).all():
        raise InputError("the photograph holds NaN or infinite values; the model that made it has diverged")
    kind = np.uint16 if photo.bits == 16 else np.uint8
    return np.round(np.clip(values, 0, 1) * np.float32(np.iinfo(kind).max)).astype(kind)


def _encoded(path: Path) -> bytes:
    if not path.exists():
        raise InputError(f"{path} does not exist; name an image file")
    if not path.is_file():
        raise InputError(f"{path} is not a file; name one image in it")
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not encoded:
        raise InputError(f"{path} is empty (0 bytes); fetch or export the photograph again")
    return encoded


@contextmanager
def _opened(encoded: bytes, path: Path) -> Iterator[Image.Image]:
    """The image with its pixels decoded: damage anywhere in the file shows here."""
    try:
        image = _header(encoded)
        if min(image.size) > 0 and image.width * image.height <= MAX_PIXELS:
            image.load()
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not an image that can be read: its content is none of {', '.join(READABLE)}; "
            "export it as one of them"
        ) from error
    except _DAMAGE as error:
        raise InputError(
            f"{path} is damaged or cut short ({error}); fetch or export the photograph again"
        ) from error
    with image:
        if min(image.size) == 0:
            raise InputError(f"{path} has no pixels: {image.width} wide, {image.height} high")
        if image.width * image.height > MAX_PIXELS:
            raise InputError(
                f"{path} has {image.width} × {image.height} pixels; "
                f"at most {MAX_PIXELS:,} are decoded, so make it smaller first"
            )
        yield image


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


def _header(encoded: bytes) -> Image.Image:
    """The image opened, not decoded, with this module's limit on its size instead of Pillow's."""
    Image.init()
    readable = [name for name in READABLE if name in Image.OPEN]  # AVIF is optional in Pillow
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(BytesIO(encoded), formats=readable)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _is_deep(image: Image.Image, encoded: bytes) -> bool:
    """Whether a file has 16 bits per channel, which Pillow would round to 8 as soon as there is colour."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        return set(tags[TiffImagePlugin.BITSPERSAMPLE]) == {16} and _photometric(image) in _GREY_OR_RGB
    return image.format == "PNG" and encoded[_PNG_BIT_DEPTH] == 16


def _sixteen_bits(image: Image.Image, encoded: bytes, path: Path) -> Photo:
    """The pixels at full depth through OpenCV; what stands around them (profile, orientation) from Pillow."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PLANAR, 1) != 1:
        # OpenCV would take the planes for interleaved values.
        raise InputError(
            f"{path}: a 16-bit TIFF of one plane per colour cannot be decoded; save it interleaved"
        )
    values = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise InputError(
            f"{path}: this kind of 16-bit {image.format} cannot be decoded; save it as RGB first"
        )
    if values.ndim == 3:
        values = cv2.cvtColor(values, cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    icc = _if_rgb(image.info.get("icc_profile"))
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # OpenCV has turned it upright
        photo = from_array(65535 - values if _photometric(image) == _WHITE_IS_ZERO else values, icc)
        premultiplied = image.tag_v2.get(TiffImagePlugin.EXTRASAMPLES) == (1,)
        return _unmultiplied(photo) if premultiplied else photo
    return from_array(_upright(values, image.getexif().get(ExifTags.Base.Orientation, 1)), icc)


#: Where the header chunk of a PNG file, which always comes first, holds the bits per channel.
_PNG_BIT_DEPTH = 24

#: TIFF's PlanarConfiguration: 1 is interleaved, 2 one plane per colour.
_PLANAR = TiffImagePlugin.PLANAR_CONFIGURATION

#: TIFF's PhotometricInterpretation: 0 is grey with white as zero, 1 grey, 2 RGB.
_WHITE_IS_ZERO, _GREY_OR_RGB = 0, (0, 1, 2)


def _photometric(image: TiffImagePlugin.TiffImageFile) -> int:
    return image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, _WHITE_IS_ZERO)


def _unmultiplied(photo: Photo) -> Photo:
    """TIFF's "associated alpha" has been multiplied into the colours; where it is 0 they are black."""
    if photo.alpha is None:
        return photo
    alpha = photo.alpha[..., None]
    return replace(
        photo, pixels=np.divide(photo.pixels, alpha, out=np.zeros_like(photo.pixels), where=alpha > 0)
    )


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the eight EXIF orientations, numbered by where the stored first row and column belong."""
    match orientation:
        case 2:  # top right
            return values[:, ::-1]
        case 3:  # bottom right
            return values[::-1, ::-1]
        case 4:  # bottom left
            return values[::-1]
        case 5:  # left top
            return values.swapaxes(0, 1)
        case 6:  # right top
            return np.rot90(values, -1)
        case 7:  # right bottom
            return values[::-1, ::-1].swapaxes(0, 1)
        case 8:  # left bottom
            return np.rot90(values)
        case _:  # 1 is upright; anything else is not an orientation
            return values


def _cmyk_to_srgb(image: Image.Image, icc: bytes, name: str) -> Image.Image:
    try:
        ink = ImageCms.ImageCmsProfile(BytesIO(icc))
        srgb = ImageCms.profileToProfile(image, ink, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise InputError(f"{name}: its CMYK colour profile is damaged ({error}); save it as RGB") from error
    assert srgb is not None  # only in-place conversion returns None
    return srgb


def _if_rgb(icc: bytes | None) -> bytes | None:
    """A profile only if it describes RGB values: one for grey or CMYK would be wrong on what is returned."""
    return icc if icc and icc[16:20] == b"RGB " else None


def _encode(photo: Photo, path: Path, kind: str) -> bytes:
    values = to_array(photo if kind in ("PNG", "TIFF") else replace(photo, bits=8))
    if values.dtype == np.uint16:
        return _deep_png(values, photo.icc) if kind == "PNG" else _deep_tiff(values, photo.icc)
    buffer = BytesIO()
    try:
        Image.fromarray(values).save(buffer, kind, icc_profile=photo.icc, **_SAVE_OPTIONS.get(kind, {}))
    except (OSError, ValueError) as error:
        height, width = values.shape[:2]
        raise InputError(
            f"{path}: {kind} cannot hold {width} × {height} pixels ({error}); use .png"
        ) from error
    return buffer.getvalue()


def _deep_png(values: np.ndarray, icc: bytes | None) -> bytes:
    order = cv2.COLOR_RGB2BGR if values.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    encoded = cv2.imencode(".png", cv2.cvtColor(values, order))[1].tobytes()
    if icc is None:
        return encoded
    # OpenCV writes no colour profile: its chunk (length, name, content, checksum) goes behind the header.
    chunk = b"iCCP" + b"ICC profile\0\0" + zlib.compress(icc)
    header = encoded[:_PNG_HEADER_END]
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return header + chunk + encoded[_PNG_HEADER_END:]


#: Eight bytes of signature, and the header chunk's 4 + 4 + 13 + 4.
_PNG_HEADER_END = 33


def _deep_tiff(values: np.ndarray, icc: bytes | None) -> bytes:
    buffer = BytesIO()
    extra = ["unassalpha"] if values.shape[2] == 4 else None
    tifffile.imwrite(
        buffer,
        values,
        photometric="rgb",
        compression="zlib",
        extrasamples=extra,
        iccprofile=icc,
        metadata=None,
        software=False,
    )
    return buffer.getvalue()
