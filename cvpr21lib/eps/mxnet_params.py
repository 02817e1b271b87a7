"""The ImageNet weights of ResNet38, published as an MXNet file, read without MXNet.

The file (`ilsvrc-cls_rna-a1_cls1000_ep-0001.params`, of itijyou/ademxapp) is a list of arrays and a list of
their names, little endian throughout:

    uint64 0x112, uint64 0, uint64 n, n arrays, uint64 n, n names (uint64 length, bytes)

An array is a shape, a device (two int32, of no interest), a type (int32) and the values. Shapes were written
in three ways, which the first uint32 of an array tells apart:

    0xF993FAC9 (V2)    kind of storage (int32, 0 is dense), then as V1
    0xF993FAC8 (V1)    number of dimensions (uint32), dimensions (int64)
    less (legacy)      this is the number of dimensions itself; dimensions (uint32)
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from cvpr21lib import checkpoints
from cvpr21lib.eps.resnet38 import ResNet38, with_counters
from cvpr21lib.errors import InputError

MAGIC = struct.pack("<QQ", 0x112, 0)


def load_backbone(backbone: ResNet38, path: str | Path) -> None:
    """Load ImageNet weights into `backbone`: the MXNet file, or a PyTorch file of the same network.

    A final layer in the file (`linear1000`, `fc8`) is left out. Anything but such weights, whole and of the
    right names and shapes, is an `InputError`.
    """
    path = Path(path)
    if _starts_as_mxnet(path):
        arrays = read(path)
        state = {key: torch.from_numpy(arrays[name]) for name, key in key_map(arrays).items()}
    else:
        state = checkpoints.load(path)
    checkpoints.fit(backbone, with_counters(state), source=str(path), drop=("fc8.", "linear1000."))


def key_map(names: Iterable[str]) -> dict[str, str]:
    """From the names of the MXNet arrays to the keys of `ResNet38`, without those of the final layer."""
    keys = {name: _key(name) for name in names if not name.startswith("arg:linear1000_")}
    unknown = [name for name, key in keys.items() if key is None]
    if unknown:
        raise InputError(
            f"{len(unknown)} of the arrays are not ResNet38's ({', '.join(unknown[:4])}): "
            "look for ilsvrc-cls_rna-a1_cls1000_ep-0001.params."
        )
    return {name: key for name, key in keys.items() if key is not None}


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Every array of an MXNet file by its name (`arg:...` or `aux:...`), in the file's order.

    Raises `InputError` where there is no such file, or it is of another kind, is cut short, goes on after its
    end, or holds what weights are not made of (sparse arrays, unknown types).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there are no weights at {path}: no such file.")
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
        if start != MAGIC:
            kind = "a web page" if start.lstrip().startswith(b"<") else f"a file that starts with {start!r}"
            raise InputError(f"{path} is not a file of MXNet arrays but {kind}: fetch the file itself again.")
        reader = _Reader(file, path)
        arrays = [reader.array(f"array {number}") for number in range(reader.number("<Q", "the header"))]
        names = [reader.name() for _ in range(reader.number("<Q", "the count of names"))]
        if reader.left:
            raise reader.damaged(f"{reader.left} bytes follow its end")
        if not len(arrays) == len(names) == len(set(names)):
            raise reader.damaged(f"{len(arrays)} arrays, but {len(set(names))} different names")
    return dict(zip(names, arrays, strict=True))


class _Reader:
    """Takes the parts of the file one after the other, and never more than there is."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.left = path.stat().st_size - file.tell()

    def array(self, what: str) -> np.ndarray:
        layout = self.number("<I", what)
        if layout == _V2 and self.number("<i", what) != 0:
            raise InputError(f"{self.path}: {what} is sparse; the weights of a network are dense.")
        wide = layout in (_V1, _V2)
        dimensions = self.number("<I", what) if wide else layout
        if not 0 < dimensions <= _MOST_DIMENSIONS:
            raise self.damaged(f"{what} has {dimensions} dimensions")
        shape = self.numbers(f"<{dimensions}{'q' if wide else 'I'}", what)
        _, _, code = self.numbers("<iii", what)
        if not 0 <= code < len(_TYPES) or min(shape) < 0:
            raise self.damaged(f"{what} has the shape {shape} and the type {code}")
        dtype = np.dtype(_TYPES[code])
        values = bytearray(self.take(math.prod(shape) * dtype.itemsize, what))
        return np.frombuffer(values, dtype).reshape(shape)

    def name(self) -> str:
        try:
            return self.take(self.number("<Q", "a name"), "a name").decode()
        except UnicodeDecodeError:
            raise self.damaged("a name is not text") from None

    def number(self, code: str, what: str) -> int:
        return self.numbers(code, what)[0]

    def numbers(self, code: str, what: str) -> tuple[int, ...]:
        return struct.unpack(code, self.take(struct.calcsize(code), what))

    def take(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise self.damaged(f"{what} needs {count} bytes where {self.left} are left")
        self.left -= count
        return self.file.read(count)

    def damaged(self, how: str) -> InputError:
        return InputError(f"{self.path} is damaged or cut short ({how}): fetch it again.")


_V1, _V2 = 0xF993FAC8, 0xF993FAC9
_MOST_DIMENSIONS = 32
_TYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")  # by MXNet's number


def _starts_as_mxnet(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _key(name: str) -> str | None:
    """`arg:res3b1_branch2a_weight` is `b3_1.conv_branch2a.weight`; block "a" of a stage has no number."""
    if match := re.fullmatch(rf"(?:arg|aux):(res|bn)(\d)(?:a|b(\d))_(branch\w+?)_({_PARTS})", name):
        kind, stage, number, branch, part = match.groups()
        block = f"b{stage}_{number}" if number else f"b{stage}"
        return f"{block}.{'conv' if kind == 'res' else 'bn'}_{branch}.{_PART[part]}"
    if match := re.fullmatch(rf"(?:arg|aux):(conv1a|bn7)_({_PARTS})", name):
        return f"{match[1]}.{_PART[match[2]]}"
    return None


_PART = {
    "weight": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}
_PARTS = "|".join(_PART)
