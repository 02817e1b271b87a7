"""Archives that are what they say, and archives that are not to be trusted."""

from __future__ import annotations

import io
import os
import stat
import sys
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from cvpr21lib.errors import InputError
from data_scripts import space
from data_scripts.unpack import unpack

FILES = {"set/a/1.jpg": b"one" * 1000, "set/b/2.jpg": b"two" * 2000, "readme.txt": b"read me"}


def make_zip(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def make_tar(path: Path, files: dict[str, bytes] = FILES, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as packed:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        packed.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def make_tar_with(path: Path, **fields: object) -> Path:
    """A tar with a good file and one strange member."""
    with tarfile.open(path, "w") as packed:
        good = tarfile.TarInfo("good.txt")
        packed.addfile(good, io.BytesIO())
        info = tarfile.TarInfo("strange")
        for name, value in fields.items():
            setattr(info, name, value)
        packed.addfile(info)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def refused(archive: Path, message: str) -> None:
    """`archive` gives an InputError with this message, and leaves nothing behind."""
    place = archive.parent / "place"
    place.mkdir()
    with pytest.raises(InputError, match=message):
        unpack(archive, place / "out")
    assert list(place.iterdir()) == []
    assert not any(archive.parent.parent.glob("escaped*"))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_what_was_packed_comes_out(tmp_path, kind):
    archive = tmp_path / f"data.{kind}"
    if kind == "zip":
        make_zip(archive)
    else:
        make_tar(archive, mode="w:" + kind.partition(".")[2])
    assert contents(unpack(archive, tmp_path / "deep" / "out")) == FILES
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}


def test_the_content_decides_not_the_name(tmp_path):
    archive = make_tar(tmp_path / "data.zip", mode="w:gz")
    assert contents(unpack(archive, tmp_path / "out")) == FILES


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        unpack(make_zip(tmp_path / "data.zip"), tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine.txt": b"mine"}


def test_leftovers_of_a_killed_run_are_cleared_away(tmp_path):
    (tmp_path / ".out.partial" / "content").mkdir(parents=True)
    (tmp_path / ".out.partial" / "content" / "old.txt").write_text("half")
    assert contents(unpack(make_zip(tmp_path / "data.zip"), tmp_path / "out")) == FILES
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../escaped.txt",
        "a/../../escaped.txt",
        "/escaped.txt",
        "..\\escaped.txt",
        "C:\\escaped.txt",
        "C:/escaped",
        "..",
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_member_leaves_its_folder(tmp_path, name, kind):
    inner = tmp_path / "inner"
    inner.mkdir()
    make = make_zip if kind == "zip" else make_tar
    refused(make(inner / f"data.{kind}", {"good.txt": b"good", name: b"bad"}), "outside of its folder")


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "good.txt"},
        {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        {"type": tarfile.BLKTYPE},
        {"type": tarfile.FIFOTYPE},
    ],
    ids=["symlink out", "symlink", "hard link out", "character device", "block device", "pipe"],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, fields):
    refused(make_tar_with(tmp_path / "data.tar", **fields), "'strange', a link or a device")


def test_a_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as packed:
        link = zipfile.ZipInfo("strange")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
    refused(tmp_path / "data.zip", "'strange', a link or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_comes_twice_is_refused(tmp_path, kind):
    archive = tmp_path / f"data.{kind}"
    if kind == "zip":
        make_zip(archive)
        with zipfile.ZipFile(archive, "a") as packed:
            packed.writestr("readme.txt", b"another")
    else:
        make_tar(archive, {"a": b"1"})
        with tarfile.open(archive, "a") as packed:
            info = tarfile.TarInfo("a")
            info.size = 1
            packed.addfile(info, io.BytesIO(b"2"))
    refused(archive, "twice")


@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_a_bomb_is_refused_by_what_it_declares(tmp_path, kind, monkeypatch):
    zeros = {"zeros": bytes(20_000_000)}
    archive = tmp_path / f"bomb.{kind}"
    make_zip(archive, zeros) if kind == "zip" else make_tar(archive, zeros, "w:xz")
    assert archive.stat().st_size < 100_000
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: usage(10**8, 0, 10_000_000))
    refused(archive, r"needs 20\.0 MB.*only 10\.0 MB are free")


def test_many_files_are_added_up_before_the_first_is_written(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "data.zip", {f"{i}.bin": bytes(4_000_000) for i in range(3)})
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: usage(10**8, 0, 10_000_000))
    refused(archive, r"Unpacking data\.zip needs 12\.0 MB")


def test_a_bomb_that_declares_little_is_stopped_where_it_exceeds_that(tmp_path):
    make_zip(tmp_path / "data.zip", {"zeros": bytes(5_000_000)})
    packed = bytearray((tmp_path / "data.zip").read_bytes())
    declared, actual = (10).to_bytes(4, "little"), (5_000_000).to_bytes(4, "little")
    assert packed.count(actual) == 2
    (tmp_path / "data.zip").write_bytes(packed.replace(actual, declared))
    refused(tmp_path / "data.zip", "damaged|more than the 10 bytes")


def test_more_bytes_than_declared_are_never_written(tmp_path):
    from data_scripts import unpack as module

    archive = make_zip(tmp_path / "data.zip")
    lying = module.Member("big", 10, io.BytesIO(bytes(5_000_000)))
    with pytest.raises(InputError, match="more than the 10 bytes"):
        module._write(iter([lying]), tmp_path, archive)
    assert (tmp_path / "big").stat().st_size <= module.CHUNK


def test_an_encrypted_zip_is_named(tmp_path):
    packed = bytearray(make_zip(tmp_path / "data.zip", {"secret": b"x"}).read_bytes())
    packed[6] |= 1  # the flag in the file's own header ...
    packed[packed.index(b"PK\x01\x02") + 8] |= 1  # ... and in the directory
    (tmp_path / "data.zip").write_bytes(packed)
    refused(tmp_path / "data.zip", r"encrypted \('secret'\)")


def test_a_zip_of_an_unknown_method_is_named(tmp_path):
    packed = bytearray(make_zip(tmp_path / "data.zip", {"odd": b"x"}).read_bytes())
    packed[packed.index(b"PK\x01\x02") + 10] = 9  # Deflate64, which Windows uses beyond 4 GB
    (tmp_path / "data.zip").write_bytes(packed)
    refused(tmp_path / "data.zip", "a way that Python cannot read; unpack it by hand")


def test_a_flipped_byte_in_a_zip_is_noticed(tmp_path):
    make_zip(tmp_path / "data.zip", {"noise": os.urandom(5000)})
    packed = bytearray((tmp_path / "data.zip").read_bytes())
    packed[2000] ^= 1
    (tmp_path / "data.zip").write_bytes(packed)
    refused(tmp_path / "data.zip", r"data\.zip is damaged or cut short")


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_cut_archive_is_noticed(tmp_path, kind, kept):
    noise = {f"{i}.jpg": os.urandom(60_000) for i in range(5)}
    archive = tmp_path / f"data.{kind}"
    make_zip(archive, noise) if kind == "zip" else make_tar(archive, noise, "w:" + kind.partition(".")[2])
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * kept)])
    refused(archive, "cut short|did not arrive whole")


def test_a_tar_cut_exactly_between_two_members_is_noticed(tmp_path):
    archive = make_tar(tmp_path / "data.tar", {"a": bytes(512), "b": bytes(512)})
    archive.write_bytes(archive.read_bytes()[: 512 + 1024])
    refused(archive, "ends before its end mark")


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data_scripts.unpack._copy", full)
    refused(make_zip(tmp_path / "data.zip"), "cannot be unpacked into .*: No space left on device")


def test_what_is_no_archive_is_named_for_what_it_is(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        unpack(tmp_path / "data.zip", tmp_path / "out")
    (tmp_path / "data.zip").write_bytes(b"\n<!DOCTYPE html><html>Google Drive - Virus scan warning</html>")
    with pytest.raises(InputError, match="is a web page, not an archive"):
        unpack(tmp_path / "data.zip", tmp_path / "out")
    (tmp_path / "data.zip").write_bytes(b"")
    with pytest.raises(InputError, match=r"\(0 B\) is no zip, tar or rar"):
        unpack(tmp_path / "data.zip", tmp_path / "out")


def pretend_bsdtar(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A program of this name on the path, alone; `code` sees the archive's path as `archive`."""
    folder.mkdir()
    program = folder / "bsdtar"
    start = "import shutil, sys\nassert sys.argv[1:4] == ['-c', '-f', '-']\narchive = sys.argv[4][1:]\n"
    program.write_text(f"#!{sys.executable}\n{start}{code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def make_rar(path: Path) -> Path:
    """Looks like a rar; a tar beside it plays its content."""
    path.write_bytes(b"Rar!\x1a\x07\x01\x00")
    return path


def test_a_rar_asks_for_its_program_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(make_rar(tmp_path / "data.rar"), "needs the program bsdtar .*libarchive-tools")


def test_a_rar_is_unpacked_through_bsdtar_under_the_same_rules(tmp_path, monkeypatch):
    play = "shutil.copyfileobj(open(archive.replace('.rar', '.tar'), 'rb'), sys.stdout.buffer)"
    pretend_bsdtar(tmp_path / "bin", monkeypatch, play)
    make_tar(tmp_path / "data.tar")
    assert contents(unpack(make_rar(tmp_path / "data.rar"), tmp_path / "out")) == FILES
    make_tar(tmp_path / "bad.tar", {"../escaped": b""})
    refused(make_rar(tmp_path / "bad.rar"), "outside of its folder")


def test_what_bsdtar_complains_about_is_passed_on(tmp_path, monkeypatch):
    pretend_bsdtar(tmp_path / "bin", monkeypatch, "sys.exit('Unsupported block header')")
    refused(make_rar(tmp_path / "data.rar"), "Unsupported block header")
