"""FiveK from the authors' package and from renderings of one's own, in miniature."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.lptn import data
from data_scripts import command, fivek, manifest


@pytest.fixture(autouse=True)
def small_split(monkeypatch):
    """Three training sources, three other targets, two test pairs."""
    monkeypatch.setattr(fivek, "SPLIT", fivek.Split(3, 3, 2))


@pytest.fixture
def layout(miniature_fivek, tmp_path) -> Path:
    """What the miniature package holds; its test pairs are numbers 4501 and 4502, as in the real one."""
    return miniature_fivek(train=3, test=2, root=tmp_path / "original" / "FiveK_480p")


def pack(layout: Path, archive: Path, inside: str = "FiveK/FiveK_480p") -> Path:
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(layout.rglob("*.jpg")):
            packed.write(path, f"{inside}/{path.relative_to(layout).as_posix()}")
            packed.writestr(f"__MACOSX/{inside}/{path.parent.relative_to(layout)}/._{path.name}", b"fork")
    return archive


def run(root: Path, crop: int = 64, **options: object) -> None:
    fivek.main(root=root, accept_licence=True, crop=crop, **options)


def test_the_split_is_the_papers():
    numbers = fivek.Split().numbers(pairs=False)
    assert numbers == {
        "train/A": range(1, 2251),
        "train/B": range(2251, 4501),
        "test/A": range(4501, 5001),
        "test/B": range(4501, 5001),
    }
    assert fivek.Split().counts(pairs=False) == (2250, 2250, 500, 500)
    assert fivek.Split().counts(pairs=True) == (4500, 4500, 500, 500)


@pytest.mark.parametrize("inside", ["FiveK/FiveK_480p", "datasets/FiveK/FiveK_480p", "FiveK_480p"])
def test_the_package_becomes_a_data_set_that_the_library_finds(layout, tmp_path, capsys, inside):
    run(tmp_path / "data", archive=str(pack(layout, tmp_path / "FiveK.zip", inside)))
    root = data.find(tmp_path / "data")
    assert root == tmp_path / "data" / "FiveK_480p"
    assert len(data.UnpairedCrops(root / "train/A", root / "train/B", crop=64)) == 3
    assert len(data.TestPairs(root / "test/A", root / "test/B")) == 2
    assert manifest.verify(root) == 10
    shown = capsys.readouterr()
    assert "LicenseAdobe.txt" in shown.err
    assert "is ready" in shown.out
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"FiveK_480p", "FiveK.zip.sha256"}


def test_an_unpacked_package_is_copied(layout, tmp_path):
    run(tmp_path / "data", archive=str(layout.parent))
    assert manifest.verify(tmp_path / "data" / "FiveK_480p") == 10
    assert layout.is_dir()


def test_a_data_set_that_lies_there_already_is_checked_and_recorded(layout, tmp_path):
    shutil.move(layout, tmp_path / "data" / "FiveK_480p")
    run(tmp_path / "data")
    assert manifest.verify(tmp_path / "data" / "FiveK_480p") == 10


def test_the_terms_come_first(layout, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match="--accept-licence"):
        fivek.main(root=tmp_path / "data", archive=str(pack(layout, tmp_path / "FiveK.zip")))
    assert not (tmp_path / "data").exists()


def test_verify_only_names_what_changed_and_changes_nothing(layout, tmp_path, capsys):
    run(tmp_path / "data", archive=str(pack(layout, tmp_path / "FiveK.zip")))
    fivek.main(root=tmp_path / "data", verify_only=True)
    assert "10 files, all as they were prepared" in capsys.readouterr().out
    victim = tmp_path / "data/FiveK_480p/train/B/0005.jpg"
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"1 changed \(train/B/0005\.jpg\)"):
        fivek.main(root=tmp_path / "data", verify_only=True)
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        fivek.main(root=tmp_path / "nowhere", verify_only=True)


def small(layout: Path) -> None:
    Image.new("RGB", (128, 63)).save(layout / "train/A/0002.jpg")


def other_name(layout: Path) -> None:
    (layout / "test/B/4502.jpg").rename(layout / "test/B/4503.jpg")


def other_size(layout: Path) -> None:
    Image.new("RGB", (128, 97)).save(layout / "test/B/4502.jpg")


def one_less(layout: Path) -> None:
    (layout / "train/B/0004.jpg").unlink()


def no_targets(layout: Path) -> None:
    shutil.rmtree(layout / "test/B")


def truncated(layout: Path) -> None:
    victim = layout / "train/A/0001.jpg"
    victim.write_bytes(victim.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (small, r"1 in train/A have a side below 64 pixels: .*0002\.jpg \(128 x 63\)"),
        (other_name, "test/A and test/B have different names: 4502, 4503"),
        (other_size, r"test pairs differ in size: .*4502\.jpg \(128 x 96\) and .*4502\.jpg \(128 x 97\)"),
        (one_less, "train/B holds 2 photographs instead of 3"),
        (no_targets, "test/B does not exist"),
        (truncated, r"0001\.jpg is damaged or cut short"),
    ],
)
def test_a_package_that_is_not_right_is_refused_and_leaves_nothing(layout, tmp_path, damage, message):
    damage(layout)
    with pytest.raises(InputError, match=message):
        run(tmp_path / "data", archive=str(pack(layout, tmp_path / "FiveK.zip")))
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"FiveK.zip.sha256"}


def test_all_problems_are_named_at_once(layout, tmp_path):
    small(layout), one_less(layout), other_size(layout)
    with pytest.raises(InputError, match=r"train/B holds 2 .*; 1 in train/A .*; test pairs differ"):
        run(tmp_path / "data", archive=str(pack(layout, tmp_path / "FiveK.zip")))


def test_pairs_in_the_training_folders_are_remarked_on(miniature_fivek, tmp_path, capsys):
    paired = miniature_fivek(train=3, test=2, paired=True, root=tmp_path / "original" / "FiveK_480p")
    run(tmp_path / "data", archive=str(pack(paired, tmp_path / "FiveK.zip")))
    assert "note: train/A and train/B share 3 names (0001, 0002, 0003)" in capsys.readouterr().err


def test_another_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "FiveK.zip", "w") as packed:
        packed.writestr("readme.txt", "another data set")
    with pytest.raises(InputError, match=r"but there are 0; is this LPTN's FiveK\.zip\?"):
        run(tmp_path / "data", archive=str(tmp_path / "FiveK.zip"))


def test_without_material_it_says_where_to_get_it(tmp_path):
    with pytest.raises(
        InputError, match=r"--archive FiveK\.zip .*github\.com/csjliang/LPTN.*--sources and --targets"
    ):
        run(tmp_path / "data")


def test_the_sizes_are_what_they_are_called():
    assert fivek.SHORT_SIDE == {"480p": 480, "1080p": 1080, "original": None}


@pytest.fixture
def renderings(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Eight camera renderings (JPEG, 8 bits) and expert renderings (TIFF, 16 bits), named as FiveK's.

    They are 60 x 90 pixels, so the short sides that are asked for are a tenth of what they are called.
    """
    for size, short_side in (("480p", 48), ("1080p", 108)):
        monkeypatch.setitem(fivek.SHORT_SIDE, size, short_side)
    folders = tmp_path / "camera", tmp_path / "expert_c"
    for folder in folders:
        folder.mkdir()
    for number in range(1, 9):
        height, width = (60, 90) if number % 2 else (90, 60)
        grey = np.full((height, width, 3), number * 20, np.uint8)
        Image.fromarray(grey).save(folders[0] / f"a{number:04d}-jmac_{9 - number}.jpg", quality=95)
        tifffile.imwrite(
            folders[1] / f"a{number:04d}-jmac_{9 - number}.tif",
            grey.astype(np.uint16) * 257,
            photometric="rgb",
        )
    return folders


def mean(path: Path) -> float:
    return float(np.asarray(Image.open(path), np.float64).mean())


@pytest.mark.parametrize(("size", "short"), [("480p", 48), ("1080p", 60), ("original", 60)])
def test_renderings_are_resized_and_split_by_number(renderings, tmp_path, size, short):
    run(tmp_path / "data", sources=renderings[0], targets=renderings[1], crop=32, size=size)
    root = data.find(tmp_path / "data", size)
    names = {part: sorted(p.name for p in (root / part).iterdir()) for part in fivek.SPLIT.numbers(False)}
    assert names == {
        "train/A": ["0001.jpg", "0002.jpg", "0003.jpg"],
        "train/B": ["0004.jpg", "0005.jpg", "0006.jpg"],
        "test/A": ["0007.jpg", "0008.jpg"],
        "test/B": ["0007.jpg", "0008.jpg"],
    }
    for path in root.rglob("*.jpg"):
        number = int(path.stem)
        assert abs(mean(path) - number * 20) < 1
        long = short * 3 // 2
        assert Image.open(path).size == ((long, short) if number % 2 else (short, long))
    assert manifest.verify(root) == 10


def test_shrinking_averages_areas():
    pixels = np.random.default_rng(0).random((960, 1440, 3), np.float32)
    halved = fivek.shrink(pixels, 480)
    np.testing.assert_allclose(halved, pixels.reshape(480, 2, 720, 2, 3).mean((1, 3)), atol=1e-6)
    assert fivek.shrink(pixels, None) is pixels
    assert fivek.shrink(pixels, 961) is pixels
    assert fivek.shrink(np.zeros((1000, 667, 3), np.float32), 480).shape == (720, 480, 3)


def test_pairs_stand_in_both_training_folders(renderings, tmp_path, capsys):
    run(tmp_path / "data", sources=renderings[0], targets=renderings[1], crop=32, pairs=True)
    root = tmp_path / "data" / "FiveK_480p"
    assert len(data.PairedCrops(root / "train/A", root / "train/B", crop=32)) == 6
    assert "note:" not in capsys.readouterr().err


def test_missing_renderings_are_numbered_and_unneeded_ones_may_be_absent(renderings, tmp_path):
    (renderings[1] / "a0001-jmac_8.tif").unlink()  # photograph 1 is a source only
    (renderings[0] / "a0002-jmac_7.jpg").unlink()
    with pytest.raises(InputError, match="--sources lacks 1 of 5 photographs: numbers 2"):
        run(tmp_path / "data", sources=renderings[0], targets=renderings[1], crop=32)


def test_pairs_of_unequal_size_are_named_before_anything_is_resized(renderings, tmp_path):
    odd = renderings[0] / "a0008-jmac_1.jpg"
    Image.new("RGB", (61, 90)).save(odd)
    with pytest.raises(InputError, match=rf"{odd} is 61 x 90, .*a0008-jmac_1\.tif is 60 x 90"):
        run(tmp_path / "data", sources=renderings[0], targets=renderings[1], crop=32)
    assert not (tmp_path / "data").exists()


def test_names_without_or_with_equal_numbers_are_named(renderings, tmp_path):
    Image.new("RGB", (60, 90)).save(renderings[0] / "1-copy.jpg")
    with pytest.raises(InputError, match="are both number 1; keep one"):
        run(tmp_path / "data", sources=renderings[0], targets=renderings[1], crop=32)
    (renderings[0] / "1-copy.jpg").rename(renderings[0] / "holiday.jpg")
    with pytest.raises(InputError, match=r"holiday\.jpg has no number"):
        run(tmp_path / "data", sources=renderings[0], targets=renderings[1], crop=32)


def test_a_damaged_rendering_stops_the_build_and_leaves_nothing(renderings, tmp_path):
    victim = renderings[0] / "a0003-jmac_6.jpg"
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"a0003-jmac_6\.jpg"):
        run(tmp_path / "data", sources=renderings[0], targets=renderings[1], crop=32)
    assert list((tmp_path / "data").iterdir()) == []


def test_the_command_line_prints_one_line_and_ends_with_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fivek", "--root", str(tmp_path), "--verify-only"])
    with pytest.raises(SystemExit) as ended:
        command.run(fivek.app)
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {tmp_path / 'FiveK_480p'} has no manifest.json")
    assert len(shown.strip().splitlines()) == 1


def test_the_command_line_does_what_its_help_says(layout, tmp_path, monkeypatch, capsys):
    packed = pack(layout, tmp_path / "FiveK.zip")
    arguments = ["--root", str(tmp_path), "--archive", str(packed), "--crop", "64", "--accept-licence"]
    monkeypatch.setattr("sys.argv", ["fivek", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.run(fivek.app)
    assert ended.value.code in (0, None)
    assert manifest.verify(tmp_path / "FiveK_480p") == 10
