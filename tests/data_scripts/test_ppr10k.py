"""PPR10K as users downloaded it: what is made of it, and what they are told when it is not right."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import data, decoded, index
from cvpr21lib.ppr10k.decoded import Cache
from cvpr21lib.sampling import Draw
from data_scripts import command, ppr10k
from tests.ppr10k import miniature

IMAGES, MASKS = "train_val_images_tif_360p", "masks_360p"


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    """Three photographs to train on, three to validate."""
    monkeypatch.setattr(ppr10k, "COUNTS", ppr10k.Counts(3, 3))


@pytest.fixture
def downloads(tmp_path) -> Path:
    return miniature.download(tmp_path / "downloads")


def run(root: Path, downloads: Path | None = None, **options: object) -> index.Index:
    given = (
        {} if downloads is None else {"images": [str(downloads / IMAGES)], "masks": [str(downloads / MASKS)]}
    )
    ppr10k.main(root=root, accept_licence=True, workers=2, **given, **options)
    return data.find(root)


def files(folder: Path) -> dict[str, tuple[int, float]]:
    """Sizes and dates of all files."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_numbers_are_the_published_ones():
    assert ppr10k.Counts() == (8875, 2286)
    assert index.VERSIONS * ppr10k.Counts().train == 53_250
    assert len(index.GROUPS) == 1681
    assert (index.part_of(1355), index.part_of(1356)) == ("train", "val")


def test_the_download_becomes_a_data_set_that_the_library_finds(downloads, tmp_path, capsys):
    before = files(downloads)
    made = run(tmp_path / "data", downloads)
    assert files(downloads) == before, "the originals are neither moved nor changed"
    assert set(files(tmp_path / "data")) == {"PPR10K_360p/index.json"}
    assert [entry.name for entry in made.train] == ["0_0", "0_1", "7_0"]
    assert [entry.name for entry in made.val] == ["1356_0", "1356_1", "1680_0"]
    assert not made.partial
    assert len(data.Views(made, size=28, crop=21)) == 18
    assert len(data.Photos(made, "c")) == 3
    shown = capsys.readouterr()
    assert "non-commercial" in shown.err
    assert "is ready: 3 photographs to train on, 3 to validate" in shown.out


def test_the_index_says_what_each_file_held(downloads, tmp_path):
    entry = run(tmp_path / "data", downloads).train[1]
    assert (entry.name, entry.height, entry.width) == ("0_1", 54, 36)
    assert [file.path.rsplit("/", 1)[1] for file in entry.sources] == ["0_1.tif"] + [
        f"0_1_{version}.tif" for version in range(1, 6)
    ]
    for file in (*entry.sources, *entry.targets.values(), entry.mask):
        content = (tmp_path / "data" / "PPR10K_360p" / file.path).read_bytes()
        assert file.path.startswith("../../downloads/"), "relative: both folders can be moved together"
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_whole_can_be_moved(downloads, tmp_path):
    run(tmp_path / "data", downloads)
    (tmp_path / "disk").mkdir()
    for folder in ("data", "downloads"):
        shutil.move(tmp_path / folder, tmp_path / "disk" / folder)
    assert data.Photos(data.find(tmp_path / "disk" / "data"))[0]["name"] == "1356_0"


def test_the_layout_of_the_official_code_is_taken_as_it_is(tmp_path):
    split = miniature.download(tmp_path / "split", split=True)
    ppr10k.main(root=tmp_path / "data", images=[str(split)], accept_licence=True)
    theirs = data.find(tmp_path / "data")
    ours = run(tmp_path / "other", miniature.download(tmp_path / "downloads"))
    assert data.Views(theirs).fingerprint() == data.Views(ours).fingerprint()
    assert data.Photos(theirs, "b").fingerprint() == data.Photos(ours, "b").fingerprint()


def test_what_lies_in_the_root_needs_no_naming(tmp_path):
    root = miniature.download(tmp_path / "data")
    made = run(root)
    assert made.train[0].mask.path == "../masks_360p/0_0.png"


def test_originals_of_training_photographs_may_lie_in_source_alone(downloads, tmp_path):
    for path in (downloads / IMAGES / "source_aug_6").glob("*_?.tif"):
        if path.stem.count("_") == 1:
            path.unlink()
    assert run(tmp_path / "data", downloads).train[0].sources[0].path.endswith("source/0_0.tif")


def test_archives_are_unpacked_once(downloads, tmp_path, monkeypatch):
    """As Google Drive hands them out: the folder in several archives, any file in any of them."""
    paths = sorted((downloads / IMAGES).rglob("*.tif"))
    for part in range(2):
        with zipfile.ZipFile(tmp_path / f"images-{part}.zip", "w") as packed:
            for path in paths[part::2]:
                packed.write(path, path.relative_to(downloads))
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as packed:
        for path in (downloads / MASKS).iterdir():
            packed.write(path, path.name)
    given = {
        "images": [str(tmp_path / f"images-{part}.zip") for part in range(2)],
        "masks": [str(tmp_path / "masks.zip")],
    }
    made = run(tmp_path / "data", **given)
    assert made.train[0].sources[0].path.startswith("unpacked/images-")
    monkeypatch.setattr(ppr10k, "unpack", None)
    assert run(tmp_path / "data", **given) == made


def test_a_folder_of_links_is_as_good(downloads, tmp_path):
    (tmp_path / "links").mkdir()
    for folder in (downloads / IMAGES).iterdir():
        shutil.move(folder, tmp_path / f"disk_of_{folder.name}")
        (tmp_path / "links" / folder.name).symlink_to(tmp_path / f"disk_of_{folder.name}")
    given = {"images": [str(tmp_path / "links")], "masks": [str(downloads / MASKS)]}
    assert len(run(tmp_path / "data", **given).val) == 3


def test_files_of_the_operating_system_do_not_count(downloads, tmp_path):
    (downloads / IMAGES / "target_a" / "._0_0.tif").write_bytes(b"resource fork")
    (downloads / IMAGES / "target_a" / "Thumbs.db").write_bytes(b"")
    assert len(run(tmp_path / "data", downloads).train) == 3


def test_the_terms_come_first(downloads, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match="--accept-licence"):
        ppr10k.main(root=tmp_path / "data", images=[str(downloads)])
    assert not (tmp_path / "data").exists()


def test_without_photographs_it_says_where_to_get_them(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(
        InputError, match=r"No photographs .*source_aug_6.*github\.com/csjliang/PPR10K.*--images"
    ):
        run(tmp_path / "data")
    with pytest.raises(InputError, match="elsewhere does not exist"):
        run(tmp_path / "data", images=["elsewhere"])


# What is missing


def test_every_missing_file_is_named(downloads, tmp_path):
    for path in ("source_aug_6/0_1_3.tif", "target_b/1680_0.tif", "source/1356_1.tif"):
        (downloads / IMAGES / path).unlink()
    (downloads / MASKS / "7_0.png").unlink()
    with pytest.raises(InputError) as error:
        run(tmp_path / "data", downloads)
    message = str(error.value)
    for part in (
        r"source_aug_6 lacks 1 files (0_1_3.tif)",
        "target_b lacks 1 files (1680_0.tif)",
        "source lacks 1 files (1356_1.tif)",
        "masks_360p lacks 1 files (7_0.png)",
        "--partial",
    ):
        assert part in message
    listed = (tmp_path / "data" / "PPR10K_360p" / "missing.txt").read_text().split()
    assert listed == [
        "masks_360p/7_0.png",
        "source/1356_1.tif",
        "source_aug_6/0_1_3.tif",
        "target_b/1680_0.tif",
    ]


def test_the_list_of_missing_files_goes_when_they_come(downloads, tmp_path):
    target = downloads / IMAGES / "target_b" / "7_0.tif"
    content = target.read_bytes()
    target.unlink()
    with pytest.raises(InputError, match=r"missing\.txt"):
        run(tmp_path / "data", downloads)
    target.write_bytes(content)
    run(tmp_path / "data", downloads)
    assert not (tmp_path / "data" / "PPR10K_360p" / "missing.txt").exists()


def test_a_photograph_that_no_folder_knows_shows_in_the_counts(downloads, tmp_path):
    for path in downloads.rglob("7_0*"):
        path.unlink()
    with pytest.raises(InputError, match="2 photographs instead of 3 for train"):
        run(tmp_path / "data", downloads)


def test_partial_goes_on_with_what_is_whole_and_says_so(downloads, tmp_path, capsys):
    shutil.rmtree(downloads / IMAGES / "target_b")
    (downloads / IMAGES / "source_aug_6" / "0_1_3.tif").unlink()
    (downloads / MASKS / "7_0.png").unlink()
    made = run(tmp_path / "data", downloads, partial=True)
    assert made.partial
    assert [(entry.name, len(entry.sources)) for entry in made.train] == [("0_0", 6), ("0_1", 1)]
    assert set(made.val[0].targets) == {"a", "c"}
    notes = capsys.readouterr().err
    assert "note: target_b lacks 6 files (0_0.tif, 0_1.tif, 1356_0.tif, 1356_1.tif, 1680_0.tif, ...)" in notes
    assert "note: 1 photographs lack original, mask or target: left out" in notes


def test_partial_needs_at_least_one_photograph(downloads, tmp_path):
    shutil.rmtree(downloads / MASKS)
    with pytest.raises(InputError, match=r"masks_360p lacks 6 files.*at least one photograph"):
        run(tmp_path / "data", images=[str(downloads / IMAGES)], partial=True)


# What is not as published


@pytest.mark.parametrize(
    "name", ["portrait_1.tif", "3.tif", "0_0(1).tif", "0_0_6.tif", "1681_0.tif", "٣_0.tif"]
)
def test_names_that_are_not_the_data_sets_are_named(downloads, tmp_path, name):
    folder = downloads / IMAGES / "source_aug_6"
    shutil.copy(folder / "0_0.tif", folder / name)
    with pytest.raises(InputError) as error:
        run(tmp_path / "data", downloads)
    assert f"{folder / name} is not named <group>_<number>" in str(error.value)


def test_an_augmented_version_has_no_target_of_its_own(downloads, tmp_path):
    shutil.copy(downloads / IMAGES / "target_a/0_0.tif", downloads / IMAGES / "target_a/0_0_1.tif")
    with pytest.raises(InputError, match=r"target_a/0_0_1\.tif is not named <group>_<number>"):
        run(tmp_path / "data", downloads)


@pytest.mark.parametrize("twin", ["0_0.TIF", "0_0.tiff", "0_0.png"])
def test_names_that_differ_only_in_case_or_suffix_are_named(downloads, tmp_path, twin):
    folder = downloads / IMAGES / "target_a"
    shutil.copy(folder / "0_0.tif", folder / twin)
    with pytest.raises(InputError, match=r"target_a/0_0\.\w+ and .*target_a/0_0\.\w+ are both 0_0; keep one"):
        run(tmp_path / "data", downloads)


def test_a_photograph_in_both_parts_is_named(tmp_path):
    split = miniature.download(tmp_path / "split", split=True)
    shutil.copy(split / "train/masks/0_0.png", split / "val/masks/0_0.png")
    with pytest.raises(InputError, match=r"train/masks/0_0\.png and .*val/masks/0_0\.png are both 0_0"):
        ppr10k.main(root=tmp_path / "data", images=[str(split)], accept_licence=True)


def eight_bit_source(downloads: Path) -> None:
    victim = downloads / IMAGES / "source_aug_6" / "0_1_3.tif"
    tifffile.imwrite(victim, (tifffile.imread(victim) >> 8).astype(np.uint8), photometric="rgb")


def sixteen_bit_target(downloads: Path) -> None:
    victim = downloads / IMAGES / "target_b" / "1356_0.tif"
    tifffile.imwrite(victim, tifffile.imread(victim).astype(np.uint16) * 257, photometric="rgb")


def small_mask(downloads: Path) -> None:
    victim = downloads / MASKS / "7_0.png"
    Image.open(victim).resize((53, 36)).save(victim)


def truncated_source(downloads: Path) -> None:
    victim = downloads / IMAGES / "source" / "1680_0.tif"
    victim.write_bytes(victim.read_bytes()[:-2000])


def empty_target(downloads: Path) -> None:
    (downloads / IMAGES / "target_c" / "0_0.tif").write_bytes(b"")


DAMAGE = [
    (eight_bit_source, r"0_1_3\.tif has 8 bits a channel instead of 16"),
    (sixteen_bit_target, r"target_b/1356_0\.tif has 16 bits a channel instead of 8"),
    (small_mask, r"7_0\.png has 53 x 36 pixels, its photograph .*7_0\.tif 54 x 36"),
    (truncated_source, r"source/1680_0\.tif is damaged or cut short"),
    (empty_target, r"target_c/0_0\.tif is empty"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_files_that_are_not_as_published_are_named_and_nothing_is_indexed(
    downloads, tmp_path, damage, message
):
    damage(downloads)
    with pytest.raises(InputError, match=message):
        run(tmp_path / "data", downloads)
    assert files(tmp_path / "data") == {}


def test_all_of_them_are_named_at_once_and_partial_leaves_their_photographs_out(downloads, tmp_path, capsys):
    for damage, _ in DAMAGE[:4]:
        damage(downloads)
    with pytest.raises(InputError, match=r"4 files .*0_1_3.* 8 bits.*1356_0.* 16 bits.*1680_0.* cut.*7_0"):
        run(tmp_path / "data", downloads)
    made = run(tmp_path / "data", downloads, partial=True)
    assert [entry.name for entry in (*made.train, *made.val)] == ["0_0", "1356_1"]
    assert capsys.readouterr().err.count(": its photograph is left out") == 4


# Run again


def test_an_index_that_is_right_is_kept_and_another_download_makes_it_anew(downloads, tmp_path, monkeypatch):
    first = run(tmp_path / "data", downloads)
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "decode", None)  # nothing is read again
        assert run(tmp_path / "data", downloads) == first
        assert run(tmp_path / "data") == first
    for path in downloads.rglob("1356_1.*"):
        path.unlink()
    assert len(run(tmp_path / "data", downloads, partial=True).val) == 2


@pytest.mark.parametrize("content", ["", '{"format": 1, "train": [', '{"format": 1}', "[]", '{"format": 0}'])
def test_a_damaged_index_is_never_used_and_made_anew(downloads, tmp_path, content):
    whole = run(tmp_path / "data", downloads)
    (whole.folder / "index.json").write_text(content)
    with pytest.raises(InputError, match=r"index\.json (is damaged|has format 0).*data_scripts\.ppr10k"):
        data.find(tmp_path / "data")
    assert run(tmp_path / "data", downloads) == whole


def test_the_cache_holds_what_the_files_hold(downloads, tmp_path):
    made = run(tmp_path / "data", downloads, cache=True)
    kept = sorted(path.name.split("-")[0] for path in (made.folder / "cache").iterdir())
    assert kept == ["0_0", "0_1", "1356_0", "1356_1", "1680_0", "7_0"]
    for expert in index.EXPERTS:
        fresh, cached = (data.Views(made, expert, size=28, cache=cache) for cache in (False, True))
        draws = [Draw(item, item) for item in range(len(fresh))]
        shutil.move(downloads, tmp_path / "away")
        from_cache = [cached[draw] for draw in draws]
        shutil.move(tmp_path / "away", downloads)
        for draw, sample in zip(draws, from_cache, strict=True):
            assert all((fresh[draw][name] == sample[name]).all() for name in sample)


def test_a_cache_that_was_broken_off_is_finished_not_begun_again(downloads, tmp_path, monkeypatch):
    made = run(tmp_path / "data", downloads)
    with monkeypatch.context() as patch:
        written = Cache.write

        def interrupted(cache: Cache, entry: index.Entry) -> None:
            if entry.name == "1356_0":
                raise KeyboardInterrupt
            written(cache, entry)

        patch.setattr(Cache, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ppr10k.fill(made, workers=1)
    first = files(made.folder / "cache")
    assert len(first) == 3
    (made.folder / "cache" / ".7_0-of-a-killed-run.raw").write_bytes(b"half")
    run(tmp_path / "data", cache=True)
    second = files(made.folder / "cache")
    assert len(second) == 6
    assert first.items() <= second.items(), "what was whole is kept, what was half is gone"


def test_a_process_that_is_killed_leaves_nothing_half_written(downloads, tmp_path):
    code = (
        "import time; from pathlib import Path\n"
        "from cvpr21lib.ppr10k import decoded; from data_scripts import ppr10k\n"
        "ppr10k.COUNTS = ppr10k.Counts(3, 3); read = decoded.read\n"
        "def slow(index, picture):\n"
        "    time.sleep(0.1); print('reading', flush=True); return read(index, picture)\n"
        "decoded.read = slow\n"
        f"ppr10k.main(root=Path({str(tmp_path / 'data')!r}), images=[{str(downloads)!r}], "
        "accept_licence=True, cache=True, workers=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    for _ in range(15):  # into the second photograph
        process.stdout.readline()
    process.kill()
    process.wait()
    made = data.find(tmp_path / "data")
    cache = Cache(made)
    assert [entry.name for entry in made.train if cache.holds(entry)] == ["0_0"]
    assert not cache.differs(made.train[0])
    assert data.Views(made, size=28)[Draw(8, 0)]["source"].shape == (3, 28, 28)
    run(tmp_path / "data", cache=True)
    assert len(files(made.folder / "cache")) == 6


def test_a_cache_of_other_photographs_is_not_read(downloads, tmp_path):
    made = run(tmp_path / "data", downloads, cache=True)
    victim = downloads / IMAGES / "target_a" / "0_0.tif"
    brighter = tifffile.imread(victim) // 2 + 100
    tifffile.imwrite(victim, brighter, photometric="rgb", compression="zlib")
    made = run(tmp_path / "data", downloads)
    sample = data.Views(made, size=28, flip=False)
    assert not sample.photographs.cache.holds(made.train[0])
    assert (sample.photographs.target(0) == brighter).all()
    run(tmp_path / "data", cache=True)
    assert len(files(made.folder / "cache")) == 6, "the old one is gone"
    assert (data.Views(made).photographs.target(0) == brighter).all()


def test_the_cache_asks_the_disk_first(downloads, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 10))
    with pytest.raises(InputError, match=r"The cache needs 361\.6 kB .*only 10 B are free"):
        run(tmp_path / "data", downloads, cache=True)


# Verifying


def test_verify_only_counts_and_changes_nothing(downloads, tmp_path, capsys):
    run(tmp_path / "data", downloads, cache=True)
    before = files(tmp_path)
    ppr10k.main(root=tmp_path / "data", verify_only=True)
    assert files(tmp_path) == before
    assert (
        "45 files, all as they were prepared; 6 of 6 photographs are in the cache" in capsys.readouterr().out
    )


def test_verify_only_names_what_is_missing_changed_or_damaged(downloads, tmp_path):
    made = run(tmp_path / "data", downloads, cache=True)
    victim = downloads / IMAGES / "target_a" / "0_1.tif"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    (downloads / MASKS / "7_0.png").unlink()
    cache = Cache(made)
    cut, flipped = (cache.path(entry) for entry in made.val[:2])
    cut.write_bytes(cut.read_bytes()[:-1])
    flipped.write_bytes(bytes([flipped.read_bytes()[0] ^ 1]) + flipped.read_bytes()[1:])
    with pytest.raises(InputError) as error:
        ppr10k.main(root=tmp_path / "data", verify_only=True)
    for part in (
        "4 files",
        f"{victim} has changed",
        "7_0.png is missing",
        f"{cut} is damaged",
        f"{flipped} is damaged",
    ):
        assert part in str(error.value)


def test_a_cache_file_that_is_cut_short_is_not_taken_for_whole(downloads, tmp_path):
    made = run(tmp_path / "data", downloads, cache=True)
    path = Cache(made).path(made.train[0])
    path.write_bytes(path.read_bytes()[:-1])
    assert data.Views(made, size=28)[Draw(0, 0)]["mask"].shape == (1, 28, 28)
    run(tmp_path / "data", cache=True)
    assert Cache(made).holds(made.train[0])


def test_verify_only_needs_something_prepared(tmp_path):
    with pytest.raises(InputError, match=r"has no index\.json.*python -m data_scripts\.ppr10k --root"):
        ppr10k.main(root=tmp_path, verify_only=True)


def test_the_command_line_does_what_its_help_says(downloads, tmp_path, monkeypatch, capsys):
    arguments = ["--root", tmp_path / "data", "--images", downloads / IMAGES, "--masks", downloads / MASKS]
    monkeypatch.setattr("sys.argv", ["ppr10k", *map(str, arguments), "--cache", "--accept-licence"])
    with pytest.raises(SystemExit) as ended:
        command.run(ppr10k.app)
    assert ended.value.code in (0, None)
    assert json.loads((tmp_path / "data/PPR10K_360p/index.json").read_text())["format"] == 1
    monkeypatch.setattr("sys.argv", ["ppr10k", "--root", str(tmp_path), "--verify-only"])
    with pytest.raises(SystemExit) as ended:
        command.run(ppr10k.app)
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")
