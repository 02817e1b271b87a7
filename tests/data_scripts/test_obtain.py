"""An archive is the one it should be, wherever it is from."""

from __future__ import annotations

import hashlib

import pytest

from cvpr21lib.errors import InputError
from data_scripts.obtain import obtain


def test_an_archive_is_taken_from_where_the_user_put_it(tmp_path):
    given = tmp_path / "downloads" / "data.zip"
    given.parent.mkdir()
    given.write_bytes(b"content")
    assert obtain(str(given), tmp_path / "data") == given
    digest = hashlib.sha256(b"content").hexdigest()
    assert (tmp_path / "data" / "data.zip.sha256").read_text() == f"{digest}  data.zip\n"


def test_another_archive_of_the_same_name_is_noticed_at_its_second_use(tmp_path):
    given = tmp_path / "data.zip"
    given.write_bytes(b"first")
    obtain(str(given), tmp_path / "data")
    obtain(str(given), tmp_path / "data")
    given.write_bytes(b"other")
    with pytest.raises(InputError, match=r"not the archive that was used here first .*data\.zip\.sha256"):
        obtain(str(given), tmp_path / "data")


def test_a_known_checksum_is_required(tmp_path):
    given = tmp_path / "data.zip"
    given.write_bytes(b"content")
    with pytest.raises(InputError, match="instead of 00"):
        obtain(str(given), tmp_path / "data", sha256="00" * 32)
    assert not (tmp_path / "data" / "data.zip.sha256").exists()


def test_an_archive_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"FiveK\.zip does not exist"):
        obtain(str(tmp_path / "FiveK.zip"), tmp_path / "data")


def test_an_address_is_fetched_once_and_verified(site, tmp_path):
    digest = hashlib.sha256(site.content).hexdigest()
    for _ in range(2):
        path = obtain(site.url, tmp_path / "data", sha256=digest)
    assert path == tmp_path / "data" / "data.zip"
    assert path.read_bytes() == site.content
    assert len(site.requests) == 1


def test_an_address_without_a_file_is_named(tmp_path):
    with pytest.raises(InputError, match="does not name a file"):
        obtain("https://example.org/", tmp_path)
