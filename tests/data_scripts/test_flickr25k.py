"""MIRFLICKR-25000 from its two archives, in miniature: 24 images with their 38 labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import data, splits
from data_scripts import flickr25k, manifest
from tests.eps.miniature import described, zipped
from tests.prosgan import miniature

NUMBER = 24
LABELS = np.random.default_rng(0).integers(0, 2, (NUMBER, 38)).astype(np.uint8)
IMAGES = [f"mirflickr/im{number}.jpg" for number in range(1, NUMBER + 1)]


@pytest.fixture
def raw(tmp_path) -> Path:
    """What the two archives hold: the one a folder, the other bare files."""
    for number, image in enumerate(IMAGES):
        miniature.picture(tmp_path / "raw" / image, number)
    (tmp_path / "raw/mirflickr/meta").mkdir()
    (tmp_path / "raw/mirflickr/meta/license1.txt").write_text("Creative Commons")
    folder = tmp_path / "raw/annotations_v080"
    folder.mkdir()
    (folder / "README.txt").write_text("24 labels")
    for name, column in zip(flickr25k.CLASSES, LABELS.T, strict=True):
        (folder / f"{name}.txt").write_text("".join(f"{i + 1}\r\n" for i in np.flatnonzero(column)))
    return tmp_path / "raw"


@pytest.fixture
def run(raw, tmp_path, monkeypatch):
    """Packs what is there now, and runs the script on the archives."""
    monkeypatch.setattr(flickr25k, "FLICKR_25K", replace(data.FLICKR_25K, counts=(7, 4, 20)))
    monkeypatch.setattr(flickr25k, "ROWS", (9, 4, 20))
    monkeypatch.setattr(flickr25k, "IMAGES", NUMBER)

    def call(**options: object) -> splits.Splits:
        (tmp_path / "archives").mkdir(exist_ok=True)
        folders = {"mirflickr": raw / "mirflickr", "annotations": raw / "annotations_v080"}
        packed = {
            part: zipped(folders[part], tmp_path / "archives" / archive.name)
            for part, archive in flickr25k.ARCHIVES.items()
        }
        monkeypatch.setattr(flickr25k, "ARCHIVES", {part: described(path) for part, path in packed.items()})
        given = {"archives": tmp_path / "archives", **options}
        flickr25k.main(root=tmp_path / "data", accept_licence=True, **given)
        return data.find(tmp_path / "data", "FLICKR-25K").splits

    return call


@pytest.fixture
def official(tmp_path):
    """Writes official lists: two rows of train come again, and columns are in an order of their own."""
    rng = np.random.default_rng(1)
    order, rows = rng.permutation(38), rng.permutation(NUMBER)
    parts = {"train": [*rows[4:11], rows[5], rows[9]], "test": rows[:4], "database": rows[4:]}

    def write(labels: np.ndarray = LABELS, **changes: list[int]) -> Path:
        return miniature.lists(tmp_path / "lists", IMAGES, labels[:, order], parts | changes)

    write.classes = tuple(flickr25k.CLASSES[column] for column in order)
    write.parts, write.order = parts, order
    return write


def test_the_columns_are_24_labels_and_14_strict_ones():
    strict = [name for name in flickr25k.CLASSES if name.endswith("_r1")]
    assert (len(strict), len(set(flickr25k.CLASSES))) == (14, 38)
    assert strict == sorted(strict)
    assert {name.removesuffix("_r1") for name in strict} < set(flickr25k.CLASSES)


def test_what_must_arrive_is_what_the_sheet_says():
    assert [archive.name for archive in flickr25k.ARCHIVES.values()] == [
        "mirflickr25k.zip",
        "mirflickr25k_annotations_v080.zip",
    ]
    assert flickr25k.ROWS[1:] == data.FLICKR_25K.counts[1:]
    assert flickr25k.ROWS[0] == data.FLICKR_25K.counts[0] + 504
    assert sum(flickr25k.ROWS[1:]) == flickr25k.IMAGES == 25_000


def test_two_archives_become_a_data_set_that_the_library_finds(run, tmp_path, capsys):
    found = run(seed=3)
    assert found.classes == flickr25k.CLASSES
    assert found.origin == "drawn with seed 3"
    for part in found.parts.values():
        numbers = [int(image.removeprefix("mirflickr/im").removesuffix(".jpg")) for image in part.images]
        np.testing.assert_array_equal(part.labels, LABELS[np.array(numbers) - 1])
    prepared = data.find(tmp_path / "data", "FLICKR-25K")
    assert [len(data.Photographs(prepared, part)) for part in splits.NAMES] == [7, 4, 20]
    shown = capsys.readouterr()
    assert "Creative Commons" in shown.err
    assert "is ready" in shown.out
    flickr25k.main(root=tmp_path / "data", verify_only=True)
    assert "all as they were prepared" in capsys.readouterr().out


def test_one_seed_is_one_draw(run, tmp_path):
    first = run(seed=1)
    for seed, same in ((1, True), (2, False)):
        (tmp_path / "data/FLICKR-25K" / manifest.NAME).unlink()
        assert (run(seed=seed).parts["test"].images == first.parts["test"].images) == same


def test_the_manifest_counts_and_names_the_columns(run, tmp_path):
    run()
    about = manifest.read(tmp_path / "data/FLICKR-25K")["about"]
    assert about["counts"] == {"train": 7, "test": 4, "database": 20}
    assert about["columns"] == list(flickr25k.CLASSES)
    assert about["mirflickr25k.zip"].endswith("/mirflickr25k.zip")


def test_official_lists_are_imported_without_their_repeats_and_their_columns_recognised(
    run, official, capsys
):
    found = run(lists=official())
    assert found.classes == official.classes
    assert found.origin == "the official lists"
    assert Counter(len(part.images) for part in found.parts.values()) == {7: 1, 4: 1, 20: 1}
    assert found.parts["test"].images == tuple(IMAGES[row] for row in official.parts["test"])
    np.testing.assert_array_equal(
        found.parts["test"].labels, LABELS[official.parts["test"]][:, official.order]
    )
    assert "2 of 9 lines of the train list are repeats; they count once" in capsys.readouterr().err


def test_official_labels_win_over_the_annotations_and_the_difference_is_told(
    run, official, capsys, monkeypatch
):
    monkeypatch.setattr("data_scripts.hashing.TOLERANCE", 0.2)
    changed = LABELS.copy()
    changed[official.parts["test"][0], 17] ^= 1
    found = run(lists=official(changed))
    np.testing.assert_array_equal(
        found.parts["test"].labels, changed[official.parts["test"]][:, official.order]
    )
    assert "1 of the official labels differ from the annotations; they are kept" in capsys.readouterr().err


def test_a_column_that_is_no_class_is_refused(run, official):
    changed = LABELS.copy()
    changed[:, 5] = np.random.default_rng(9).integers(0, 2, NUMBER)
    with pytest.raises(InputError, match=r"column \d+ of the official labels is none of the 38 classes"):
        run(lists=official(changed))


def test_a_test_image_in_the_database_is_refused(run, official):
    parts = official.parts
    with pytest.raises(InputError, match="1 test images are in the database"):
        run(lists=official(database=[*parts["database"][:-1], parts["test"][0]]))


def test_lists_that_are_not_there_not_whole_or_damaged_are_named(run, official, tmp_path):
    folder = official()
    label, image = folder / "test_label.txt", folder / "database_img.txt"
    lines = label.read_text()
    for damaged in (lines[: len(lines) // 2], lines.replace("1", "7", 1), lines + "0 1 0\n"):
        label.write_text(damaged)
        with pytest.raises(InputError, match=r"test_label\.txt is damaged"):
            run(lists=folder)
    label.write_text(lines)
    names = image.read_text().splitlines()
    image.write_text("\n".join(["mirflickr/im99.jpg", *names[1:]]))
    with pytest.raises(InputError, match=r"1 images of the lists have no annotation \(mirflickr/im99\.jpg\)"):
        run(lists=folder)
    image.unlink()
    label.unlink()
    with pytest.raises(InputError, match=r"2 of the 6 .* missing in .*test_label\.txt, database_img\.txt"):
        run(lists=folder)


def test_a_list_of_another_length_is_refused(run, official):
    with pytest.raises(InputError, match=r"test_img\.txt has 3 lines instead of 4"):
        run(lists=official(test=official.parts["test"][:3]))


def test_a_repeat_with_other_labels_is_refused(run, official):
    folder = official()
    path = folder / "train_label.txt"
    lines = path.read_text().splitlines()
    lines[-1] = lines[-1].translate(str.maketrans("01", "10"))
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"comes twice in train of .* with different labels"):
        run(lists=folder)


def test_missing_images_and_annotations_are_named(run, raw):
    (raw / "mirflickr/im4.jpg").unlink()
    (raw / "annotations_v080/baby_r1.txt").unlink()
    with pytest.raises(InputError, match=r"1 of 38 annotations are missing in .*: baby_r1"):
        run()
    (raw / "annotations_v080/baby_r1.txt").write_text("1\n")


def test_a_missing_image_is_named(run, raw):
    (raw / "mirflickr/im4.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 24 images are missing in .* \(mirflickr/im4\.jpg\)"):
        run()


@pytest.mark.parametrize(
    ("content", "message"), [("3\n25\n", "from 3 to 25; there are 1 to 24"), ("x", "damaged")]
)
def test_damaged_annotations_are_named(run, raw, content, message):
    (raw / "annotations_v080/sky.txt").write_text(content)
    with pytest.raises(InputError, match=rf"sky\.txt .*{message}"):
        run()


def test_another_archive_is_refused_and_leaves_nothing(run, raw, tmp_path):
    (raw / "mirflickr/im1.jpg").unlink()
    with pytest.raises(InputError, match=r"mirflickr25k\.zip holds no im1\.jpg; is it another archive"):
        run()
    assert not list((tmp_path / "data/FLICKR-25K").iterdir())


def test_a_finished_data_set_is_left_alone(run, capsys):
    run()
    run(archives=None)
    assert "note: it was prepared before" in capsys.readouterr().err


def test_the_terms_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match="--accept-licence"):
        flickr25k.main(root=tmp_path / "data")
    assert not (tmp_path / "data").exists()
