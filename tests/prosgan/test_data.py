"""The benchmarks' images and labels as the networks get them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import data, splits
from cvpr21lib.prosgan.data import InMemory, Photographs, find
from cvpr21lib.prosgan.splits import Part, Splits
from cvpr21lib.sampling import Draw
from tests.prosgan import miniature


@pytest.fixture
def database(miniature_hashing) -> Photographs:
    return Photographs(find(miniature_hashing(), "FLICKR-25K"), "database", size=32, shorter_side=36)


def test_the_counts_are_those_of_the_official_lists():
    assert {name: (benchmark.classes, benchmark.counts) for name, benchmark in data.BENCHMARKS.items()} == {
        "FLICKR-25K": (38, (5000 - 504, 1700, 25_000 - 1700)),
        "NUS-WIDE": (21, (10_500, 2100, 195_834 - 2100)),
        "MS-COCO": (80, (10_000, 5000, 82_081 + 40_137 - 5000)),
    }


@pytest.mark.parametrize("name", data.BENCHMARKS)
def test_every_part_of_every_benchmark_is_found_where_the_scripts_put_it(miniature_hashing, name):
    found = find(miniature_hashing(name), name)
    parts = {part: Photographs(found, part) for part in splits.NAMES}
    assert tuple(map(len, parts.values())) == miniature.COUNTS
    assert set(parts["train"].images) <= set(parts["database"].images)
    assert not set(parts["test"].images) & set(parts["database"].images)
    sample = parts["test"][0]
    assert sample["image"].shape == (3, 224, 224)
    assert sample["label"].shape == (data.BENCHMARKS[name].classes,)


def test_a_sample_is_image_label_and_place_whether_drawn_or_indexed(database):
    sample, drawn = database[3], database[Draw(3, seed=5)]
    for name, value in sample.items():
        torch.testing.assert_close(drawn[name], value, rtol=0, atol=0)
    assert sample["index"] == 3
    assert sample["label"].tolist() == database.labels[3].tolist()
    assert sample["image"].dtype == sample["label"].dtype == torch.float32
    assert 0 <= sample["image"].min() < sample["image"].max() <= 1


@pytest.mark.parametrize("size", [(40, 80), (80, 40), (36, 36), (20, 31)])
def test_the_shorter_side_is_resized_and_the_middle_cut_out(tmp_path, size):
    height, width = size
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2] = 255
    Image.fromarray(pixels).save(tmp_path / "spot.png")
    image = data.read(tmp_path / "spot.png", 32, 36)
    assert image.shape == (3, 32, 32)
    rows, columns = torch.nonzero(image[0] > 0.5, as_tuple=True)
    assert abs(rows.float().mean() - 15.5) <= 1.5
    assert abs(columns.float().mean() - 15.5) <= 1.5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_that_are_not_rgb_become_rgb(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image = Image.new("RGB", (40, 40), (255, 255, 255)).convert(mode)
    image.save(path)
    torch.testing.assert_close(data.read(path, 32, 36), torch.ones(3, 32, 32))


def test_16_bits_a_channel_are_refused_with_the_name_of_the_file(tmp_path):
    Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png has pixels of mode 'I;16'; save it with 8 bits"):
        data.read(tmp_path / "deep.png")


def test_missing_images_are_named_before_the_first_epoch(database, miniature_hashing):
    for number in (5, 9):
        (database.folder / f"mirflickr/im{number}.jpg").unlink()
    with pytest.raises(InputError, match=r"2 of 16 images of database are missing .*im5\.jpg, .*im9\.jpg"):
        Photographs(find(database.folder.parent, "FLICKR-25K"), "database")


def test_a_damaged_image_is_named_when_it_is_read(database):
    path = database.folder / database.images[2]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"im7\.jpg is damaged or cut short"):
        database[2]


def test_a_data_set_that_is_not_there_says_how_to_bring_it(tmp_path):
    with pytest.raises(InputError, match=r"NUS-WIDE was not found; .*data_scripts\.nus_wide --root"):
        find(tmp_path, "NUS-WIDE")
    with pytest.raises(InputError, match=r"data_root is not set.*data_scripts\.coco_hashing --root data"):
        find(None, "MS-COCO")
    with pytest.raises(InputError, match=r"no data set 'CIFAR-10'; choose one of FLICKR-25K"):
        find(tmp_path, "CIFAR-10")


def test_splits_of_another_data_set_are_refused(miniature_hashing):
    root = miniature_hashing("NUS-WIDE")
    (root / "NUS-WIDE").rename(root / "MS-COCO")
    with pytest.raises(InputError, match="has 21 classes instead of 80"):
        find(root, "MS-COCO")


def test_damaged_splits_are_named(miniature_hashing):
    root = miniature_hashing()
    path = root / "FLICKR-25K" / splits.FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"splits\.npz are damaged .*prepare the data set again"):
        find(root, "FLICKR-25K")


def broken(**changes: Part) -> Splits:
    """Whole splits of two classes but for the `changes`."""
    whole = {
        "train": Part(("a",), np.array([[1, 0]])),
        "test": Part(("b",), np.array([[0, 0]])),
        "database": Part(("a", "c"), np.array([[1, 0], [0, 1]])),
    }
    return Splits(("x", "y"), "by hand", whole | changes)


def test_whole_splits_pass_with_an_image_without_labels():
    splits.check(broken(), "here")


@pytest.mark.parametrize(
    ("part", "images", "labels", "message"),
    [
        ("test", ("a",), [[1, 0]], r"1 test images are in the database of here, too \(a\)"),
        ("train", ("d",), [[1, 0]], r"1 training images are not in the database of here \(d\)"),
        ("train", ("a",), [[0, 1]], r"1 training images have other labels in the database of here \(a\)"),
        ("train", ("a", "a"), [[1, 0], [1, 0]], r"1 images come again in train in here \(a\)"),
        ("test", (), np.zeros((0, 2)), "no images for test in here"),
        ("test", ("b",), [[1, 0, 0]], r"shape \(1, 3\); expected \(1, 2\)"),
        ("test", ("b",), [[2, 0]], "other values than 0 and 1"),
        ("test", ("../b",), [[1, 0]], r"names '\.\./b', which lies outside"),
        ("test", ("/b",), [[1, 0]], "names '/b', which lies outside"),
    ],
)
def test_broken_splits_are_refused(part, images, labels, message):
    with pytest.raises(InputError, match=message):
        splits.check(broken(**{part: Part(images, np.array(labels))}), "here")


def test_splits_come_back_as_they_were_written(tmp_path):
    splits.write(tmp_path / splits.FILE, broken())
    found = splits.read(tmp_path / splits.FILE)
    assert (found.classes, found.origin) == (("x", "y"), "by hand")
    for name, part in broken().parts.items():
        assert found.parts[name].images == part.images
        np.testing.assert_array_equal(found.parts[name].labels, part.labels)
        assert found.parts[name].labels.dtype == np.uint8


def test_the_fingerprint_changes_with_images_labels_and_size_and_not_with_the_place(
    database, miniature_hashing, tmp_path
):
    known = database.fingerprint()
    prepared = find(database.folder.parent, "FLICKR-25K")
    assert Photographs(prepared, "database", 32, 40).fingerprint() != known
    assert Photographs(prepared, "train", 32, 36).fingerprint() != known
    moved = database.folder.parent.rename(tmp_path / "elsewhere")
    again = Photographs(find(moved, "FLICKR-25K"), "database", 32, 36)
    assert again.fingerprint() == known
    miniature.picture(again.folder / again.images[0], 99)
    assert again.fingerprint() != known


def test_images_in_memory_give_the_same_samples():
    images, labels = torch.rand(3, 1, 8, 16, generator=torch.Generator().manual_seed(0)), np.eye(3, 5)
    memory = InMemory(images, labels)
    sample = memory[Draw(1, seed=0)]
    torch.testing.assert_close(sample["image"], images[1])
    assert sample["label"].tolist() == [0, 1, 0, 0, 0]
    assert (len(memory), int(sample["index"])) == (3, 1)
    assert memory.fingerprint() == InMemory(images.clone(), labels).fingerprint()
    assert memory.fingerprint() != InMemory(images * 0.999999, labels).fingerprint()
    assert memory.fingerprint() != InMemory(images, labels[::-1].copy()).fingerprint()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.rand(3, 8, 16), np.eye(3), r"expected \(N, channels, H, W\)"),
        (torch.rand(2, 3, 8, 16), np.eye(3), "with the same N"),
        (torch.zeros(3, 3, 8, 16, dtype=torch.uint8), np.eye(3), r"torch\.uint8 and not floats"),
        (torch.full((3, 3, 8, 16), 2.0), np.eye(3), r"not floats in \[0, 1\]"),
        (torch.full((3, 3, 8, 16), torch.nan), np.eye(3), r"not floats in \[0, 1\]"),
        (torch.rand(3, 3, 8, 16), np.eye(3) / 2, "other values than 0 and 1"),
    ],
)
def test_images_in_memory_of_another_form_are_refused(images, labels, message):
    with pytest.raises(InputError, match=message):
        InMemory(images, labels)


def test_a_cut_larger_than_the_resized_image_is_refused(miniature_hashing):
    prepared = find(miniature_hashing(), "FLICKR-25K")
    with pytest.raises(InputError, match="size is 300; it must be from 1 to shorter_side, 256"):
        Photographs(replace(prepared), "test", size=300)
