"""Class maps come back as they were saved, and the CRF makes masks of a folder of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cvpr21lib.eps import saved_maps
from cvpr21lib.eps.mask_folder import fill
from cvpr21lib.eps.pseudo_masks import ClassMaps, mask
from cvpr21lib.eps.saved_maps import CLASS_MAPS, crf_mask, crf_masks
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import masks
from cvpr21lib.segmentation.crf import PSA
from cvpr21lib.segmentation.stored import DamagedFile

SETTING = replace(PSA, alike_xy=10, iterations=3)
NAMES = ["one", "none", "two"]


def found(*classes: int, height: int = 12, width: int = 16) -> ClassMaps:
    generator = torch.Generator().manual_seed(len(classes))
    return ClassMaps(classes, torch.rand(len(classes), height, width, generator=generator))


@pytest.fixture
def folders(tmp_path):
    """Three images of noise: with one class, without any, with two."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    saved = {"one": found(3), "none": found(), "two": found(0, 19)}
    for name in NAMES:
        noise = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{name}.png")
    fill(tmp_path / "maps", NAMES, saved.get, "net", kind=CLASS_MAPS, progress=False)
    return tmp_path


def refine(root, **how):
    return crf_masks(
        root / "maps",
        NAMES,
        lambda name: root / "images" / f"{name}.png",
        root / "masks",
        **({"setting": SETTING, "progress": False} | how),
    )


def test_maps_come_back_to_half_precision(tmp_path):
    before = found(1, 4, 7)
    saved_maps.write(tmp_path / "a.npz", before, "abc")
    after = saved_maps.read(tmp_path / "a.npz")
    assert after.classes == before.classes
    assert after.maps.dtype == torch.float32
    torch.testing.assert_close(after.maps, before.maps, rtol=0, atol=2.5e-4)
    assert saved_maps.read_fingerprint(tmp_path / "a.npz") == "abc"
    assert mask(after).shape == (12, 16)


def test_an_image_without_classes_keeps_its_size(tmp_path):
    saved_maps.write(tmp_path / "a.npz", found(), "abc")
    assert mask(saved_maps.read(tmp_path / "a.npz")).shape == (12, 16)


def test_the_crf_decides_between_background_and_labelled_classes_only(folders):
    assert refine(folders) == (3, 0, {})
    values = {name: set(np.unique(masks.read(folders / "masks" / f"{name}.png", 21))) for name in NAMES}
    assert values["none"] == {0}
    assert values["one"] <= {0, 4}
    assert values["two"] <= {0, 1, 20}
    assert {4, 1, 20} <= values["one"] | values["two"]


def test_the_larger_alpha_the_more_foreground(folders):
    image = np.asarray(Image.open(folders / "images" / "two.png"))
    maps = ClassMaps((0, 19), 0.6 * found(0, 19).maps)
    shares = [(crf_mask(image, maps, SETTING, alpha) > 0).mean() for alpha in (0.5, 1, 4, 32)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


def test_only_what_has_changed_is_made_again(folders):
    refine(folders)
    assert refine(folders).made == 0
    saved_maps.write(folders / "maps" / "one.npz", found(3), "another net")
    assert refine(folders) == (1, 2, {})
    assert refine(folders, alpha=32).made == 3
    assert refine(folders, alpha=32, setting=replace(SETTING, iterations=4)).made == 3


def test_missing_class_maps_are_named_before_any_work(folders):
    (folders / "maps" / "two.npz").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images have no class maps in .*: two; make them first"):
        refine(folders)
    assert not (folders / "masks").exists()


def test_a_damaged_image_is_skipped_if_asked_for(folders):
    (folders / "images" / "one.png").write_bytes(b"\x89PNG nothing more")
    with pytest.warns(UserWarning, match=r"one.png is damaged"):
        assert set(refine(folders, on_damage="skip", workers=2).damaged) == {"one"}


def test_the_mask_of_class_maps_that_are_damaged_now_does_not_stay(folders):
    refine(folders)
    (folders / "maps" / "two.npz").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"two.npz are damaged"):
        assert refine(folders, on_damage="skip")[:2] == (0, 2)
    assert {path.stem for path in (folders / "masks").iterdir()} == {"one", "none"}


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
def test_damaged_class_maps_are_named(folders, keep):
    path = folders / "maps" / "two.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedFile, match=r"two.npz are damaged"):
        refine(folders)


def test_an_image_of_another_size_than_its_maps_is_refused(folders):
    Image.new("RGB", (16, 13)).save(folders / "images" / "two.png")
    with pytest.raises(InputError, match="13 x 16 pixels, its label maps have 12 x 16"):
        refine(folders)
