"""Crops of two folders: what a draw decides, and what a user is told when the folders do not fit."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cvpr21lib.errors import InputError
from cvpr21lib.lptn.data import PairedCrops, TestPairs, UnpairedCrops, find
from cvpr21lib.sampling import Batches, Draw

torch.set_num_threads(1)


def place_map(height: int, width: int, offset: float = 0.0) -> np.ndarray:
    """An image whose pixels say where they stand: red = row / 100, green = column / 100, blue = `offset`."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32) / 100
    return np.stack([rows, columns, np.full_like(rows, offset)], axis=-1)


def corner(sample: torch.Tensor) -> tuple[int, int]:
    """Top row and left column of a crop of a place map, however it was flipped."""
    rows, columns = (int((sample[channel].min() * 100).round()) for channel in (0, 1))
    return rows, columns


def test_a_sample_is_two_crops_and_a_mixing_weight(miniature_fivek):
    root = miniature_fivek()
    sample = UnpairedCrops(root / "train/A", root / "train/B", crop=64)[Draw(0, 7)]
    assert {name: tuple(value.shape) for name, value in sample.items()} == {
        "source": (3, 64, 64),
        "target": (3, 64, 64),
        "alpha": (),
    }
    for value in sample.values():
        assert value.dtype == torch.float32
        assert 0 <= value.min() <= value.max() <= 1


def test_a_source_crop_shows_the_pixels_of_its_file(miniature_fivek):
    root = miniature_fivek(train=2, size=(40, 60))
    crop = UnpairedCrops(root / "train/A", root / "train/B", crop=40, augment=False)[Draw(1, 3)]["source"]
    stored = np.asarray(Image.open(root / "train/A/0002.jpg"), np.float32).transpose(2, 0, 1) / 255
    assert any(np.allclose(crop, stored[:, :, left : left + 40], atol=1e-6) for left in range(21))


def test_the_same_draw_gives_the_same_sample_whatever_the_global_random_state(miniature_fivek):
    root = miniature_fivek()
    crops = UnpairedCrops(root / "train/A", root / "train/B", crop=32)
    random.seed(1), torch.manual_seed(1)
    first = crops[Draw(2, 99)]
    random.seed(2), torch.manual_seed(2)
    again = crops[Draw(2, 99)]
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = crops[Draw(2, 100)]
    assert not torch.equal(first["source"], other["source"])
    assert first["alpha"] != other["alpha"]


def test_workers_do_not_change_the_samples(miniature_fivek):
    root = miniature_fivek(train=4, size=(40, 48))
    crops = UnpairedCrops(root / "train/A", root / "train/B", crop=16)

    def batches(workers: int) -> list[dict[str, torch.Tensor]]:
        sampler = Batches(len(crops), 2, seed=10, last=4)
        return list(DataLoader(crops, batch_sampler=sampler, num_workers=workers))

    alone, shared = batches(0), batches(2)
    assert len(alone) == len(shared) == 4
    for ours, theirs in zip(alone, shared, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert ours["alpha"].shape == (2,)
        assert ours["alpha"].dtype == torch.float32


def test_unpaired_crops_stand_at_independent_places_and_meet_every_target():
    sources = [place_map(50, 60)]
    targets = [place_map(50, 60, offset / 10) for offset in range(5)]
    samples = [UnpairedCrops(sources, targets, crop=16)[Draw(0, seed)] for seed in range(200)]
    places = [(corner(sample["source"]), corner(sample["target"])) for sample in samples]
    assert sum(ours == theirs for ours, theirs in places) < 10
    assert {ours[0] for ours, _ in places} >= {0, 34}, "both ends of the range of rows are reached"
    assert {ours[1] for ours, _ in places} >= {0, 44}, "both ends of the range of columns are reached"
    seen = [round(float(sample["target"][2, 0, 0]) * 10) for sample in samples]
    assert all(20 < seen.count(target) < 60 for target in range(5))


def test_paired_crops_show_the_same_pixels_of_both_images():
    pairs = PairedCrops([place_map(50, 60)], [place_map(50, 60, 0.5)], crop=16)
    for seed in range(50):
        sample = pairs[Draw(0, seed)]
        assert torch.equal(sample["source"][:2], sample["target"][:2])
        assert (sample["target"][2] == 0.5).all()


@pytest.mark.parametrize("kind", [UnpairedCrops, PairedCrops])
def test_all_eight_orientations_come_equally_often_and_alike_for_source_and_target(kind):
    image = place_map(16, 16)
    seen: dict[tuple[bool, bool, bool], int] = {}
    for seed in range(800):
        sample = kind([image], [image], crop=16)[Draw(0, seed)]
        assert torch.equal(sample["source"], sample["target"])
        down, across = sample["source"][0], sample["source"][1]
        transposed = bool(down[0, 0] != down[0, 1])
        rows, columns = (down.T, across.T) if transposed else (down, across)
        orientation = (bool(rows[0, 0] > rows[1, 0]), bool(columns[0, 0] > columns[0, 1]), transposed)
        seen[orientation] = seen.get(orientation, 0) + 1
    assert len(seen) == 8
    assert all(60 < count < 145 for count in seen.values())


def test_without_augmentation_crops_stay_upright():
    crops = UnpairedCrops([place_map(30, 30)], [place_map(30, 30)], crop=8, augment=False)
    for seed in range(30):
        source = crops[Draw(0, seed)]["source"]
        assert (source[0].diff(dim=0) > 0).all()
        assert (source[1].diff(dim=1) > 0).all()


def test_free_size_crops_take_60_to_100_percent_of_the_smaller_side():
    crops = UnpairedCrops([place_map(50, 80)], [place_map(60, 40)], crop=None, augment=False)
    sizes = {
        tuple(crops[Draw(0, seed)][name].shape[1:]) for seed in range(150) for name in ("source", "target")
    }
    assert all(30 <= height <= 50 and 24 <= width <= 40 for height, width in sizes)
    assert len(sizes) > 60
    assert max(height for height, _ in sizes) >= 49
    assert min(width for _, width in sizes) <= 25


def test_the_cache_changes_no_number(miniature_fivek):
    root = miniature_fivek(train=3, size=(40, 48))
    fresh = UnpairedCrops(root / "train/A", root / "train/B", crop=16)
    cached = UnpairedCrops(root / "train/A", root / "train/B", crop=16, cache=True)
    draws = [Draw(index, seed) for index in range(3) for seed in range(5)]
    assert all(torch.equal(fresh[draw][name], cached[draw][name]) for draw in draws for name in fresh[draw])


def test_the_cache_refuses_what_eight_bits_cannot_hold(tmp_path):
    for domain in "AB":
        (tmp_path / domain).mkdir()
        Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(tmp_path / domain / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png has 16.*cache=False"):
        UnpairedCrops(tmp_path / "A", tmp_path / "B", crop=16, cache=True)


def test_test_pairs_are_whole_images_in_the_order_of_their_names(miniature_fivek):
    root = miniature_fivek(test=3, size=(33, 47))
    pairs = TestPairs(root / "test/A", root / "test/B")
    assert [pair["name"] for pair in (pairs[i] for i in range(len(pairs)))] == ["4501", "4502", "4503"]
    assert pairs[0]["source"].shape == pairs[0]["target"].shape == (3, 33, 47)
    assert pairs[0]["target"].mean() > pairs[0]["source"].mean(), "the fixture's targets are brighter"
    assert set(TestPairs(root / "test/A")[0]) == {"name", "source"}


def test_pairs_are_matched_by_name_not_by_suffix_or_order(tmp_path):
    for domain, suffix in (("A", ".png"), ("B", ".jpg")):
        (tmp_path / domain).mkdir()
        for name in ("10", "2", "2-b"):
            Image.new("RGB", (40, 30)).save(tmp_path / domain / f"{name}{suffix}")
    pairs = TestPairs(tmp_path / "A", tmp_path / "B")
    assert pairs.sources.names == pairs.targets.names
    named = {"b": place_map(8, 8), "a": place_map(9, 9)}
    assert TestPairs(named, dict(sorted(named.items())))[0]["source"].shape == (3, 9, 9)


def test_the_fingerprint_follows_the_data(miniature_fivek, tmp_path):
    root, twin = miniature_fivek(), miniature_fivek(root=tmp_path / "elsewhere")

    def fingerprint(folder: Path) -> str:
        return UnpairedCrops(folder / "train/A", folder / "train/B", crop=16).fingerprint()

    assert fingerprint(root) == fingerprint(twin), "the same data at another place"
    (twin / "train/B/0007.jpg").rename(twin / "train/B/0017.jpg")
    assert fingerprint(root) != fingerprint(twin)
    ones, zeros = np.ones((8, 8, 3), np.float32), np.zeros((8, 8, 3), np.float32)
    assert TestPairs([ones]).fingerprint() != TestPairs([zeros]).fingerprint()
    half = np.full((8, 8, 3), 0.5, np.float32)
    noise = half * np.random.default_rng(0).choice(np.float32([1 - 1e-7, 1, 1 + 1e-7]), half.shape)
    assert (noise != half).any()
    assert TestPairs([noise]).fingerprint() == TestPairs([half]).fingerprint(), "last bits do not count"
    stripes = half + np.float32([-0.25, 0.25] * 4)[:, None, None]
    assert TestPairs([stripes]).fingerprint() != TestPairs([half]).fingerprint(), (
        "equal means, another spread"
    )


def test_hidden_files_of_macos_are_no_photographs(miniature_fivek):
    root = miniature_fivek()
    (root / "train/A/._0001.jpg").write_bytes(b"resource fork")
    (root / "train/A/.DS_Store").write_bytes(b"")
    assert len(UnpairedCrops(root / "train/A", root / "train/B", crop=16)) == 6


@pytest.mark.parametrize(
    ("wanted", "where"),
    [("480p", "FiveK_480p"), ("480p", "FiveK/FiveK_480p"), ("1080p", "FiveK_1080p"), ("480p", "day2night")],
)
def test_the_data_set_is_found_under_and_at_the_root(miniature_fivek, tmp_path, wanted, where):
    made = miniature_fivek(root=tmp_path / "data" / where)
    root = made if where == "day2night" else tmp_path / "data"
    assert find(root, wanted) == made
    assert find(made, wanted) == made


def test_data_of_another_size_is_not_taken_for_the_one_asked_for(miniature_fivek):
    with pytest.raises(InputError, match=r"FiveK_1080p.*not found"):
        find(miniature_fivek(), "1080p")


def test_a_missing_data_set_is_named_with_the_places_and_the_command(tmp_path):
    with pytest.raises(InputError) as error:
        find(tmp_path)
    for part in (
        "FiveK_480p",
        str(tmp_path),
        f"python -m data_scripts.fivek --root {tmp_path} --archive FiveK.zip",
    ):
        assert part in str(error.value)
    with pytest.raises(InputError, match="data_root is not set"):
        find(None)


def test_a_missing_or_empty_folder_is_named_with_the_command(miniature_fivek):
    root = miniature_fivek()
    for image in (root / "train/B").iterdir():
        image.unlink()
    with pytest.raises(InputError, match=rf"{root / 'train/B'} holds no photographs.*data_scripts\.fivek"):
        UnpairedCrops(root / "train/A", root / "train/B")
    (root / "train/B").rmdir()
    with pytest.raises(InputError, match=rf"{root / 'train/B'} does not exist.*data_scripts\.fivek"):
        UnpairedCrops(root / "train/A", root / "train/B")


def test_images_smaller_than_the_crop_are_named_before_training(miniature_fivek):
    root = miniature_fivek()
    Image.new("RGB", (300, 63)).save(root / "train/B/0009.jpg")
    with pytest.raises(InputError, match=r"1 of 6 images .*64 x 64.*0009\.jpg \(300 x 63\)"):
        UnpairedCrops(root / "train/A", root / "train/B", crop=64)


def test_unmatched_names_and_sizes_of_pairs_are_named(miniature_fivek):
    root = miniature_fivek(test=3)
    (root / "test/B/4502.jpg").rename(root / "test/B/4602.jpg")
    with pytest.raises(InputError, match=r"not pairs.*4502, 4602"):
        TestPairs(root / "test/A", root / "test/B")
    Image.new("RGB", (50, 40)).save(root / "test/B/4502.jpg")
    (root / "test/B/4602.jpg").unlink()
    with pytest.raises(InputError, match=r"A/4502\.jpg \(128 x 96\) and .*B/4502\.jpg \(50 x 40\)"):
        TestPairs(root / "test/A", root / "test/B")


def test_the_unpaired_package_is_not_taken_for_pairs(miniature_fivek):
    root = miniature_fivek()
    with pytest.raises(InputError, match=r"different photographs on purpose.*fivek --pairs"):
        PairedCrops(root / "train/A", root / "train/B", crop=16)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_a_damaged_image_gives_its_name(miniature_fivek, damage):
    root = miniature_fivek()
    victim = root / "train/A/0003.jpg"
    whole = victim.read_bytes()
    victim.write_bytes(
        {"empty": b"", "text": b"<html>404</html>", "truncated": whole[: len(whole) // 2]}[damage]
    )
    with pytest.raises(InputError, match=r"0003\.jpg"):
        UnpairedCrops(root / "train/A", root / "train/B", crop=16)[Draw(2, 0)]


@pytest.mark.parametrize(
    "array", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.float32), np.zeros((3, 8, 8), np.float32)]
)
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(InputError, match=r"expected float32 of shape \(H, W, 3\)"):
        TestPairs([array])
    with pytest.raises(InputError, match="empty collection"):
        TestPairs([])
