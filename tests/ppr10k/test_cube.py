"""A look leaves for other programs, and comes back, without losing a bit."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import cube, lut

torch.set_num_threads(1)


def random_lut(size, low=-0.2, high=1.2):
    return low + (high - low) * torch.rand(3, size, size, size, generator=torch.Generator().manual_seed(0))


#: A table of two points as other programs write it: identity, but for the first colour.
LINES = ["0.1 0 0", "1 0 0", "0 1 0", "1 1 0", "0 0 1", "1 0 1", "0 1 1", "1 1 1"]


def written(folder, *lines, end="\n"):
    path = folder / "look.cube"
    path.write_bytes((end.join(lines) + end).encode())
    return path


# --- .cube files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 9, 33])
def test_what_is_written_comes_back_bit_for_bit(tmp_path, size):
    table = random_lut(size)
    cube.write(tmp_path / "look.cube", table)
    assert torch.equal(cube.read(tmp_path / "look.cube"), table)


def test_every_kind_of_float_comes_back_bit_for_bit(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**32, 3 * 12**3, dtype=np.uint32).view(np.float32)
    bits[~np.isfinite(bits)] = -0.0
    table = torch.from_numpy(bits).view(3, 12, 12, 12)
    cube.write(tmp_path / "look.cube", table)
    assert torch.equal(cube.read(tmp_path / "look.cube").view(torch.int32), table.view(torch.int32))


def test_a_written_file_is_plain_text_with_red_running_fastest(tmp_path):
    cube.write(tmp_path / "look.cube", lut.identity(3), title="Evening")
    lines = (tmp_path / "look.cube").read_text().splitlines()
    assert lines[:4] == [
        'TITLE "Evening"',
        "LUT_3D_SIZE 3",
        "DOMAIN_MIN 0.0 0.0 0.0",
        "DOMAIN_MAX 1.0 1.0 1.0",
    ]
    assert lines[4:8] == ["0.0 0.0 0.0", "0.5 0.0 0.0", "1.0 0.0 0.0", "0.0 0.5 0.0"]
    assert len(lines) == 4 + 27


def test_no_number_has_an_exponent(tmp_path):
    cube.write(tmp_path / "look.cube", torch.full((3, 2, 2, 2), 1.5e-7))
    assert "0.00000015 0.00000015 0.00000015" in (tmp_path / "look.cube").read_text()


def test_the_title_is_the_files_name_unless_given(tmp_path):
    cube.write(tmp_path / "evening light.cube", lut.identity(2))
    assert (tmp_path / "evening light.cube").read_text().startswith('TITLE "evening light"\n')


def test_a_lut_on_its_way_through_training_can_be_written(tmp_path):
    table = random_lut(3).double().requires_grad_()
    cube.write(tmp_path / "look.cube", table)
    assert torch.equal(cube.read(tmp_path / "look.cube"), table.detach().float())


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    "head",
    [
        ["LUT_3D_SIZE 2"],
        ["# made by hand", "", 'TITLE "take #2"', "LUT_3D_SIZE 2", "   ", "# data"],
        ["LUT_3D_SIZE 2", "DOMAIN_MIN 0 0 0", "DOMAIN_MAX 1.000000 1.0 1"],
        ["LUT_3D_SIZE 2", "LUT_3D_INPUT_RANGE 0.0 1.0"],
        ['\ufeffTITLE "Été"', "LUT_3D_SIZE\t2"],
    ],
    ids=["bare", "comments", "domain", "Resolve", "byte-order mark"],
)
def test_files_of_other_programs_are_understood(tmp_path, head, end):
    table = cube.read(written(tmp_path, *head, *LINES, end=end))
    expected = lut.identity(2)
    expected[0, 0, 0, 0] = 0.1
    assert torch.equal(table, expected)


def test_a_comment_may_follow_a_colour_and_the_last_line_may_not_end(tmp_path):
    path = tmp_path / "look.cube"
    path.write_text("\n".join(["LUT_3D_SIZE 2", "0.1 0 0  # black", *LINES[1:]]))
    assert cube.read(path)[0, 0, 0, 0] == pytest.approx(0.1)


BROKEN = {
    "empty": ([], "no line LUT_3D_SIZE"),
    "no size": (LINES, "no line LUT_3D_SIZE"),
    "1-D": (["LUT_1D_SIZE 8", *LINES], r"holds a 1-D LUT \(three tone curves\); export a 3-D LUT"),
    "D=1": (["LUT_3D_SIZE 1", "0 0 0"], "line 1: LUT_3D_SIZE is '1'; expected a number from 2 to 256"),
    "too large": (["LUT_3D_SIZE 257", *LINES], "line 1: LUT_3D_SIZE is '257'; expected a number"),
    "size of words": (["LUT_3D_SIZE two", *LINES], "line 1: LUT_3D_SIZE is 'two'; expected a number"),
    "no number": (["LUT_3D_SIZE", *LINES], "line 1: LUT_3D_SIZE is ''; expected a number"),
    "cut short": (["LUT_3D_SIZE 2", *LINES[:-1]], "7 colours where LUT_3D_SIZE 2 means 8; it is cut short"),
    "cut in a line": (["LUT_3D_SIZE 2", *LINES[:-1], "1 1"], "line 9: '1 1' is no colour"),
    "too many": (["LUT_3D_SIZE 2", *LINES, "1 1 1"], "9 colours where LUT_3D_SIZE 2 means 8; it is damaged"),
    "four numbers": (["LUT_3D_SIZE 2", "0 0 0 1", *LINES[1:]], "line 2: '0 0 0 1' is no colour"),
    "letters": (["LUT_3D_SIZE 2", "0 0 O", *LINES[1:]], "line 2: '0 0 O' are not all numbers"),
    "NaN": (["LUT_3D_SIZE 2", "nan 0 0", *LINES[1:]], "look.cube holds NaN or infinite values"),
    "overflow": (["LUT_3D_SIZE 2", "1e39 0 0", *LINES[1:]], "look.cube holds NaN or infinite values"),
    "domain": (["LUT_3D_SIZE 2", "DOMAIN_MAX 4 4 4", *LINES], "line 2: DOMAIN_MAX is 4 4 4, and only 1 1 1"),
    "range": (
        ["LUT_3D_SIZE 2", "LUT_3D_INPUT_RANGE -1 1", *LINES],
        "LUT_3D_INPUT_RANGE is -1 1, and only 0 1",
    ),
    "half a domain": (["LUT_3D_SIZE 2", "DOMAIN_MIN 0", *LINES], "DOMAIN_MIN is 0, and only 0 0 0"),
    "video levels": (
        ["LUT_3D_SIZE 2", "LUT_IN_VIDEO_RANGE", *LINES],
        "'LUT_IN_VIDEO_RANGE' is no colour and no",
    ),
    "another file": (["\x89PNG\x00\x1a"], r"line 1: .* is no colour and no keyword"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_clear_error(tmp_path, name):
    lines, message = BROKEN[name]
    path = written(tmp_path, *lines)
    with pytest.raises(InputError, match=message) as caught:
        cube.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_cut_anywhere_is_never_taken_for_whole(tmp_path):
    path = written(tmp_path, "LUT_3D_SIZE 2", *LINES)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            cube.read(path)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missing\.cube is not a file; name a \.cube file"):
        cube.read(tmp_path / "missing.cube")
    with pytest.raises(InputError, match=r"is not a file; name a \.cube file"):
        cube.read(tmp_path)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "look.cube"
    cube.write(path, lut.identity(2))
    old = path.read_bytes()

    def full(self, *_, **__):
        self.write_bytes(b"half a fi")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"look.cube cannot be written: No space left on device"):
        cube.write(path, lut.identity(3))
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_the_folder_must_exist(tmp_path):
    with pytest.raises(InputError, match=r"the folder .*looks does not exist; create it first"):
        cube.write(tmp_path / "looks" / "evening.cube", lut.identity(2))


@pytest.mark.parametrize("title", ['an "inner" look', "two\nLUT_3D_SIZE 3", "old\rmac"])
def test_a_title_cannot_become_a_line_of_its_own(tmp_path, title):
    with pytest.raises(InputError, match="a single line without double quotes"):
        cube.write(tmp_path / "look.cube", lut.identity(2), title=title)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_lut_is_not_written(tmp_path, value):
    table = lut.identity(2)
    table[1, 0, 0, 0] = value
    with pytest.raises(InputError, match="LUT holds NaN or infinite values"):
        cube.write(tmp_path / "look.cube", table)
    with pytest.raises(InputError, match="LUT holds NaN or infinite values"):
        cube.to_pillow(table)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (5, 5, 5, 3), (2, 3, 5, 5, 5)])
def test_a_lut_of_another_shape_is_named(tmp_path, shape):
    for leave in (lambda table: cube.write(tmp_path / "look.cube", table), cube.to_pillow):
        with pytest.raises(InputError, match=rf"LUT has shape \({', '.join(map(str, shape))}\)"):
            leave(torch.zeros(shape))


def test_a_lut_larger_than_the_formats_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"D = 257 .* 256 at most"):
        cube.write(tmp_path / "look.cube", torch.zeros(1).expand(3, 257, 257, 257))
    with pytest.raises(InputError, match=r"D = 66 .* 65 at most; use lut.apply_8bit"):
        cube.to_pillow(torch.zeros(3, 66, 66, 66))


# --- Pillow -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 17, 65])
def test_pillow_makes_of_a_photograph_what_we_do(size):
    table = random_lut(size)
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).filter(cube.to_pillow(table)))
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    ours = (255 * lut.apply(table, image)[0]).clamp(0, 255).permute(1, 2, 0).numpy()
    assert np.abs(theirs - ours).max() < 1


def test_what_pillow_takes_comes_back_bit_for_bit():
    table = random_lut(5)
    assert torch.equal(cube.from_pillow(cube.to_pillow(table)), table)


def test_a_table_made_with_pillow_is_read_in_its_order():
    swapped = ImageFilter.Color3DLUT.generate(4, lambda r, g, b: (b, g / 2, r))
    expected = lut.identity(4)[[2, 1, 0]] * torch.tensor([1, 0.5, 1]).view(3, 1, 1, 1)
    torch.testing.assert_close(cube.from_pillow(swapped), expected)


def test_tables_of_pillow_that_are_no_lut_of_ours_are_named():
    uneven = ImageFilter.Color3DLUT.generate((2, 3, 4), lambda r, g, b: (r, g, b))
    with pytest.raises(InputError, match="3 channels and 2 × 3 × 4 points"):
        cube.from_pillow(uneven)
    with_alpha = ImageFilter.Color3DLUT.generate(2, lambda r, g, b: (r, g, b, 1), channels=4)
    with pytest.raises(InputError, match="4 channels and 2 × 2 × 2 points"):
        cube.from_pillow(with_alpha)
    hsv = ImageFilter.Color3DLUT.generate(2, lambda r, g, b: (r, g, b), target_mode="HSV")
    with pytest.raises(InputError, match="mode 'HSV'; expected RGB"):
        cube.from_pillow(hsv)
