"""SYNTHIA from its archive, in miniature."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import synthia as library
from cvpr21lib.segmentation.streets import INDEX
from cvpr21lib.segmentation.synthia import Synthia
from data_scripts import manifest, synthia
from tests.ctrl_uda import miniature
from tests.eps.miniature import zipped


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(synthia, "FRAMES", 4)


@pytest.fixture
def raw(tmp_path) -> Path:
    """What the archive holds."""
    return miniature.synthia_raw(tmp_path / "raw/RAND_CITYSCAPES")


@pytest.fixture
def run(raw, tmp_path):
    """Packs what is there now, and runs the script on the archive (a zip: names do not decide)."""

    def call(name: str = "SYNTHIA_RAND_CITYSCAPES.rar", **options: object) -> Path:
        (tmp_path / "archives").mkdir(exist_ok=True)
        zipped(raw, tmp_path / "archives" / name)
        given = {"archives": tmp_path / "archives", "workers": 2, "accept_licence": True, **options}
        synthia.main(root=tmp_path / "data", **given)
        return tmp_path / "data/Synthia/RAND_CITYSCAPES"

    return call


def test_there_are_9400_frames_and_23_ids(monkeypatch):
    monkeypatch.undo()
    assert synthia.FRAMES == 9_400
    assert len(library.CLASSES) == 23


def test_the_archive_becomes_a_data_set_that_the_library_finds(run, tmp_path, capsys):
    folder = run()
    data = Synthia.find(tmp_path / "data")
    assert data.root == folder
    assert data.frames("train") == tuple((f"{number:07d}", 38, 64) for number in range(4))
    assert data.folders["depth"] == "Depth/Depth"
    assert manifest.verify(folder) == 4 * 5 + 1
    assert {path.name for path in folder.iterdir()} == {
        "RGB", "GT", "Depth", "parsed_LABELS", INDEX, manifest.NAME,
    }  # fmt: skip
    shown = capsys.readouterr()
    assert "CC BY-NC-SA" in shown.err
    assert "is ready" in shown.out


def test_ids_are_the_first_of_three_16_bit_channels(run, tmp_path):
    run()
    data = Synthia.find(tmp_path / "data")
    for number in range(4):
        _, ids, depth = miniature.street(number, 38, 64, sky=1, road=3, shown=miniature.SYNTHIA_SHOWN)
        name = f"{number:07d}"
        np.testing.assert_array_equal(data.ids("train", name), ids)
        np.testing.assert_array_equal(data.depth("train", name), depth)
        parsed = Image.open(data.label("train", name))
        assert parsed.mode == "L"
        assert np.asarray(parsed).max() <= 22


def test_every_id_and_no_other_survives_the_16_bits(tmp_path):
    ids = np.arange(23, dtype=np.uint16).reshape(1, 23)
    path = tmp_path / "all.png"
    miniature.write_channels(path, ids, 1000 + ids, 0 * ids)
    np.testing.assert_array_equal(library.unpack_ids(path), ids)
    assert library.unpack_ids(path).dtype == np.uint8
    miniature.write_channels(path, ids + 1, 0 * ids, 0 * ids)
    with pytest.raises(InputError, match="holds the ids 23; expected 0 to 22"):
        library.unpack_ids(path)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ("grb", r"holds the ids 9\d\d"),
        ("brg", "has nothing but void in its first channel"),
        ("bgr", "has nothing but void in its first channel"),
    ],
)
def test_a_wrong_channel_is_refused(raw, tmp_path, channels, message):
    path = raw / "GT/LABELS/0000001.png"
    right = dict(zip("bgr", np.moveaxis(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), 2, 0), strict=True))
    miniature.write_channels(path, *(right[channel] for channel in channels))
    with pytest.raises(InputError, match=rf"0000001\.png {message}"):
        library.unpack_ids(path)


@pytest.mark.parametrize("kind", ["8 bits", "one channel", "cut short"])
def test_labels_that_were_converted_or_damaged_are_refused(raw, run, kind):
    path = raw / "GT/LABELS/0000002.png"
    message = {
        "8 bits": r"0000002\.png is a PNG of 8 bits; expected 16",
        "one channel": r"0000002\.png has pixels of mode 'I;16'; expected three channels",
        "cut short": r"0000002\.png is damaged or cut short",
    }[kind]
    if kind == "8 bits":
        Image.open(raw / "GT/COLOR/0000002.png").save(path)
    elif kind == "one channel":
        Image.fromarray(np.full((38, 64), 3, np.uint16)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=message):
        run()


def test_all_damaged_labels_are_named_and_nothing_half_made_is_left(raw, run, tmp_path):
    for number in (0, 3):
        path = raw / f"GT/LABELS/{number:07d}.png"
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"2 frames with unusable files .*0000000.*0000003"):
        run()
    folder = tmp_path / "data/Synthia/RAND_CITYSCAPES"
    assert not (folder / "parsed_LABELS").exists()
    assert not list(folder.glob(".*"))
    with pytest.raises(InputError, match="is there but not prepared"):
        Synthia.find(tmp_path / "data")


def test_mended_by_hand_it_goes_on_without_the_archive(raw, run, tmp_path):
    path = raw / "GT/LABELS/0000000.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(InputError):
        run()
    folder = tmp_path / "data/Synthia/RAND_CITYSCAPES"
    (folder / "GT/LABELS/0000000.png").write_bytes(whole)
    run(archives=tmp_path / "nothing here")
    assert len(Synthia.find(tmp_path / "data").frames("train")) == 4


def test_labels_of_ones_own_are_used_but_looked_at(raw, run, tmp_path):
    parsed = raw / "parsed_LABELS"
    parsed.mkdir()
    for number in range(4):
        Image.fromarray(np.full((38, 64), 21, np.uint8)).save(parsed / f"{number:07d}.png")
    Image.fromarray(np.full((38, 64), 255, np.uint8)).save(parsed / "0000001.png")
    with pytest.raises(InputError, match=r"0000001\.png holds the ids 255; .*already mapped to classes"):
        run()
    folder = tmp_path / "data/Synthia/RAND_CITYSCAPES"
    shutil.copy(folder / "parsed_LABELS/0000000.png", folder / "parsed_LABELS/0000001.png")
    run()
    assert (Synthia.find(tmp_path / "data").ids("train", "0000001") == 21).all()


@pytest.mark.parametrize("where", ["Depth/Depth", "Depth"])
def test_depth_may_lie_one_folder_higher(raw, run, where):
    if where == "Depth":
        (raw / "Depth/Depth").rename(raw / "moved")
        (raw / "Depth").rmdir()
        (raw / "moved").rename(raw / "Depth")
    assert Synthia.read(run()).folders["depth"] == where


def test_depth_of_8_bits_or_of_colours_is_refused(raw, run):
    Image.fromarray(np.full((38, 64), 200, np.uint8)).save(raw / "Depth/Depth/0000001.png")
    far = np.full((38, 64), 900, np.uint16)
    miniature.write_channels(raw / "Depth/Depth/0000002.png", far, far + 1, far)
    with pytest.raises(InputError) as error:
        run()
    assert "0000001.png is a PNG of 8 bits; expected 16 bits" in str(error.value)
    assert "0000002.png has 3 channels that differ" in str(error.value)


def test_all_problems_are_named_at_once(raw, run):
    (raw / "Depth/Depth/0000000.png").unlink()
    Image.new("RGB", (64, 37)).save(raw / "RGB/0000002.png")
    (raw / "RGB/0000003.png").unlink()
    with pytest.raises(InputError) as error:
        run()
    for part in (
        "3 images instead of 4",
        "1 frames without depth (0000000)",
        "1 frames with unusable files (Pictures of one frame differ in size",
        "RGB/0000002.png has 64 x 37",
    ):
        assert part in str(error.value)


def test_the_other_archive_is_recognised_by_its_name(tmp_path):
    (tmp_path / "SYNTHIA_RAND_CVPR16.rar").write_bytes(b"Rar!")
    with pytest.raises(InputError, match=r"CVPR16\.rar is SYNTHIA's other random set .*no depth.*CITYSCAPES"):
        synthia.main(root=tmp_path, accept_licence=True)


def test_the_other_archive_is_recognised_by_its_frames(raw, run):
    for path in (raw / "RGB").iterdir():
        path.rename(path.with_name(f"ap_000_01-11-2015_19-20-57_{path.stem}_0_Rand_0.png"))
    with pytest.raises(InputError, match=r"frames like ap_000_.*SYNTHIA's other random set"):
        run()


def test_an_archive_without_depth_is_recognised(raw, run):
    shutil.rmtree(raw / "Depth")
    with pytest.raises(InputError, match=r"no folder Depth\. .*RAND_CVPR16.*no depth"):
        run()


def test_a_missing_archive_is_named_with_where_to_get_it(tmp_path):
    with pytest.raises(
        InputError, match=r"needs SYNTHIA_RAND_CITYSCAPES\.rar .*Register at http.*--archives"
    ):
        synthia.main(root=tmp_path, accept_licence=True)


def test_a_rar_asks_for_the_program_that_opens_it(tmp_path, monkeypatch):
    (tmp_path / "SYNTHIA_RAND_CITYSCAPES.rar").write_bytes(b"Rar!\x1a\x07\x01\x00")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"needs the program bsdtar .*unpack it by hand"):
        synthia.main(root=tmp_path, accept_licence=True)
    assert not (tmp_path / "Synthia/RAND_CITYSCAPES").exists()


def test_the_terms_come_first(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match="--accept-licence"):
        run(accept_licence=False)
    assert not (tmp_path / "data").exists()


def test_a_finished_data_set_is_left_alone_and_verified(run, capsys):
    folder = run()
    run()
    assert "note: it was prepared before" in capsys.readouterr().err
    run(verify_only=True)
    assert "21 files, all as they were prepared" in capsys.readouterr().out
    (folder / "parsed_LABELS/0000002.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 changed \(parsed_LABELS/0000002\.png\)"):
        run(verify_only=True)
