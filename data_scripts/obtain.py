"""The archive of a data set: from an address, or from where the user put it; always the same one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from cvpr21lib import atomic
from cvpr21lib.errors import InputError
from data_scripts import manifest
from data_scripts.fetch import PATIENT, Patience, fetch


def obtain(given: str, root: Path, sha256: str | None = None, patience: Patience = PATIENT) -> Path:
    """The file that `given` names: a path, or an http(s) address, which is fetched into `root`.

    Its SHA-256 must be `sha256`, where known. Otherwise the one of the first use counts, which is kept in
    `root/NAME.sha256` (the format of sha256sum): another archive of the same name is an `InputError`.
    """
    root.mkdir(parents=True, exist_ok=True)
    if given.startswith(("http://", "https://")):
        name = Path(urlsplit(given).path).name
        if not name:
            raise InputError(f"{given} does not name a file.")
        path = fetch(given, root / name, f"sha256:{sha256}" if sha256 else None, patience=patience)
    else:
        path = Path(given)
        if not path.is_file():
            raise InputError(f"The archive {path} does not exist.")
    actual, record = manifest.sha256(path), root / f"{path.name}.sha256"
    if sha256 is not None and actual != sha256.lower():
        raise InputError(f"{path} has the SHA-256 {actual} instead of {sha256}: damaged, or another version.")
    if not record.exists():
        with atomic.write(record) as temporary:
            temporary.write_text(f"{actual}  {path.name}\n")
    elif record.read_text().split()[:1] != [actual]:
        raise InputError(
            f"{path} is not the archive that was used here first (see {record}): damaged, or another "
            f"version. If it is the one that you want, remove {record}."
        )
    return path
