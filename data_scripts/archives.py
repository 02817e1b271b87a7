"""Archives whose publisher says, or everybody else agrees, how large they are and what their MD5 is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cvpr21lib.errors import InputError
from data_scripts import space
from data_scripts.fetch import PATIENT, Patience, fetch


@dataclass(frozen=True)
class Archive:
    """One file of a data set, and where it is fetched unless the user has it already."""

    url: str
    size: int  # bytes
    md5: str

    @property
    def name(self) -> str:
        return Path(urlsplit(self.url).path).name

    def bring(self, root: Path, given: Path | None = None, patience: Patience = PATIENT) -> Path:
        """The verified file: the one `given`, or fetched into `root` (going on where a transfer broke off).

        Raises:
            InputError: the given file is not there or another one, or the file cannot be had.
        """
        if given is None:
            print(f"{self.name}: {space.readable(self.size)} from {urlsplit(self.url).hostname}, into {root}")
            return fetch(self.url, root / self.name, f"md5:{self.md5}", self.size, patience)
        if not given.is_file():
            raise InputError(f"The archive {given} does not exist.")
        if given.stat().st_size != self.size:
            raise InputError(
                f"{given} has {given.stat().st_size} bytes; {self.name} has {self.size}. It did not arrive "
                "whole, or is another file; fetch it again."
            )
        with given.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != self.md5:
            raise InputError(
                f"{given} has the MD5 {found} instead of {self.md5}; it is damaged, fetch it again."
            )
        return given
