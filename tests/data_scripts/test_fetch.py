"""Files from servers that drop, truncate, corrupt, redirect, stall, refuse and change their mind."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from cvpr21lib.errors import InputError
from data_scripts import space
from data_scripts.fetch import Patience, fetch

QUICK = Patience(attempts=4, connect=2, stall=0.3, backoff=0.01, longest=0.05)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "data.zip"


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.mark.parametrize("algorithm", ["md5", "sha256", None])
def test_a_file_arrives_whole_and_is_not_brought_twice(site, target, algorithm):
    checksum = f"{algorithm}:{hashlib.new(algorithm, site.content).hexdigest()}" if algorithm else None
    for _ in range(2):
        assert fetch(site.url, target, checksum, len(site.content), QUICK) == target
    assert target.read_bytes() == site.content
    assert left_in(target.parent) == {"data.zip"}
    assert len(site.requests) == 1


def test_a_dropped_connection_is_taken_up_where_it_broke(site, target):
    site.plan = [site.drop(100_000), site.drop(120_000), site.serve]
    fetch(site.url, target, patience=QUICK)
    assert target.read_bytes() == site.content
    starts = [int(headers["Range"].removeprefix("bytes=")[:-1]) for headers in site.requests[1:]]
    assert 0 < starts[0] <= 100_000
    assert starts[0] < starts[1] <= 220_000
    assert all(headers["If-Range"] == '"first"' for headers in site.requests[1:])


def test_drops_that_bring_something_do_not_use_up_the_patience(site, target):
    site.content = site.content * 4
    site.plan = [site.drop(140_000)] * 8 + [site.serve]
    fetch(site.url, target, patience=QUICK)
    assert target.read_bytes() == site.content
    assert len(site.requests) == 9 > QUICK.attempts


def test_a_server_that_never_gets_further_is_given_up_and_the_part_is_kept(site, target):
    site.etag = None  # without a version or a checksum each attempt has to start over
    site.plan = [site.drop(100_000)]
    with pytest.raises(InputError, match=r"keeps breaking off.*Run the same command again"):
        fetch(site.url, target, patience=QUICK)
    assert len(site.requests) == QUICK.attempts
    assert left_in(target.parent) == {"data.zip.part", "data.zip.part.json"}


def test_a_killed_transfer_leaves_a_part_only_and_goes_on(site, target):
    site.plan = [site.stall(200_000), site.serve]
    code = "import sys, pathlib, data_scripts.fetch as f; f.fetch(sys.argv[1], pathlib.Path(sys.argv[2]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, site.url, str(target)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    part = target.with_name("data.zip.part")
    waited = time.monotonic()
    while not (part.exists() and part.stat().st_size > 100_000) and time.monotonic() - waited < 30:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert left_in(target.parent) == {"data.zip.part", "data.zip.part.json"}
    fetch(site.url, target, patience=QUICK)
    assert target.read_bytes() == site.content
    assert left_in(target.parent) == {"data.zip"}
    assert int(site.requests[1]["Range"].removeprefix("bytes=")[:-1]) > 100_000


def test_a_transfer_killed_after_the_last_byte_asks_for_nothing_more(site, target):
    site.plan = [site.drop(10), site.serve]
    with pytest.raises(InputError):
        fetch(site.url, target, patience=Patience(attempts=1))
    target.with_name("data.zip.part").write_bytes(site.content)
    fetch(site.url, target, patience=QUICK)
    assert target.read_bytes() == site.content
    assert site.requests[-1]["Range"] == f"bytes={len(site.content)}-"


def test_a_stalled_transfer_counts_as_broken_after_the_stated_wait(site, target):
    site.plan = [site.stall(100_000), site.serve]
    fetch(site.url, target, patience=QUICK)
    assert target.read_bytes() == site.content
    assert len(site.requests) == 2


def test_a_server_that_ignores_ranges_starts_over(site, target):
    site.plan = [site.drop(100_000), site.ignore_range]
    fetch(site.url, target, patience=QUICK)
    assert "Range" in site.requests[1]
    assert target.read_bytes() == site.content


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_parts_of_two_versions_are_never_joined(site, target, heeds_if_range):
    def new_version(handler):
        site.content, site.etag = site.content[::-1], '"second"'
        site.plan = [site.serve if heeds_if_range else site.ignore_if_range]
        site.plan[0](handler)

    old = site.content
    site.plan = [site.drop(100_000), new_version]
    fetch(site.url, target, patience=QUICK)
    assert target.read_bytes() == old[::-1]


def test_a_part_of_unknown_version_is_continued_only_under_a_checksum(site, target):
    site.etag = None
    site.plan = [site.drop(100_000), site.serve]
    fetch(site.url, target, patience=QUICK)
    assert "Range" not in site.requests[1]
    target.unlink()
    site.requests.clear()
    fetch(site.url, target, sha256(site.content), patience=QUICK)
    assert "Range" in site.requests[1]
    assert target.read_bytes() == site.content


def test_a_file_that_became_shorter_is_brought_anew(site, target):
    site.plan = [site.drop(200_000), site.serve]
    with pytest.raises(InputError):
        fetch(site.url, target, patience=Patience(attempts=1))
    site.content = site.content[:50_000]
    fetch(site.url, target, sha256(site.content), patience=QUICK)
    assert target.read_bytes() == site.content


def test_corrupted_bytes_are_thrown_away_and_brought_once_more(site, target):
    site.plan = [site.corrupt, site.serve]
    fetch(site.url, target, sha256(site.content), patience=QUICK)
    assert target.read_bytes() == site.content


def test_bytes_that_stay_wrong_never_get_the_final_name(site, target):
    site.plan = [site.corrupt]
    with pytest.raises(InputError, match=r"came through twice.*expected sha256:"):
        fetch(site.url, target, sha256(site.content), patience=QUICK)
    assert len(site.requests) == 2
    assert left_in(target.parent) == set()


def test_a_damaged_file_at_the_target_is_replaced_once_the_new_one_is_right(site, target):
    target.parent.mkdir()
    target.write_bytes(site.content[:-1])
    site.plan = [site.answer(404)]
    with pytest.raises(InputError):
        fetch(site.url, target, sha256(site.content), patience=QUICK)
    assert target.read_bytes() == site.content[:-1], "the old file stays until there is a better one"
    site.plan = [site.serve]
    fetch(site.url, target, sha256(site.content), patience=QUICK)
    assert target.read_bytes() == site.content


def test_a_wrong_announced_size_is_refused_before_the_transfer(site, target):
    with pytest.raises(InputError, match=r"should be 300001 bytes long, but the server offers 300000"):
        fetch(site.url, target, size=300_001, patience=QUICK)
    assert left_in(target.parent) == set()


def test_a_truncation_without_announced_length_is_noticed_by_the_size(site, target):
    site.plan = [site.unannounced(100_000), site.unannounced(200_000), site.serve]
    fetch(site.url, target, size=300_000, patience=QUICK)
    assert target.read_bytes() == site.content


def test_redirects_are_followed(site, target):
    site.plan = [site.answer(302, Location="/elsewhere"), site.answer(301, Location="/there"), site.serve]
    fetch(site.url, target, patience=QUICK)
    assert target.read_bytes() == site.content


def test_a_circle_of_redirects_is_named(site, target):
    site.plan = [site.answer(302, Location="/data.zip")]
    with pytest.raises(InputError, match="redirects in a circle"):
        fetch(site.url, target, patience=QUICK)
    assert len(site.requests) < 15


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final_and_says_what_to_do(site, target, status):
    site.plan = [site.answer(status)]
    with pytest.raises(InputError, match=rf"data\.zip cannot be had: the server answers {status}.*by hand"):
        fetch(site.url, target, patience=QUICK)
    assert len(site.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(site, target, status):
    site.plan = [site.answer(status), site.answer(status), site.serve]
    fetch(site.url, target, patience=QUICK)
    assert target.read_bytes() == site.content


def test_a_server_that_stays_busy_is_given_up(site, target):
    site.plan = [site.answer(503)]
    with pytest.raises(InputError, match=r"keeps breaking off.*503"):
        fetch(site.url, target, patience=QUICK)
    assert len(site.requests) == QUICK.attempts


def test_nobody_at_the_address_is_one_clear_error(target):
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9.*keeps breaking off"):
        fetch("http://127.0.0.1:9/data.zip", target, patience=QUICK)


def test_a_web_page_is_not_taken_for_the_file(site, target):
    site.plan = [site.answer(200, b"<html>Sign in</html>", Content_Type="text/html; charset=utf-8")]
    with pytest.raises(InputError, match="a web page instead of a file"):
        fetch(site.url, target, patience=QUICK)
    assert left_in(target.parent) == set()


def test_the_disk_is_asked_before_it_is_filled(site, target, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: usage(10**6, 900_000, 100_000))
    with pytest.raises(InputError, match=r"needs 300\.0 kB.*only 100\.0 kB are free"):
        fetch(site.url, target, patience=QUICK)
    assert left_in(target.parent) == set()


@pytest.mark.parametrize("url", ["ftp://host/data.zip", "data.zip", "file:///etc/passwd"])
def test_only_web_addresses_are_fetched(target, url):
    with pytest.raises(InputError, match="not a web address"):
        fetch(url, target)


def test_a_malformed_checksum_is_refused_before_the_transfer(site, target):
    with pytest.raises(InputError, match="not of the form"):
        fetch(site.url, target, "0123", patience=QUICK)
    assert not site.requests


def test_waits_between_attempts_grow(site, target, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    site.plan = [site.answer(503)]
    with pytest.raises(InputError):
        fetch(site.url, target, patience=Patience(attempts=6, backoff=1, longest=60))
    doubled = [2, 4, 8, 16]
    assert len(waits) == 4
    assert all(base <= wait <= base + 1 for base, wait in zip(doubled, waits, strict=True))
    assert any(wait != base for base, wait in zip(doubled, waits, strict=True)), "with jitter"
