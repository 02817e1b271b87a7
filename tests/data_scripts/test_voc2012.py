"""VOC 2012 and SBD from their archives, in miniature."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from cvpr21lib.eps import data
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import masks, voc
from data_scripts import manifest, voc2012
from tests.eps import miniature


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    """Three images of train, three more of SBD, two of val."""
    monkeypatch.setattr(voc2012, "COUNTS", miniature.voc_counts())


@pytest.fixture
def raw(tmp_path) -> tuple[Path, Path]:
    """What the two archives hold."""
    return miniature.voc_and_sbd(tmp_path / "raw")


@pytest.fixture
def run(raw, tmp_path, monkeypatch):
    """Packs what is there now, and runs the script on the archives."""

    def call(**options: object) -> Path:
        ours, theirs = raw
        packed = {
            "VOC_ARCHIVE": miniature.tar(ours.parent, "VOCdevkit", tmp_path / "VOCtrainval_11-May-2012.tar"),
            "SBD_ARCHIVE": miniature.tar(theirs.parent, "benchmark_RELEASE", tmp_path / "benchmark.tgz"),
        }
        for name, archive in packed.items():
            monkeypatch.setattr(voc2012, name, miniature.described(archive))
        given = dict(zip(("voc_archive", "sbd_archive"), packed.values(), strict=True))
        voc2012.main(root=tmp_path / "data", accept_licence=True, **{**given, **options})
        return tmp_path / "data" / "VOC2012"

    return call


def test_what_must_arrive_is_what_the_sheet_and_torchvision_say():
    counts = voc2012.Counts()
    assert (counts.train, counts.val, counts.train_aug) == (1_464, 1_449, 10_582)
    assert sum(counts.per_class) / counts.train_aug == pytest.approx(1.555, abs=5e-4)
    assert voc2012.VOC_ARCHIVE.md5 == DATASET_YEAR_DICT["2012"]["md5"]
    assert voc2012.VOC_ARCHIVE.url == DATASET_YEAR_DICT["2012"]["url"]
    assert (voc2012.SBD_ARCHIVE.md5, voc2012.SBD_ARCHIVE.url) == (SBDataset.md5, SBDataset.url)


def test_two_archives_become_a_data_set_that_the_library_finds(run, tmp_path, capsys):
    folder = run()
    layout = data.find(tmp_path / "data", "voc12")
    assert layout.names("train_aug") == (
        *(f"2007_{n:06d}" for n in range(3)),
        *(f"2008_{n:06d}" for n in range(3)),
    )
    assert len(data.Folders(layout, "train_aug", masks=True).names) == 6
    assert len(data.Folders(layout, "val", masks=True).names) == 2
    assert manifest.verify(folder) == 40
    assert {path.name for path in folder.parent.iterdir()} == {"VOC2012"}
    shown = capsys.readouterr()
    assert "Database Rights" in shown.err
    assert "note:" not in shown.err, "the labels are as they should be"
    assert "is ready" in shown.out


def test_masks_are_vocs_own_where_it_has_one_else_sbds(run, raw):
    folder, (ours, _) = run(), raw
    for name in ("2007_000001", "2009_000000"):
        own = masks.read(ours / voc.VOC_MASKS / f"{name}.png", 21)
        np.testing.assert_array_equal(masks.read(folder / voc.MASKS / f"{name}.png", 21), own)
        sbd = masks.read(folder / voc.SBD_MASKS / f"{name}.png", 21)
        assert (own == masks.VOID).any()
        assert not (sbd == masks.VOID).any()
        np.testing.assert_array_equal(sbd[own != masks.VOID], own[own != masks.VOID])
    extra = folder / voc.MASKS / "2008_000001.png"
    assert extra.read_bytes() == (folder / voc.SBD_MASKS / extra.name).read_bytes()


def test_sbds_images_of_vocs_val_are_not_trained_on(run, raw):
    folder, (_, theirs) = run(), raw
    assert "2009_000000" in (theirs / "train.txt").read_text()
    assert "2009_000000" not in (folder / "ImageSets/Segmentation/train_aug.txt").read_text()
    assert (folder / voc.SBD_MASKS / "2009_000000.png").exists(), "boundaries are judged on it"


def test_without_an_annotation_the_mask_gives_the_labels(run, raw, tmp_path):
    (raw[0] / "Annotations/2008_000001.xml").unlink()
    run()
    labels = data.find(tmp_path / "data", "voc12").labels()
    assert labels["2008_000001"] == (voc.CLASSES.index("train"),)


def test_both_archives_are_fetched_where_none_is_given(raw, tmp_path, site, monkeypatch):
    tar = miniature.tar(raw[0].parent, "VOCdevkit", tmp_path / "VOCtrainval_11-May-2012.tar")
    tgz = miniature.tar(raw[1].parent, "benchmark_RELEASE", tmp_path / "benchmark.tgz")
    host = site.url.removesuffix("data.zip")
    monkeypatch.setattr(voc2012, "VOC_ARCHIVE", miniature.described(tar, host + tar.name))
    monkeypatch.setattr(voc2012, "SBD_ARCHIVE", miniature.described(tgz, host + tgz.name))
    site.plan = [
        lambda handler: handler.send(tar.read_bytes(), only=70_000),
        lambda handler: handler.send(tar.read_bytes()),
        lambda handler: handler.send(tgz.read_bytes()),
    ]
    voc2012.main(root=tmp_path / "data", accept_licence=True)
    assert manifest.verify(tmp_path / "data/VOC2012") == 40
    assert len(site.requests) == 3
    assert "Range" in site.requests[1], "the broken transfer went on"


def test_an_interrupted_preparation_goes_on_and_a_finished_one_is_left_alone(run, raw, tmp_path, capsys):
    victim = raw[1] / "cls/2008_000001.mat"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"2008_000001\.mat is damaged"):
        run()
    folder = tmp_path / "data/VOC2012"
    assert (folder / "JPEGImages").is_dir()
    assert not list(folder.glob(".*")), "nothing half-done is left"
    with pytest.raises(InputError, match="VOC2012 is there but not prepared"):
        data.find(tmp_path / "data", "voc12")
    victim.write_bytes(whole)
    run(voc_archive=tmp_path / "not needed again")
    recorded = (folder / manifest.NAME).read_text()
    (folder / voc.MASKS / "2008_000001.png").unlink()
    run(voc_archive=None, sbd_archive=None)
    assert "note: it was prepared before; --verify-only compares" in capsys.readouterr().err
    assert (folder / manifest.NAME).read_text() == recorded
    with pytest.raises(InputError, match=r"1 missing \(SegmentationClassAug/2008_000001\.png\)"):
        run(verify_only=True)


def test_a_voc_folder_of_ones_own_is_used(run, raw, tmp_path):
    shutil.copytree(raw[0], tmp_path / "data/VOC2012")
    run(voc_archive=None)
    assert manifest.verify(tmp_path / "data/VOC2012") == 40


def test_the_terms_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match="--accept-licence"):
        voc2012.main(root=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def other_size(ours: Path, theirs: Path) -> None:
    savemat(theirs / "cls/2008_000000.mat", {"GTcls": {"Segmentation": np.zeros((5, 7), np.uint8)}})


def other_class(ours: Path, theirs: Path) -> None:
    savemat(theirs / "cls/2007_000001.mat", {"GTcls": {"Segmentation": np.full((49, 65), 21, np.uint8)}})


def other_matrix(ours: Path, theirs: Path) -> None:
    savemat(theirs / "cls/2007_000001.mat", {"GTinst": {"Segmentation": np.zeros((49, 65), np.uint8)}})


def unlisted(ours: Path, theirs: Path) -> None:
    (theirs / "cls/2008_000002.mat").unlink()


def other_object(ours: Path, theirs: Path) -> None:
    path = ours / "Annotations/2008_000002.xml"
    path.write_text(path.read_text().replace("<name>boat", "<name>barque"))


def fewer(ours: Path, theirs: Path) -> None:
    (ours / "JPEGImages/2009_000001.jpg").unlink()
    (ours / "ImageSets/Segmentation/train.txt").write_text("2007_000000\n2007_000001\n")


def another_archive(ours: Path, theirs: Path) -> None:
    ours.rename(ours.with_name("VOC2007"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_size, r"2008_000000\.mat is a mask of \(5, 7\) pixels, but .*2008_000000\.jpg has \(48, 67\)"),
        (other_class, r"2007_000001\.mat holds the class 21; expected 0 to 20"),
        (other_matrix, r"2007_000001\.mat is damaged, or no mask of SBD \('GTcls'\)"),
        (unlisted, r"2008_000002\.mat does not exist, but SBD's lists name it"),
        (other_object, r"2008_000002\.xml names an object 'barque'"),
        (
            fewer,
            r"7 images instead of 8; 2 names in train instead of 3; 1 without image \(2009_000001\)\.",
        ),
        (another_archive, r"holds no VOCdevkit/VOC2012/JPEGImages; is it the VOC 2012 archive\?"),
    ],
)
def test_what_is_not_right_is_named_and_never_taken_for_whole(run, raw, tmp_path, damage, message):
    damage(*raw)
    with pytest.raises(InputError, match=message):
        run()
    with pytest.raises(InputError, match="VOC2012"):
        data.find(tmp_path / "data", "voc12")


def test_images_without_any_label_and_other_labels_than_epss_are_remarked_on(run, raw, capsys):
    (raw[0] / "Annotations/2008_000001.xml").write_text("<annotation></annotation>")
    run()
    remarks = capsys.readouterr().err
    assert "note: 1 training images show none of the classes (2008_000001)" in remarks
    assert "note: the labels of train_aug are not quite EPS's: 2 train instead of 3" in remarks


def test_void_everywhere_shows_no_class(run, raw, capsys, tmp_path):
    path = raw[0] / voc.VOC_MASKS / "2007_000001.png"
    masks.write(path, np.full_like(masks.read(path, 21), masks.VOID))
    (raw[0] / "Annotations/2007_000001.xml").unlink()
    run()
    assert "show none of the classes (2007_000001)" in capsys.readouterr().err
    assert data.find(tmp_path / "data", "voc12").labels()["2007_000001"] == ()
