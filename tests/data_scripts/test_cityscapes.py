"""Cityscapes from its archives, in miniature."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import cityscapes as library
from cvpr21lib.segmentation.cityscapes import Camera, Cityscapes
from data_scripts import cityscapes, manifest
from tests.ctrl_uda import miniature
from tests.eps.miniature import zipped

PUBLISHED = dict(cityscapes.ARCHIVES)
SPLIT_TREE = "{0}_trainvaltest/{0}"


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(cityscapes, "FRAMES", {"train": 3, "val": 2})
    unchecked = {part: archive._replace(md5=None) for part, archive in PUBLISHED.items()}
    monkeypatch.setattr(cityscapes, "ARCHIVES", unchecked)


@pytest.fixture
def raw(tmp_path) -> Path:
    """What the four archives hold."""
    return miniature.cityscapes_raw(tmp_path / "raw")


@pytest.fixture
def pack(raw, tmp_path):
    """Packs the parts into the archives named after them."""

    def call(*parts: str) -> Path:
        (tmp_path / "archives").mkdir(exist_ok=True)
        for part in parts:
            name = Cityscapes.SPELLINGS[part][0]
            zipped(raw / name, tmp_path / "archives" / cityscapes.ARCHIVES[part].names[0])
        return tmp_path / "archives"

    return call


def run(root: Path, **options: object) -> Cityscapes:
    cityscapes.main(root=root, **{"workers": 2, "accept_licence": True, **options})
    return Cityscapes.find(root)


def test_what_must_arrive_is_what_the_sheet_says(monkeypatch):
    monkeypatch.undo()
    assert {archive.names[0] for archive in PUBLISHED.values()} == {
        "leftImg8bit_trainvaltest.zip",
        "gtFine_trainvaltest.zip",
        "disparity_trainvaltest.zip",
        "camera_trainvaltest.zip",
    }
    assert cityscapes.FRAMES == {"train": 2_975, "val": 500}


def test_two_archives_become_a_data_set_without_depth(pack, tmp_path, capsys):
    data = run(tmp_path / "data", archives=pack("images", "labels"))
    assert data.folders == {"images": "leftImg8bit", "labels": "gtFine"}
    assert data.frames("train") == tuple(
        (name, 32, 64) for name in ("aachen_000000_000019", "aachen_000002_000019", "bremen_000001_000019")
    )
    assert len(data.frames("val")) == 2
    assert manifest.verify(data.root) == 3 * 5 + 1
    assert not list(data.root.glob(".*"))
    assert "license.txt" in capsys.readouterr().err


def test_depth_can_come_later(pack, tmp_path, capsys):
    run(tmp_path / "data", archives=pack("images", "labels"))
    run(tmp_path / "data", archives=tmp_path)
    assert "it was prepared before" in capsys.readouterr().err
    with pytest.raises(
        InputError, match=r"needs disparity_trainvaltest\.zip \(3\.5 GB\), camera_trainvaltest"
    ):
        run(tmp_path / "data", archives=tmp_path / "archives", depth=True)
    data = run(tmp_path / "data", archives=pack("disparity", "camera"), depth=True)
    assert set(data.folders) == {"images", "labels", "disparity", "camera"}
    assert manifest.verify(data.root) == 5 * 5 + 1
    assert np.isfinite(data.depth("val", "frankfurt_000000_000019")[:, 4:]).all()
    run(tmp_path / "data")
    assert set(Cityscapes.find(tmp_path / "data").folders) == set(data.folders), "not forgotten"


def test_killed_before_the_manifest_is_written_it_is_not_taken_for_whole(raw, tmp_path, monkeypatch):
    raw.rename(tmp_path / "Cityscapes")
    run(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, depth=True)
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        cityscapes.main(root=tmp_path, verify_only=True)
    assert manifest.verify(run(tmp_path, depth=True).root) == 26


def test_archives_that_are_missing_are_named_together(tmp_path):
    with pytest.raises(InputError) as error:
        run(tmp_path)
    message = str(error.value)
    assert "leftImg8bit_trainvaltest.zip (11 GB), gtFine_trainvaltest.zip (241 MB)" in message
    assert "disparity" not in message
    assert "Register at https://www.cityscapes-dataset.com" in message


@pytest.mark.parametrize("folders", ["{}", SPLIT_TREE])
def test_both_spellings_of_the_folders_are_taken(tmp_path, folders):
    miniature.cityscapes_raw(tmp_path / "Cityscapes", folders=folders)
    data = run(tmp_path, depth=True)
    assert data.folders["camera"] == folders.format("camera")
    assert data.ids("val", "munster_000001_000019").shape == (32, 64)
    assert data.depth("train", "bremen_000001_000019").shape == (32, 64)


def test_an_archive_that_did_not_arrive_whole_is_refused(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(cityscapes, "ARCHIVES", PUBLISHED)
    with pytest.raises(InputError, match=r"leftImg8bit_trainvaltest\.zip has the MD5 .* instead of 0a6e97e9"):
        run(tmp_path / "data", archives=pack("images", "labels"))
    assert not (tmp_path / "data/Cityscapes").exists()


def test_another_archive_under_the_right_name_is_refused(pack, tmp_path):
    archives = pack("images", "labels")
    shutil.copy(archives / "gtFine_trainvaltest.zip", archives / "leftImg8bit_trainvaltest.zip")
    with pytest.raises(InputError, match="holds no folder leftImg8bit; is it another archive"):
        run(tmp_path / "data", archives=archives)


def test_all_problems_are_named_at_once(raw, tmp_path):
    (raw / "leftImg8bit/train/bremen/bremen_000001_000019_leftImg8bit.png").unlink()
    (raw / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png").unlink()
    Image.new("L", (64, 31)).save(raw / "gtFine/train/aachen/aachen_000002_000019_gtFine_labelIds.png")
    ids = np.full((32, 64), 255, np.uint8)
    Image.fromarray(ids).save(raw / "gtFine/val/munster/munster_000001_000019_gtFine_labelIds.png")
    raw.rename(tmp_path / "Cityscapes")
    with pytest.raises(InputError) as error:
        run(tmp_path)
    for part in (
        "2 images for train instead of 3",
        "1 frames without label (aachen_000000_000019)",
        "aachen_000002_000019_gtFine_labelIds.png has 64 x 31",
        "munster_000001_000019_gtFine_labelIds.png holds the ids 255; expected 0 to 33",
    ):
        assert part in str(error.value)


def test_depth_is_decoded_before_it_is_trusted(raw, tmp_path):
    place = raw / "disparity/val/munster/munster_000001_000019_disparity.png"
    Image.fromarray(np.full((32, 64), 7, np.uint8)).save(place)
    camera = raw / "camera/val/frankfurt/frankfurt_000000_000019_camera.json"
    camera.write_text(json.dumps({"extrinsic": {}, "intrinsic": {"fx": 1}}))
    raw.rename(tmp_path / "Cityscapes")
    assert run(tmp_path).frames("val"), "what is not asked for is not looked at"
    with pytest.raises(InputError) as error:
        run(tmp_path, depth=True)
    assert "munster_000001_000019_disparity.png is a PNG of 8 bits" in str(error.value)
    assert "frankfurt_000000_000019_camera.json is damaged, or no camera" in str(error.value)


def test_cameras_that_cannot_be_are_refused(tmp_path):
    path = tmp_path / "a_camera.json"
    with pytest.raises(InputError, match=r"a_camera\.json does not exist"):
        library.read_camera(path)
    path.write_text(json.dumps({"extrinsic": {"baseline": 0}, "intrinsic": {"fx": 2262.5}}))
    with pytest.raises(InputError, match=r"baseline 0\.0 and fx 2262\.5; both must be above 0"):
        library.read_camera(path)


def test_depth_from_disparity_is_baseline_times_focal_length_by_shift():
    disparity = np.array([[0, 1, 257, 2561]], np.uint16)
    depth = library.metres(disparity, Camera(baseline=0.2, fx=2000))
    np.testing.assert_allclose(depth, [[np.nan, 400, 400, 40]], rtol=1e-6)
    assert np.isnan(library.metres(np.array([[0, 1]], np.uint16), Camera(0.2, 2000))).all()


def test_the_terms_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match="--accept-licence"):
        run(tmp_path / "data", accept_licence=False)
    assert not (tmp_path / "data").exists()


def test_what_changed_is_noticed(raw, tmp_path, capsys):
    raw.rename(tmp_path / "Cityscapes")
    data = run(tmp_path)
    cityscapes.main(root=tmp_path, verify_only=True)
    assert "all as they were prepared" in capsys.readouterr().out
    data.image("val", "munster_000001_000019").unlink()
    with pytest.raises(InputError, match=r"1 missing \(leftImg8bit/val/munster"):
        cityscapes.main(root=tmp_path, verify_only=True)
