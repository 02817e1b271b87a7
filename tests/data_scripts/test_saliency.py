"""Saliency maps of the user's own, looked at one by one; and a fallback."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvpr21lib.eps import data
from cvpr21lib.eps.sources import FALLBACK
from cvpr21lib.errors import InputError
from cvpr21lib.sampling import Draw
from data_scripts import command, manifest, saliency, voc2012
from tests.conftest import photograph
from tests.eps import miniature


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A prepared miniature VOC 2012 without saliency."""
    ours, theirs = miniature.voc_and_sbd(tmp_path / "raw")
    archive = miniature.tar(theirs.parent, "benchmark_RELEASE", tmp_path / "benchmark.tgz")
    monkeypatch.setattr(voc2012, "SBD_ARCHIVE", miniature.described(archive))
    monkeypatch.setattr(voc2012, "COUNTS", miniature.voc_counts())
    (tmp_path / "data").mkdir()
    ours.rename(tmp_path / "data/VOC2012")
    voc2012.prepare(tmp_path / "data/VOC2012", sbd_archive=archive)
    return tmp_path / "data"


@pytest.fixture
def maps(root, tmp_path) -> Path:
    """Somebody's saliency map for each training image, and for others."""
    folder = tmp_path / "SALImages_pyramid"
    folder.mkdir()
    layout = data.find(root, "voc12")
    for name in (*layout.names("train_aug"), *layout.names("val")):
        with Image.open(layout.image(name)) as image:
            image.convert("L").save(folder / f"{name}.png")
    return folder


def loaded(root: Path, **options: object) -> data.Folders:
    layout = data.find(root, "voc12")
    return data.Folders(layout, "train_aug", data.find_saliency(layout, **options))


def test_maps_are_copied_beside_the_data_set_where_the_library_finds_them(root, maps, capsys):
    saliency.main(root=root, source=maps, workers=2)
    source = loaded(root)
    assert source.saliency_kind == "given"
    for index, name in enumerate(source.names):
        np.testing.assert_array_equal(source.saliency(index), np.asarray(Image.open(maps / f"{name}.png")))
    assert manifest.verify(root / "VOC2012_saliency") == 6, "those of the training images"
    assert manifest.verify(root / "VOC2012"), "the data set itself is as it was"
    assert "VOC2012_saliency is ready" in capsys.readouterr().out


def test_an_archive_of_maps_is_opened_however_deep_they_lie(root, maps, tmp_path):
    archive = miniature.zipped(maps.rename(tmp_path / "raw" / "deep").parent, tmp_path / "saliency.zip")
    saliency.main(root=root, source=archive)
    assert loaded(root).saliency_kind == "given"


def missing(maps: Path) -> None:
    (maps / "2008_000001.png").unlink()


def other_size(maps: Path) -> None:
    Image.new("L", (20, 10), 9).save(maps / "2008_000001.png")


def coloured(maps: Path) -> None:
    Image.fromarray(photograph(0, 64, 48)).save(maps / "2008_000001.png")


def truncated(maps: Path) -> None:
    victim = maps / "2008_000001.png"
    victim.write_bytes(victim.read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, "1 missing"),
        (other_size, "1 of another size"),
        (coloured, "1 coloured"),
        (truncated, "1 damaged"),
    ],
)
def test_a_map_that_cannot_be_used_is_named_and_leaves_nothing(root, maps, damage, message):
    damage(maps)
    with pytest.raises(InputError, match=rf"Of 6 saliency maps in .*{message} \(2008_000001\)"):
        saliency.main(root=root, source=maps)
    assert {path.name for path in root.iterdir()} == {"VOC2012"}


def test_all_kinds_of_problems_are_named_at_once(root, maps):
    coloured(maps)
    (maps / "2007_000000.png").unlink()
    with pytest.raises(InputError, match=r"1 missing \(2007_000000\); 1 coloured \(2008_000001\)"):
        saliency.main(root=root, source=maps)


def blacken(path: Path) -> None:
    with Image.open(path) as image:
        size = image.size
    Image.new("L", size).save(path)


def test_an_all_black_map_is_remarked_on_and_used(root, maps, capsys):
    blacken(maps / "2008_000001.png")
    saliency.main(root=root, source=maps)
    assert "note: 1 maps are all black (2008_000001)" in capsys.readouterr().err
    assert loaded(root).saliency_kind == "given"


def test_only_black_maps_are_refused(root, maps):
    for path in maps.iterdir():
        blacken(path)
    with pytest.raises(InputError, match=r"6 black: nothing is salient anywhere \(2007_000000, "):
        saliency.main(root=root, source=maps)


def test_a_folder_of_something_else_is_refused(root, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"other holds no saliency map such as 2007_000000\.png"):
        saliency.main(root=root, source=tmp_path / "other")


def test_either_a_source_or_a_fallback(root, maps):
    with pytest.raises(InputError, match="either --source with your saliency maps, or --fallback"):
        saliency.main(root=root)
    with pytest.raises(InputError, match="either --source with your saliency maps, or --fallback"):
        saliency.main(root=root, source=maps, fallback=True)


def test_without_the_data_set_it_says_how_to_bring_it(tmp_path):
    with pytest.raises(InputError, match=r"VOC2012 was not found.*data_scripts\.voc2012"):
        saliency.main(root=tmp_path, fallback=True)


def test_the_fallback_makes_every_map_and_each_says_what_it_is(root):
    saliency.main(root=root, fallback=True, workers=2)
    folder = root / "VOC2012_saliency_fallback"
    source = loaded(root, saliency_root=folder)
    assert source.saliency_kind == "fallback"
    assert source.fingerprint().startswith("fallback-")
    assert data.Training(source, data.Augmentation((40, 60), 32))[Draw(0, 0)]["saliency"].shape == (1, 32, 32)
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "L"
            assert image.info["Description"] == FALLBACK
    assert manifest.read(folder)["about"] == {"fallback": FALLBACK}
    with pytest.raises(InputError, match="saliency_root"):
        loaded(root)


def test_an_interrupted_fallback_goes_on_where_it_stopped(root):
    saliency.main(root=root, fallback=True)
    folder = root / "VOC2012_saliency_fallback"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    (folder / "2007_000002.png").unlink()
    saliency.main(root=root, fallback=True)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    assert {name for name in after if after[name] != before[name]} == {"2007_000002.png"}
    saliency.main(root=root, fallback=True, verify_only=True)


def test_an_object_in_the_middle_stands_out_and_its_inside_too():
    image = photograph(0, 90, 120) // 8 + 100
    image[30:60, 40:80] = (200, 40, 40)
    found = saliency.geodesic(image)
    assert found.shape == (90, 120)
    assert found.dtype == np.uint8
    inside = np.zeros((90, 120), bool)
    inside[33:57, 43:77] = True
    around = np.zeros((90, 120), bool)
    around[25:65, 35:85] = True
    assert found[inside].min() > 150
    assert found[~around].max() < 60


def test_what_touches_the_border_does_not_stand_out():
    image = np.full((90, 120, 3), 120, np.uint8)
    image[:, :40] = (200, 40, 40)
    assert saliency.geodesic(image)[:, :20].max() < 30


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 40, 3), (40, 3, 3)])
def test_a_uniform_image_of_any_shape_has_nothing_salient(shape):
    assert saliency.geodesic(np.full(shape, 90, np.uint8)).max() <= 1


def test_mirrored_images_have_mirrored_saliency():
    image = photograph(3, 80, 100)
    found = saliency.geodesic(image).astype(int)
    mirrored = saliency.geodesic(np.ascontiguousarray(image[:, ::-1]))[:, ::-1].astype(int)
    assert np.abs(found - mirrored).max() <= 2


def test_the_command_line_takes_the_short_names(root, maps, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["saliency", "--root", str(root), "--dataset", "voc12", "--source", str(maps)]
    )
    with suppress(SystemExit):
        command.run(saliency.app)
    assert manifest.verify(root / "VOC2012_saliency") == 6
