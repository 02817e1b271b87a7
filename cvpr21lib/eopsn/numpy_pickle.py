"""Pickles of numpy arrays, as detectron2 offers weights, read without running what they might hold besides.

A pickle names functions to call. Only those that make arrays, their types and dictionaries are known here;
any other name is an error before anything is called.
"""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from cvpr21lib.errors import InputError


def read(path: str | Path) -> Any:
    """What the pickle holds: dictionaries, lists, strings, numbers and arrays.

    `InputError` where it is missing, damaged, another kind of file, or names anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there are no weights at {path}: no such file.")
    with path.open("rb") as file:
        head = file.read(1)
        if head != b"\x80":
            raise InputError(f"{path} is not a pickle of arrays: fetch the file itself again.")
        file.seek(0)
        try:
            return _Unpickler(file, path).load()
        except InputError:
            raise
        except Exception as error:  # whatever damaged bytes make of the few functions that are known
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"{path} is damaged or half-written ({reason}): fetch it again.") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise InputError(
                f"{self.path} names {module}.{name}, which is no part of arrays and could run code on "
                "loading, so it was not opened."
            ) from None


_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): codecs.encode,  # bytes in pickles of Python 2
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
} | {
    (f"numpy.{core}.multiarray", name): value.__reduce__()[0]
    for core in ("core", "_core")  # before numpy 2 and since
    for name, value in (("_reconstruct", np.zeros(0)), ("scalar", np.float64(0)))
}
