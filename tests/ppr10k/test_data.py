"""Views and whole photographs: what a draw decides, and what a user is told when the data do not fit."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import decoded, index, views
from cvpr21lib.ppr10k.data import Photos, Views, find
from cvpr21lib.ppr10k.photographs import Arrays, Shot
from cvpr21lib.sampling import Batches, Draw
from tests.ppr10k import miniature

torch.set_num_threads(1)


def place_map(height: int, width: int, blue: float = 0.0) -> np.ndarray:
    """An image whose pixels say where they stand: red = row, green = column, both / 100."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32) / 100
    return np.stack([rows, columns, np.full_like(rows, blue)], axis=-1)


def shot(height: int = 40, width: int = 60, versions: int = 6) -> Shot:
    """Source, target and mask show the same places; a version's number stands in its blue channel."""
    sources = [place_map(height, width, version / 10) for version in range(versions)]
    return Shot(sources, place_map(height, width, 1.0), place_map(height, width)[..., 1] > 0.2)


# One view


def test_a_view_is_a_square_of_source_target_and_mask(miniature_ppr10k):
    sample = Views(find(miniature_ppr10k()), size=56)[Draw(7, 1)]
    assert {name: tuple(value.shape) for name, value in sample.items()} == {
        "source": (3, 56, 56),
        "target": (3, 56, 56),
        "mask": (1, 56, 56),
    }
    for value in sample.values():
        assert value.dtype == torch.float32
        assert value.is_contiguous()
        assert 0 <= value.min() < value.max() <= 1


def test_there_is_one_item_for_each_version_of_each_photograph(miniature_ppr10k):
    found = find(miniature_ppr10k())
    assert len(Views(found)) == 18
    assert len(Views(found, versions=1)) == 3
    dataset = Views({"b": shot(), "a": shot()}, size=32)
    seen = [round(float(dataset[Draw(item, 3)]["source"][2].mean()) * 10) for item in range(len(dataset))]
    assert seen == [0, 1, 2, 3, 4, 5] * 2


@pytest.mark.parametrize("resize", ["official", "bilinear"])
def test_source_target_and_mask_show_the_same_places(resize):
    """Interpolation keeps a linear ramp, so away from the window's edges the places agree exactly."""
    dataset = Views({"0_0": shot()}, size=80, resize=resize)
    for seed in range(30):
        sample = dataset[Draw(0, seed)]
        inner = (slice(None), slice(6, -6), slice(6, -6))
        np.testing.assert_allclose(sample["source"][inner][:2], sample["target"][inner][:2], atol=1e-3)
        human = sample["target"][1] > 0.2
        certain = (sample["target"][1] - 0.2).abs() > 0.02
        assert ((sample["mask"][0] > 0.5) == human)[certain].all()


def test_windows_take_60_to_100_percent_of_each_side_anywhere():
    dataset = Views({"0_0": shot(50, 80)}, size=200, resize="bilinear", flip=False)
    spans = []
    for seed in range(300):
        rows, columns = dataset[Draw(0, seed)]["target"][:2] * 100
        spans.append([float(x.round()) for x in (rows.min(), rows.max(), columns.min(), columns.max())])
    top, bottom, left, right = np.array(spans).T
    heights, widths = bottom - top + 1, right - left + 1
    assert (heights.min(), heights.max()) == (30, 50)
    assert (widths.min(), widths.max()) == (48, 80)
    assert abs(np.corrcoef(heights / 50, widths / 80)[0, 1]) < 0.15, "drawn independently"
    assert (top.min(), bottom.max(), left.min(), right.max()) == (0, 49, 0, 79)


def test_half_of_the_views_are_mirrored_all_three_alike():
    dataset = Views({"0_0": shot()}, size=32)
    mirrored = 0
    for seed in range(200):
        sample = dataset[Draw(0, seed)]
        turned = {
            name: bool(sample[name][-2, 0, 0] > sample[name][-2, 0, -1]) for name in ("source", "target")
        }
        assert len(set(turned.values())) == 1
        mirrored += turned["source"]
    assert 75 < mirrored < 125
    upright = Views({"0_0": shot()}, size=32, flip=False)
    assert all((upright[Draw(0, seed)]["source"][1].diff(dim=1) >= 0).all() for seed in range(20))


def test_official_sources_are_bicubic_and_the_rest_is_antialiased():
    noise = np.random.default_rng(0).integers(0, 65536, (30, 40, 3), dtype=np.uint16)
    target, mask = (noise >> 8).astype(np.uint8), (noise[..., 0] >> 8).astype(np.uint8)
    one = {"0_0": Shot([noise], target, mask)}
    rng = random.Random(5)
    window = views.free_window(rng, 30, 40)
    sample = Views(one, size=16, versions=1, flip=False)[Draw(0, 5)]
    expected = {
        "source": views.bicubic(views.cut(noise, window), 16),
        "target": views.antialiased(views.cut(target, window), 16),
        "mask": views.antialiased(views.cut(mask, window), 16),
    }
    plain = Views(one, size=16, versions=1, flip=False, resize="bilinear")[Draw(0, 5)]
    for name, pixels in expected.items():
        assert torch.equal(sample[name], views.tensor(pixels))
    for name, pixels in (("source", noise), ("target", target), ("mask", mask)):
        assert torch.equal(plain[name], views.tensor(views.bilinear(views.cut(pixels, window), 16)))


@pytest.mark.parametrize("name", ["bicubic", "bilinear", "antialiased"])
def test_all_depths_are_resized_alike(name):
    pixels = np.random.default_rng(1).integers(0, 256, (30, 44, 3), dtype=np.uint8)
    resize = getattr(views, name)
    floats = resize(pixels.astype(np.float32) / 255, 21)
    assert floats.dtype == np.float32
    assert 0 <= floats.min() <= floats.max() <= 1, "overshoots are clipped, as integers are"
    for values in (pixels, pixels.astype(np.uint16) * 257):
        resized = resize(values, 21)
        assert resized.dtype == values.dtype
        top = np.iinfo(values.dtype).max
        np.testing.assert_allclose(resized / top, floats, rtol=0, atol=1.01 / top)
    assert resize(pixels[..., 0], 21).shape == (21, 21)


def test_a_resize_to_the_same_size_changes_nothing():
    pixels = np.random.default_rng(1).integers(0, 65536, (16, 16, 3), dtype=np.uint16)
    for resize in (views.bicubic, views.bilinear, views.antialiased):
        np.testing.assert_array_equal(resize(pixels, 16), pixels)


# Two views


def test_two_views_know_where_they_are():
    """The second version shows the same places where the two squares overlap."""
    dataset = Views({"0_0": shot(40, 60)}, glc=True, size=56, crop=42)
    full = views.tensor(views.bilinear(place_map(40, 60), 56))[:2]
    for seed in range(40):
        sample = dataset[Draw(2, seed)]
        assert {name: tuple(value.shape) for name, value in sample.items()} == {
            "source": (3, 42, 42),
            "target": (3, 42, 42),
            "mask": (1, 42, 42),
            "other": (3, 42, 42),
            "corners": (4,),
        }
        h1, w1, h2, w2 = sample["corners"].tolist()
        assert sample["corners"].dtype == torch.int64
        for name, h, w in (("source", h1, w1), ("target", h1, w1), ("other", h2, w2)):
            assert torch.equal(sample[name][:2], full[:, h : h + 42, w : w + 42])
        assert float(sample["source"][2].mean()) == pytest.approx(0.2)


def test_corners_are_uniform_and_independent_and_any_version_may_be_the_other():
    dataset = Views({"0_0": shot(12, 16)}, glc=True, size=12, crop=9)
    samples = [dataset[Draw(0, seed)] for seed in range(600)]
    corners = np.array([sample["corners"].tolist() for sample in samples])
    for column in corners.T:
        counts = np.bincount(column, minlength=4)
        assert len(counts) == 4
        assert counts.min() > 110
    assert np.abs(np.corrcoef(corners.T) - np.eye(4)).max() < 0.15
    others = np.bincount([round(float(sample["other"][2].mean()) * 10) for sample in samples], minlength=6)
    assert len(others) == 6
    assert others.min() > 70, "the same version too"


def test_two_views_are_never_mirrored_and_always_bilinear():
    one = {"0_0": shot()}
    for resize in ("official", "bilinear"):
        dataset = Views(one, glc=True, size=56, crop=42, resize=resize, flip=True)
        for seed in range(10):
            sample = dataset[Draw(0, seed)]
            assert (sample["source"][1].diff(dim=1) >= 0).all()
            assert torch.equal(sample["source"][:2], sample["target"][:2]), "the same interpolation"


def test_two_views_of_files(miniature_ppr10k):
    dataset = Views(find(miniature_ppr10k()), glc=True, size=56, crop=42)
    sample = dataset[Draw(4, 2)]
    h1, w1, *_ = sample["corners"].tolist()
    whole = views.bilinear(dataset.photographs.mask(0), 56)[h1 : h1 + 42, w1 : w1 + 42]
    assert torch.equal(sample["mask"], views.tensor(whole))


# Draws


@pytest.mark.parametrize("glc", [False, True])
def test_the_same_draw_gives_the_same_sample_whatever_the_global_random_state(miniature_ppr10k, glc):
    dataset = Views(find(miniature_ppr10k()), glc=glc, size=56, crop=42)
    samples = []
    for state in range(2):
        random.seed(state), torch.manual_seed(state), np.random.seed(state)  # noqa: NPY002
        samples.append(dataset[Draw(9, 99)])
    assert all(torch.equal(samples[0][name], samples[1][name]) for name in samples[0])
    assert not torch.equal(samples[0]["source"], dataset[Draw(9, 100)]["source"])


def test_workers_do_not_change_the_samples(miniature_ppr10k):
    dataset = Views(find(miniature_ppr10k()), glc=True, size=28, crop=21)

    def batches(workers: int) -> list[dict[str, torch.Tensor]]:
        sampler = Batches(len(dataset), 4, seed=10, last=3)
        return list(DataLoader(dataset, batch_sampler=sampler, num_workers=workers))

    alone, shared = batches(0), batches(2)
    assert len(alone) == len(shared) == 3
    for ours, theirs in zip(alone, shared, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert ours["corners"].shape == (4, 4)


# Whole photographs


def test_photographs_are_whole_and_in_the_order_of_their_names(miniature_ppr10k):
    root = miniature_ppr10k(groups={1356: 11, 1680: 1, 3: 1})
    photos = Photos(find(root), "b")
    shown = [photos[i] for i in range(len(photos))]
    assert [photo["name"] for photo in shown] == sorted(photo["name"] for photo in shown)
    assert [photo["group"] for photo in shown] == ["1356"] * 11 + ["1680"]
    for photo in shown:
        folder = root / "train_val_images_tif_360p"
        for name, where, top in (("source", "source", 65535), ("target", "target_b", 255)):
            stored = tifffile.imread(folder / where / f"{photo['name']}.tif").transpose(2, 0, 1)
            np.testing.assert_allclose(photo[name], stored / top, rtol=0, atol=1e-7)
        mask = np.asarray(Image.open(root / "masks_360p" / f"{photo['name']}.png"))
        np.testing.assert_array_equal(photo["mask"], mask[None] / 255)


def test_each_expert_has_targets_of_his_own(miniature_ppr10k):
    found = find(miniature_ppr10k())
    targets = [Photos(found, expert)[0]["target"] for expert in index.EXPERTS]
    assert targets[1].mean() > targets[0].mean() > targets[2].mean(), "as the miniature is made"


def test_photographs_are_paired_by_name_not_by_position(miniature_ppr10k):
    """A target more (for a photograph without source) shifts no pair."""
    root = miniature_ppr10k()
    folder = root / "train_val_images_tif_360p" / "target_a"
    whole = Photos(find(root))[2]
    shutil.copy(folder / "1356_0.tif", folder / "1357_0.tif")
    again = Photos(find(miniature.index(root)))[2]
    assert again["name"] == whole["name"] == "1680_0"
    assert torch.equal(again["target"], whole["target"])


def test_every_stored_value_comes_through():
    every = np.arange(65536, dtype=np.uint16)
    back = np.rint(every.astype(np.float32) / np.float32(65535) * np.float32(65535))
    np.testing.assert_array_equal(back, every)
    tensor = views.tensor(every.reshape(256, 256))
    np.testing.assert_allclose(tensor[0].flatten(), every / 65535, rtol=0, atol=6e-8)


def test_sixteen_bits_are_read_as_stored(tmp_path):
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    stored = np.stack([every, every[::-1], every.T], -1)
    tifffile.imwrite(tmp_path / "every.tif", stored, photometric="rgb")
    np.testing.assert_array_equal(decoded.decode(tmp_path / "every.tif", 16), stored)


def test_masks_of_any_kind_of_png_are_read(tmp_path):
    mask = np.zeros((8, 10), bool)
    mask[2:5, 3:7] = True
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(tmp_path / "mask.png")
        file = index.File("mask.png", 0, "")
        made = index.Index(tmp_path, (), ())
        values = decoded.read(made, decoded.Picture(file, 8, (8, 10)))
        np.testing.assert_array_equal(values, mask * np.uint8(255))


def test_samples_do_not_share_memory_with_what_was_given():
    given = Shot(
        [np.full((8, 8, 3), 0.5, np.float32)],
        np.full((8, 8, 3), 0.5, np.float32),
        np.ones((8, 8), np.float32),
    )
    photos = Photos({"a_0": given})
    for value in photos[0].values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    assert given.sources[0].min() == given.target.min() == 0.5
    assert given.mask.min() == 1


# Fingerprints


def test_the_fingerprint_of_files_follows_their_names_and_contents(miniature_ppr10k, tmp_path):
    found = find(miniature_ppr10k())
    twin = find(miniature.prepared(tmp_path / "elsewhere", split=True))
    assert Views(found).fingerprint() == Views(twin).fingerprint(), "the same data at another place"
    assert Photos(found).fingerprint() == Photos(twin).fingerprint()
    prints = {
        Views(found).fingerprint(),
        Views(found, "b").fingerprint(),
        Views(found, versions=1).fingerprint(),
    }
    assert len(prints | {Photos(found).fingerprint()}) == 4
    renamed = replace(found.train[0], name="5_0")
    assert Views(replace(found, train=(renamed, *found.train[1:]))).fingerprint() not in prints
    changed = replace(found.train[0], mask=found.train[0].mask._replace(sha256="0" * 64))
    assert Views(replace(found, train=(changed, *found.train[1:]))).fingerprint() not in prints


def test_the_fingerprint_of_arrays_follows_their_colours_not_their_last_bits():
    def fingerprint(target: np.ndarray, mask: float = 1.0, name: str = "a_0") -> str:
        half = np.full((8, 8, 3), 0.5, np.float32)
        return Photos({name: Shot([half], target, np.full((8, 8), mask, np.float32))}).fingerprint()

    half = np.full((8, 8, 3), 0.5, np.float32)
    noise = half * np.random.default_rng(0).choice(np.float32([1 - 1e-7, 1, 1 + 1e-7]), half.shape)
    stripes = half + np.float32([-0.25, 0.25] * 4)[:, None, None]
    assert (noise != half).any()
    assert fingerprint(noise) == fingerprint(half)
    others = [
        fingerprint(half * 0.9),
        fingerprint(stripes),
        fingerprint(half, 0.5),
        fingerprint(half, name="b_0"),
    ]
    assert len({fingerprint(half), *others}) == 5


# What does not fit


@pytest.mark.parametrize("where", ["data", "data/PPR10K_360p"])
def test_the_data_set_is_found_under_and_at_the_root(miniature_ppr10k, tmp_path, where):
    assert len(find(miniature_ppr10k()).train) == 3
    assert len(find(tmp_path / where).train) == 3


def test_a_missing_data_set_is_named_with_the_places_and_the_command(tmp_path):
    with pytest.raises(InputError) as error:
        find(tmp_path)
    for part in (
        "PPR10K",
        str(tmp_path / "PPR10K_360p" / "index.json"),
        str(tmp_path / "index.json"),
        f"python -m data_scripts.ppr10k --root {tmp_path} --images train_val_images_tif_360p --masks ",
    ):
        assert part in str(error.value)
    with pytest.raises(InputError, match=r"data_root is not set.*data_scripts\.ppr10k"):
        find(None)


def test_a_missing_expert_is_named_with_his_folder_and_the_command(tmp_path):
    root = miniature.download(tmp_path / "data")
    shutil.rmtree(root / "train_val_images_tif_360p" / "target_c")
    found = find(miniature.index(root))
    assert len(Views(found, "b")) == 18
    for dataset in (Views, Photos):
        with pytest.raises(InputError, match=rf"target_c was not there .*data_scripts\.ppr10k --root {root}"):
            dataset(found, "c")
        with pytest.raises(InputError, match="expert is 'd'; it can be a, b, c"):
            dataset(found, "d")


def test_folders_that_went_away_are_named(miniature_ppr10k):
    root = miniature_ppr10k()
    gone = root / "train_val_images_tif_360p" / "target_b"
    gone.rename(root / "other")
    assert len(Views(find(root), "a")) == 18
    with pytest.raises(InputError, match=rf"index\.json names files in {gone}, which is not there"):
        Views(find(root), "b")


def test_an_empty_part_is_named(miniature_ppr10k):
    found = find(miniature_ppr10k(groups={1400: 1}))
    assert len(Photos(found)) == 1
    with pytest.raises(InputError, match=r"has no photographs for train"):
        Views(found)


@pytest.mark.parametrize(
    ("damage", "workers"),
    [("gone", 0), ("empty", 0), ("cut", 0), ("cut", 2), ("text", 0), ("depth", 0), ("size", 0)],
)
def test_a_file_that_is_damaged_in_the_middle_of_an_epoch_is_named(miniature_ppr10k, damage, workers):
    root = miniature_ppr10k()
    dataset = Views(find(root), size=28)
    victim = root / "train_val_images_tif_360p" / "source_aug_6" / "0_1_3.tif"
    pixels = tifffile.imread(victim)
    if damage == "gone":
        victim.unlink()
    elif damage == "depth":
        tifffile.imwrite(victim, (pixels >> 8).astype(np.uint8), photometric="rgb")
    elif damage == "size":
        tifffile.imwrite(victim, pixels[:, :-1], photometric="rgb")
    else:
        whole = victim.read_bytes()
        victim.write_bytes({"empty": b"", "cut": whole[:-3000], "text": b"<html>404</html>"}[damage])
    loader = DataLoader(dataset, batch_sampler=Batches(len(dataset), 3, seed=0, last=6), num_workers=workers)
    batches = iter(loader)
    with pytest.raises(InputError, match=r"source_aug_6/0_1_3\.tif"):
        list(batches)
    list(batches)  # left in the middle, torch waits ten seconds for its workers


def test_more_versions_than_there_are_is_an_error_that_names_them(tmp_path):
    root = miniature.download(tmp_path / "data")
    (root / "train_val_images_tif_360p" / "source_aug_6" / "7_0_5.tif").unlink()
    found = find(miniature.index(root))
    with pytest.raises(
        InputError, match=r"but 1 of 3 photographs have fewer \(7_0 \(1\)\); choose versions=1"
    ):
        Views(found)
    assert len(Views(found, versions=1)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"glc": True, "size": 56, "crop": 57}, "crop is 57 pixels; it must be from 1 to size, 56 pixels"),
        ({"resize": "cubic"}, "resize is 'cubic'; it can be official or bilinear"),
        ({"versions": 0}, "versions is 0"),
        ({"versions": 7}, r"1 of 1 photographs have fewer \(a_0 \(6\)\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Views({"a_0": shot()}, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mask": np.zeros((40, 59), bool)},
            r"mask of photograph a_0 has the shape \(40, 59\) instead of \(40, 60\)",
        ),
        (
            {"target": np.zeros((40, 60, 4), np.uint8)},
            r"target of photograph a_0 has the shape \(40, 60, 4\)",
        ),
        ({"sources": [place_map(40, 60), place_map(60, 40)]}, r"source 1 of photograph a_0 .*\(60, 40, 3\)"),
        ({"sources": []}, "a_0 has no source"),
        ({"target": np.zeros((40, 60, 3))}, "target of photograph a_0 is float64; expected uint8"),
        ({"sources": [place_map(40, 60) * 3]}, r"source 0 of photograph a_0 has values from 0 to 1\.77"),
        (
            {"sources": [place_map(40, 60) * np.float32("nan")]},
            r"source 0 of photograph a_0 has values from nan",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Arrays({"a_0": shot()._replace(**changes)})
    with pytest.raises(InputError, match="empty collection"):
        Photos({})
