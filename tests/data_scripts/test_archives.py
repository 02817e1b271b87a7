"""Archives with a known size and MD5: fetched, or the user's own."""

from __future__ import annotations

import hashlib

import pytest

from cvpr21lib.errors import InputError
from data_scripts.archives import Archive
from data_scripts.fetch import Patience

SWIFT = Patience(attempts=2, connect=2, stall=1, backoff=0.01, longest=0.05)


@pytest.fixture
def archive(site) -> Archive:
    return Archive(site.url, len(site.content), hashlib.md5(site.content).hexdigest())


def test_an_archive_is_fetched_whole_and_only_once(archive, site, tmp_path, capsys):
    for _ in range(2):
        path = archive.bring(tmp_path, patience=SWIFT)
        assert path == tmp_path / "data.zip"
        assert path.read_bytes() == site.content
    assert len(site.requests) == 1
    assert "data.zip: 300.0 kB from 127.0.0.1" in capsys.readouterr().out


def test_a_broken_transfer_goes_on_where_it_stopped(archive, site, tmp_path):
    site.plan = [site.drop(after=100_000), site.serve]
    assert archive.bring(tmp_path, patience=SWIFT).read_bytes() == site.content
    assert int(site.requests[1]["Range"].removeprefix("bytes=").removesuffix("-")) > 0


def test_another_file_under_the_address_is_refused(archive, site, tmp_path):
    site.plan = [site.corrupt]
    with pytest.raises(InputError, match="came through twice, but not as the file it should be"):
        archive.bring(tmp_path, patience=SWIFT)
    assert not (tmp_path / "data.zip").exists()


def test_the_users_own_archive_is_verified_and_not_fetched(archive, site, tmp_path):
    own = tmp_path / "mine.zip"
    own.write_bytes(site.content)
    assert archive.bring(tmp_path / "root", own) == own
    assert site.requests == []
    own.write_bytes(site.content[:-1])
    with pytest.raises(InputError, match=r"mine\.zip has 299999 bytes; data\.zip has 300000"):
        archive.bring(tmp_path / "root", own)
    own.write_bytes(bytes([site.content[0] ^ 1]) + site.content[1:])
    with pytest.raises(InputError, match=rf"mine\.zip has the MD5 \w+ instead of {archive.md5}"):
        archive.bring(tmp_path / "root", own)
    with pytest.raises(InputError, match=r"nowhere\.zip does not exist"):
        archive.bring(tmp_path / "root", tmp_path / "nowhere.zip")
