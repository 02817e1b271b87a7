"""A manifest notices whatever happens to a data set after it was prepared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cvpr21lib.errors import InputError
from data_scripts import manifest


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.jpg").write_bytes(b"one")
    (tmp_path / "train" / "2.jpg").write_bytes(b"two")
    (tmp_path / ".DS_Store").write_bytes(b"hidden")
    manifest.write(tmp_path, {"archive": "data.zip"})
    return tmp_path


def test_it_records_names_sizes_and_hashes(recorded):
    contents = json.loads((recorded / "manifest.json").read_text())
    assert contents == {
        "about": {"archive": "data.zip"},
        "count": 2,
        "bytes": 6,
        "files": {
            f"train/{i}.jpg": {"size": 3, "sha256": hashlib.sha256(content).hexdigest()}
            for i, content in ((1, b"one"), (2, b"two"))
        },
    }


def test_an_untouched_folder_verifies(recorded):
    assert manifest.verify(recorded) == 2


def test_missing_extra_and_changed_files_are_named_together(recorded):
    (recorded / "train" / "1.jpg").write_bytes(b"eno")
    (recorded / "train" / "2.jpg").rename(recorded / "train" / "3.jpg")
    expected = r"1 missing \(train/2.jpg\); 1 not in the manifest \(train/3.jpg\); 1 changed \(train/1.jpg\)"
    with pytest.raises(InputError, match=expected):
        manifest.verify(recorded)


def test_a_long_list_is_shortened(recorded):
    for i in range(10, 30):
        (recorded / f"{i}.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"20 not in the manifest \(10.jpg, .*14.jpg, \.\.\.\)"):
        manifest.verify(recorded)


def test_hidden_files_do_not_count(recorded):
    (recorded / "train" / "._1.jpg").write_bytes(b"resource fork")
    assert manifest.verify(recorded) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_manifest_is_named(recorded, text):
    (recorded / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        manifest.verify(recorded)


def test_a_folder_without_manifest_says_how_to_get_one(tmp_path):
    with pytest.raises(InputError, match="Run it without --verify-only"):
        manifest.verify(tmp_path)
