"""LUTs as other programs know them: `.cube` text files and Pillow's Color3DLUT.

A `.cube` file (Adobe, "Cube LUT specification 1.0") opens in Photoshop, DaVinci Resolve, darktable or FFmpeg.
It is text: a few lines of keywords, then one colour "red green blue" a line, the input's red running fastest
and its blue slowest. That is our `(3, D, D, D)` with the colours moved to the last axis, and Pillow's order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import ImageFilter
from torch import Tensor

from cvpr21lib import atomic
from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k.lut import check_finite

#: The largest D of a `.cube` file (specification), and of Pillow's Color3DLUT.
CUBE_LARGEST, PILLOW_LARGEST = 256, 65


def read(path: str | Path) -> Tensor:
    """The 3-D LUT in the `.cube` file at `path`: `(3, D, D, D)` float32.

    Raises `InputError` where there is no such file or it is not one (or half of one), for a 1-D LUT, a domain
    other than [0, 1], keywords that would change the meaning, and numbers that are not finite.
    """
    path, size, colours = Path(path), 0, []
    for number, line in enumerate(_text(path).splitlines(), 1):
        where = f"{path}, line {number}"
        match line.partition("#")[0].split():
            case [] | ["TITLE", *_]:
                pass
            case ["LUT_3D_SIZE", *rest]:
                size = _size(rest, where)
            case ["LUT_1D_SIZE", *_]:
                raise InputError(f"{path} holds a 1-D LUT (three tone curves); export a 3-D LUT instead")
            case ["DOMAIN_MIN" | "DOMAIN_MAX" | "LUT_3D_INPUT_RANGE" as keyword, *rest]:
                _check_domain(keyword, rest, where)
            case [red, green, blue]:
                colours.append(_numbers([red, green, blue], where))
            case _:
                raise InputError(f"{where}: {line[:60]!r} is no colour and no keyword that is understood")
    if not size:
        raise InputError(f"{path} has no line LUT_3D_SIZE; it is not a .cube file with a 3-D LUT")
    if len(colours) != size**3:
        raise InputError(
            f"{path} holds {len(colours)} colours where LUT_3D_SIZE {size} means {size**3}; it is "
            f"{'cut short' if len(colours) < size**3 else 'damaged'}, so fetch or export it again"
        )
    return _from_rows(np.array(colours), str(path))


def write(path: str | Path, lut: Tensor, *, title: str | None = None) -> None:
    """Write `lut` (3, D, D, D) as a `.cube` file, whole or not at all; `read` gives the same float32 back.

    `title` is what programs show, the file's name unless given. Raises `InputError` for another shape or
    type, NaN, a title of several lines or with a double quote, and a place that cannot be written to.
    """
    path = Path(path)
    check_finite(lut)
    size, title = lut.shape[-1], path.stem if title is None else title
    if size > CUBE_LARGEST:
        raise InputError(
            f"a LUT of D = {size} is too large for a .cube file, which holds {CUBE_LARGEST} at most"
        )
    if '"' in title or len(title.splitlines()) > 1:
        raise InputError(f"the title is {title!r}; give a single line without double quotes")
    head = f'TITLE "{title}"\nLUT_3D_SIZE {size}\nDOMAIN_MIN 0.0 0.0 0.0\nDOMAIN_MAX 1.0 1.0 1.0\n'
    rows = "".join(f"{' '.join(map(_digits, row))}\n" for row in _to_rows(lut))
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    try:
        with atomic.write(path) as temporary:
            temporary.write_text(head + rows, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def to_pillow(lut: Tensor) -> ImageFilter.Color3DLUT:
    """`lut` (3, D, D, D) for `image.filter(...)` on Pillow's RGB images (8 bits); D is 65 at most."""
    check_finite(lut)
    size = lut.shape[-1]
    if size > PILLOW_LARGEST:
        raise InputError(
            f"a LUT of D = {size} is too large for Pillow, which takes {PILLOW_LARGEST} at most; "
            "use lut.apply_8bit, which takes any"
        )
    return ImageFilter.Color3DLUT(size, _to_rows(lut))


def from_pillow(table: ImageFilter.Color3DLUT) -> Tensor:
    """The LUT `(3, D, D, D)` float32 in Pillow's `table`, which must have three channels and equal sides."""
    sides, channels = tuple(table.size), table.channels
    if channels != 3 or len(set(sides)) != 1:
        raise InputError(
            f"the table has {channels} channels and {' × '.join(map(str, sides))} points; "
            "expected 3 channels and as many points for red as for green and blue"
        )
    if table.mode not in (None, "RGB"):
        raise InputError(f"the table gives colours of the mode {table.mode!r}; expected RGB")
    return _from_rows(np.array(table.table).reshape(-1, 3), "the table")


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path} is not a file; name a .cube file")
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")  # titles come in any encoding
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _size(words: list[str], where: str) -> int:
    if len(words) != 1 or not words[0].isdecimal() or not 2 <= int(words[0]) <= CUBE_LARGEST:
        raise InputError(
            f"{where}: LUT_3D_SIZE is {' '.join(words)!r}; expected a number from 2 to {CUBE_LARGEST}"
        )
    return int(words[0])


def _check_domain(keyword: str, words: list[str], where: str) -> None:
    expected = {"DOMAIN_MIN": [0, 0, 0], "DOMAIN_MAX": [1, 1, 1], "LUT_3D_INPUT_RANGE": [0, 1]}[keyword]
    if _numbers(words, where) != expected:
        raise InputError(
            f"{where}: {keyword} is {' '.join(words)}, and only {' '.join(map(str, expected))} is "
            "understood; export the LUT for colours from 0 to 1"
        )


def _numbers(words: list[str], where: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise InputError(
            f"{where}: {' '.join(words)[:60]!r} are not all numbers; export the file again"
        ) from error


def _from_rows(rows: np.ndarray, name: str) -> Tensor:
    """(D^3, 3), red fastest, to (3, D, D, D)."""
    with np.errstate(over="ignore"):
        values = rows.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinite values; export the LUT again")
    size = round(len(values) ** (1 / 3))
    return torch.from_numpy(values).view(size, size, size, 3).permute(3, 0, 1, 2).contiguous()


def _to_rows(lut: Tensor) -> np.ndarray:
    """(3, D, D, D) to (D^3, 3) float32."""
    return lut.detach().cpu().float().permute(1, 2, 3, 0).reshape(-1, 3).numpy()


def _digits(value: np.float32) -> str:
    """As few digits as give the same float32 back, without an exponent, which some programs do not read."""
    return np.format_float_positional(value, unique=True, trim="0")
