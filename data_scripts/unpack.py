"""Opening an archive that a stranger packed: zip, tar (.gz, .bz2, .xz) and, through bsdtar, rar.

Only plain files and folders below the target come out. Everything else ends the unpacking with an error that
names the member, and leaves nothing behind: absolute and parent paths, links, devices, a name that comes
twice, encrypted or damaged members, more bytes than were declared or than the disk holds.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from tqdm.auto import tqdm

from cvpr21lib.errors import InputError
from data_scripts import scratch, space

CHUNK = 1 << 20
"""Bytes between two looks at what was declared."""

BY_HAND = "unpack it by hand and give the script the folder instead"

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class Member(NamedTuple):
    """One file of an archive, or a folder (whose content is None)."""

    name: str
    size: int
    content: IO[bytes] | None


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack `archive` into the new `folder`: all of it, or nothing with an `InputError`."""
    members = _members_of(archive)
    with scratch.beside(folder) as partial:
        inside = partial / "content"
        inside.mkdir()
        space.require(inside, archive.stat().st_size, f"Unpacking {archive.name}")
        try:
            _write(members(archive, inside), inside, archive)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise InputError(f"{archive} is damaged or cut short ({error}); fetch it again.") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"{archive} cannot be unpacked into {folder}: {reason}.") from error
        inside.rename(folder)
    return folder


def _members_of(archive: Path) -> Callable[[Path, Path], Iterator[Member]]:
    """The reader for this archive, chosen by its content: names lie."""
    if not archive.is_file():
        raise InputError(f"The archive {archive} does not exist.")
    with archive.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"Rar!\x1a\x07"):
        return _rar_members
    if zipfile.is_zipfile(archive):
        return _zip_members
    if tarfile.is_tarfile(archive):
        return _tar_members
    if re.match(rb"\s*<(!doctype|html)", start, re.IGNORECASE):
        raise InputError(
            f"{archive} is a web page, not an archive: the site asked for a login or a confirmation. "
            "Open its address in a browser and fetch the file there."
        )
    raise InputError(
        f"{archive} ({space.readable(archive.stat().st_size)}) is no zip, tar or rar archive, or one that "
        "did not arrive whole; fetch it again."
    )


def _write(members: Iterator[Member], folder: Path, archive: Path) -> None:
    with tqdm(unit="B", unit_scale=True, desc=f"Unpacking {archive.name}") as progress:
        for member in members:
            path = folder / _inside(member, archive)
            if member.content is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            space.require(folder, member.size, f"{member.name} of {archive.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.content:
                _copy(member, path, archive, progress)


def _inside(member: Member, archive: Path) -> Path:
    """The member's relative path. A backslash counts as a separator, as it does on some machines."""
    name = member.name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    nameless = not parts and member.content is not None
    if nameless or ".." in parts or name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise InputError(
            f"{archive} wants to write outside of its folder ({member.name!r}); do not trust it."
        )
    return Path(*parts)


def _copy(member: Member, path: Path, archive: Path, progress: tqdm[None]) -> None:
    try:
        file = path.open("xb")
    except FileExistsError as error:
        raise InputError(f"{archive} holds {member.name!r} twice; do not trust it.") from error
    assert member.content is not None
    written = 0
    with file:
        while written <= member.size and (chunk := member.content.read(CHUNK)):
            written += len(chunk)
            file.write(chunk)
            progress.update(len(chunk))
    if written != member.size:
        difference = "more than" if written > member.size else f"only {written} of"
        raise InputError(
            f"{archive} holds {difference} the {member.size} bytes that it declares for {member.name!r}; "
            "fetch it again."
        )


def _zip_members(archive: Path, folder: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as packed:
        space.require(folder, sum(info.file_size for info in packed.infolist()), f"Unpacking {archive.name}")
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _neither_file_nor_folder(archive, info.filename)
            if info.flag_bits & 1:
                raise InputError(f"{archive} is encrypted ({info.filename!r}); {BY_HAND}.")
            if info.compress_type not in _METHODS:
                raise InputError(f"{archive} is packed in a way that Python cannot read; {BY_HAND}.")
            yield Member(info.filename, info.file_size, None if info.is_dir() else packed.open(info))


def _tar_members(archive: Path, folder: Path) -> Iterator[Member]:
    with tarfile.open(archive, "r|*", tarinfo=_Complete) as packed:
        yield from _plain(packed, archive)


def _rar_members(archive: Path, folder: Path) -> Iterator[Member]:
    """Through bsdtar, which turns a rar into a tar as a stream: so the same rules hold for both."""
    program = shutil.which("bsdtar")
    if program is None:
        raise InputError(
            f"{archive} is a rar archive; opening it needs the program bsdtar (Debian, Ubuntu: apt install "
            f"libarchive-tools; conda: libarchive; macOS has it). Install it, or {BY_HAND}."
        )
    with TemporaryFile() as complaints:
        command = [program, "-c", "-f", "-", f"@{archive}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints) as process:
            assert process.stdout is not None
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|", tarinfo=_Complete) as packed:
                    yield from _plain(packed, archive)
                broken = None
            except tarfile.TarError as error:
                broken = error
            except BaseException:
                process.kill()
                raise
        if broken or process.returncode != 0:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip()
            raise InputError(
                f"{archive} is damaged, or bsdtar cannot read it ({said}); fetch it again, or {BY_HAND}."
            )


def _plain(packed: tarfile.TarFile, archive: Path) -> Iterator[Member]:
    for info in packed:
        if not (info.isreg() or info.isdir()):
            raise _neither_file_nor_folder(archive, info.name)
        yield Member(info.name, info.size, packed.extractfile(info) if info.isreg() else None)


class _Complete(tarfile.TarInfo):
    """Insists on the end mark: left to itself, tarfile takes a tar cut between two members for whole."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:
            raise tarfile.ReadError("it ends before its end mark") from error


def _neither_file_nor_folder(archive: Path, name: str) -> InputError:
    return InputError(f"{archive} holds {name!r}, a link or a device; only files and folders are unpacked.")
