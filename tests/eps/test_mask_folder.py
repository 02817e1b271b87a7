"""A folder of masks is made once, resumed, and never holds what something else made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvpr21lib.eps import mask_folder
from cvpr21lib.eps.mask_folder import digest, fill, read_fingerprint
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import masks
from cvpr21lib.segmentation.crf import DEEPLAB, PSA
from cvpr21lib.segmentation.stored import DamagedFile

NAMES = ["2007_000032", "2007_000039", "2007_000063", "2007_000068"]


class Maker:
    """Makes masks of the value of the name's place, and remembers for which names."""

    def __init__(self, breaks: tuple[str, ...] = (), error: type[Exception] = DamagedFile) -> None:
        self.called: list[str] = []
        self.breaks, self.error = breaks, error

    def __call__(self, name: str) -> np.ndarray:
        self.called.append(name)
        if name in self.breaks:
            raise self.error(f"{name}.jpg is damaged or cut short")
        return np.full((50, 70), NAMES.index(name), np.uint8)


@pytest.mark.parametrize("workers", [1, 3])
def test_masks_are_palette_pngs_that_carry_their_fingerprint(tmp_path, workers):
    filled = fill(tmp_path / "masks", NAMES, Maker(), "abc", workers=workers, progress=False)
    assert filled == (4, 0, {})
    for place, name in enumerate(NAMES):
        path = tmp_path / "masks" / f"{name}.png"
        assert Image.open(path).mode == "P"
        assert (masks.read(path, 21) == place).all()
        assert read_fingerprint(path) == "abc"


def test_the_same_call_again_makes_nothing(tmp_path):
    fill(tmp_path, NAMES, Maker(), "abc", progress=False)
    again = Maker()
    assert fill(tmp_path, NAMES, again, "abc", progress=False) == (0, 4, {})
    assert not again.called


def test_an_interrupted_call_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, NAMES, Maker((NAMES[2],), KeyboardInterrupt), "abc", progress=False)
    again = Maker()
    assert fill(tmp_path, NAMES, again, "abc", progress=False) == (2, 2, {})
    assert again.called == NAMES[2:]


def test_what_something_else_made_is_made_again(tmp_path):
    fill(tmp_path, NAMES, Maker(), "old", progress=False)
    assert fill(tmp_path, NAMES, Maker(), "new", progress=False).made == 4
    assert {read_fingerprint(tmp_path / f"{name}.png") for name in NAMES} == {"new"}


def test_stale_masks_are_gone_even_if_the_work_stops_at_once(tmp_path):
    fill(tmp_path, NAMES, Maker(), "old", progress=False)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, NAMES, Maker((NAMES[0],), KeyboardInterrupt), "new", progress=False)
    assert not list(tmp_path.glob("*.png"))


def test_a_fingerprint_may_differ_from_image_to_image(tmp_path):
    fill(tmp_path, NAMES, Maker(), lambda name: f"of {name}", progress=False)
    again = Maker()
    fill(tmp_path, NAMES, again, lambda name: "changed" if name == NAMES[1] else f"of {name}", progress=False)
    assert again.called == [NAMES[1]]


@pytest.mark.parametrize("damage", ["cut short", "not a picture", "empty"])
def test_a_damaged_mask_is_made_again(tmp_path, damage):
    fill(tmp_path, NAMES, Maker(), "abc", progress=False)
    path = tmp_path / f"{NAMES[1]}.png"
    whole = path.read_bytes()
    path.write_bytes(
        {"cut short": whole[: len(whole) * 3 // 4], "not a picture": b"<html>", "empty": b""}[damage]
    )
    again = Maker()
    fill(tmp_path, NAMES, again, "abc", progress=False)
    assert again.called == [NAMES[1]]
    assert path.read_bytes() == whole


def test_masks_that_were_not_made_here_are_left_alone(tmp_path):
    ground_truth = tmp_path / f"{NAMES[2]}.png"
    masks.write(ground_truth, np.zeros((5, 7), np.uint8))
    before = ground_truth.read_bytes()
    with pytest.raises(InputError, match=rf"{NAMES[2]}.png was not made here.*choose another folder"):
        fill(tmp_path, NAMES, Maker(), "abc", progress=False)
    assert ground_truth.read_bytes() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_image_stops_the_work_and_is_named(tmp_path, workers):
    with pytest.raises(DamagedFile, match=r"2007_000039.jpg is damaged"):
        fill(tmp_path, NAMES, Maker((NAMES[1],)), "abc", workers=workers, progress=False)
    assert not (tmp_path / f"{NAMES[1]}.png").exists()


def test_a_damaged_image_is_named_counted_and_skipped_if_asked_for(tmp_path):
    fill(tmp_path, NAMES, Maker(), "old", progress=False)
    with pytest.warns(UserWarning, match=r"skipped: 2007_000039.jpg is damaged"):
        filled = fill(tmp_path, NAMES, Maker((NAMES[1],)), "abc", on_damage="skip", progress=False)
    assert filled == (3, 0, {NAMES[1]: "2007_000039.jpg is damaged or cut short"})
    assert {path.stem for path in tmp_path.glob("*.png")} == set(NAMES) - {NAMES[1]}


def test_any_other_error_stops_the_work_even_then(tmp_path):
    with pytest.raises(InputError):
        fill(tmp_path, NAMES, Maker((NAMES[1],), InputError), "abc", on_damage="skip", progress=False)


def test_a_mask_is_never_half_written(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        fill(tmp_path, NAMES, Maker(), "abc", progress=False)
    assert not list(tmp_path.iterdir())


def test_an_unknown_way_to_treat_damage_is_refused(tmp_path):
    with pytest.raises(InputError, match="it can be stop, skip"):
        fill(tmp_path, NAMES, Maker(), "abc", on_damage="ignore", progress=False)


def test_fingerprints_tell_settings_apart():
    assert digest("crf", PSA, 4) == digest("crf", PSA, 4)
    assert len({digest("crf", PSA, 4), digest("crf", PSA, 32), digest("crf", DEEPLAB, 4)}) == 3
    assert len(mask_folder.digest(Path("x"))) == 16
