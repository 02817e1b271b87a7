"""Two folders of photographs as two domains."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.lptn import data
from data_scripts import folders, manifest


@pytest.fixture
def day_and_night(tmp_path) -> tuple[Path, Path]:
    for name, count in (("day", 12), ("night", 5)):
        (tmp_path / name).mkdir()
        for i in range(count):
            colour = (0, 0, 60) if name == "night" else (200, 220, 255)
            Image.new("RGB", (100, 80), colour).save(tmp_path / name / f"{name}{i:02d}.png")
    return tmp_path / "day", tmp_path / "night"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_they_become_a_data_set_that_the_library_finds(day_and_night, tmp_path, capsys):
    day, night = day_and_night
    folders.main(root=tmp_path / "day2night", a=day, b=night, hold_out=3, crop=64)
    root = data.find(tmp_path / "day2night")
    assert names(root / "test/A") == ["day00.png", "day04.png", "day08.png"], "evenly spaced"
    assert len(names(root / "train/A")) == 9
    assert not set(names(root / "train/A")) & set(names(root / "test/A"))
    assert names(root / "train/B") == names(night)
    assert len(data.UnpairedCrops(root / "train/A", root / "train/B", crop=64)) == 9
    assert set(data.TestPairs(root / "test/A")[0]) == {"name", "source"}
    folders.main(root=root, verify_only=True)
    assert "17 files" in capsys.readouterr().out
    assert len(names(day)) == 12, "the photographs themselves stay where they are"


def test_test_folders_of_ones_own_are_taken_whole(day_and_night, tmp_path):
    day, night = day_and_night
    folders.lay_out(tmp_path / "out", day, night, test_a=day, test_b=day, crop=64)
    assert len(data.TestPairs(tmp_path / "out/test/A", tmp_path / "out/test/B")) == 12
    assert len(names(tmp_path / "out/train/A")) == 12


def test_small_photographs_are_left_out_and_remarked_on(day_and_night, tmp_path):
    day, night = day_and_night
    Image.new("RGB", (63, 80)).save(day / "small.png")
    remarks = folders.lay_out(tmp_path / "out", day, night, crop=64)
    assert remarks == [f"1 photographs of {day} are smaller than the crop of 64 pixels and left out"]
    assert not any((tmp_path / "out").rglob("small.png"))


def test_folders_that_share_names_are_remarked_on(day_and_night, tmp_path):
    day, _ = day_and_night
    remarks = folders.lay_out(tmp_path / "out", day, day, hold_out=1, crop=64)
    assert "share 11 names" in remarks[0]


@pytest.mark.parametrize("hold_out", [0, 12])
def test_both_uses_need_photographs(day_and_night, tmp_path, hold_out):
    with pytest.raises(InputError, match=f"--hold-out is {hold_out}, but .* has 12"):
        folders.lay_out(tmp_path / "out", *day_and_night, hold_out=hold_out, crop=64)


def test_what_is_missing_or_damaged_is_named_and_nothing_is_left(day_and_night, tmp_path):
    day, night = day_and_night
    with pytest.raises(InputError, match="both --a and --b"):
        folders.main(root=tmp_path / "out", a=day)
    with pytest.raises(InputError, match=f"{tmp_path / 'dusk'} does not exist"):
        folders.lay_out(tmp_path / "out", day, tmp_path / "dusk")
    (night / "night00.png").write_bytes((night / "night00.png").read_bytes()[:-40])
    with pytest.raises(InputError, match=r"night00\.png"):
        folders.lay_out(tmp_path / "out", day, night, crop=64)
    assert names(tmp_path) == ["day", "night"]


def test_an_existing_data_set_is_not_overwritten(day_and_night, tmp_path):
    day, night = day_and_night
    folders.lay_out(tmp_path / "out", day, night, crop=64)
    before = manifest.read(tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        folders.lay_out(tmp_path / "out", night, day, hold_out=1, crop=64)
    assert manifest.read(tmp_path / "out") == before
