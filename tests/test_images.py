"""Any photograph in, the same kind of photograph out; every file here is made by the test that reads it."""

import errno
import io
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, ImageOps

from cvpr21lib import images
from cvpr21lib.errors import InputError

ORIENTATION = 274
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def scene(channels=3, dtype=np.uint8, height=10, width=14):
    """Random values `(H, W, C)`; no two pixels or orientations look alike."""
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(channels).integers(0, top, (height, width, channels)).astype(dtype)


def saved(image, path, **options):
    image.save(path, **options)
    return path


def deep_png(values, path):
    """A 16-bit PNG of an array in RGB(A) order."""
    order = {1: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[values.shape[2]]
    path.write_bytes(cv2.imencode(".png", values if order is None else cv2.cvtColor(values, order))[1])
    return path


def deep_tiff(values, path, **options):
    tifffile.imwrite(path, values, **({"photometric": "rgb"} | options))
    return path


def with_chunk(png, name, body):
    """A PNG file with one more chunk behind its header."""
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return png[:33] + chunk + png[33:]


def stored_as(values, orientation):
    """The array a camera stores when it is held so that EXIF must say `orientation`."""
    undo = {
        1: values,
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: values.swapaxes(0, 1),
        6: np.rot90(values),
        7: values.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(values, -1),
    }[orientation]
    return np.ascontiguousarray(undo)


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


# --- what is kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp", ".bmp"])
def test_eight_bits_come_back_exactly(tmp_path, suffix):
    values = scene()
    photo = images.from_array(values)
    images.write(tmp_path / f"photo{suffix}", photo)
    again = images.read(tmp_path / f"photo{suffix}")
    assert (again.bits, again.alpha, again.icc) == (8, None, None)
    np.testing.assert_array_equal(again.pixels, values.astype(np.float32) / 255)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("icc", [None, SRGB], ids=["no profile", "profile"])
def test_sixteen_bits_alpha_and_profile_come_back_exactly(tmp_path, suffix, channels, icc):
    values = scene(channels, np.uint16)
    images.write(tmp_path / f"photo{suffix}", images.from_array(values, icc))
    again = images.read(tmp_path / f"photo{suffix}")
    assert (again.bits, again.icc) == (16, icc)
    np.testing.assert_array_equal(images.to_array(again), values)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_eight_bit_alpha_and_profile_come_back_exactly(tmp_path, suffix):
    values = scene(4)
    values[..., 3] |= 1  # WebP may change the colour of what is fully transparent
    images.write(tmp_path / f"photo{suffix}", images.from_array(values, SRGB))
    again = images.read(tmp_path / f"photo{suffix}")
    assert (again.bits, again.icc) == (8, SRGB)
    np.testing.assert_array_equal(images.to_array(again), values)


def test_jpeg_keeps_the_profile_and_nearly_the_pixels(tmp_path):
    smooth = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 32, 0).repeat(3, 2)
    images.write(tmp_path / "photo.jpg", images.from_array(smooth, SRGB))
    again = images.read(tmp_path / "photo.jpg")
    assert again.icc == SRGB
    assert np.abs(images.to_array(again).astype(int) - smooth).max() <= 2


def test_sixteen_bits_are_rounded_where_the_format_has_eight(tmp_path):
    values = scene(dtype=np.uint16)
    images.write(tmp_path / "photo.bmp", images.from_array(values))
    again = images.read(tmp_path / "photo.bmp")
    assert again.bits == 8
    np.testing.assert_array_equal(images.to_array(again), np.round(values / 257).astype(np.uint8))


def test_a_deep_png_written_with_a_profile_is_valid_for_other_readers(tmp_path):
    images.write(tmp_path / "photo.png", images.from_array(scene(dtype=np.uint16), SRGB))
    with Image.open(tmp_path / "photo.png") as image:
        image.verify()
        assert image.info["icc_profile"] == SRGB


def test_a_profile_that_is_not_of_rgb_is_not_passed_on(tmp_path):
    grey = SRGB[:16] + b"GRAY" + SRGB[20:]
    path = saved(Image.fromarray(scene(1)[..., 0]), tmp_path / "grey.png", icc_profile=grey)
    assert images.read(path).icc is None


def test_a_tensor_and_back_changes_nothing():
    photo = images.from_array(scene(4, np.uint16), SRGB)
    tensor = images.to_tensor(photo)
    assert tensor.shape == (3, 10, 14)
    assert tensor.dtype == torch.float32
    again = images.from_tensor(tensor, like=photo)
    np.testing.assert_array_equal(images.to_array(again), images.to_array(photo))
    assert again.icc == SRGB


def test_a_tensor_beyond_the_range_is_clamped():
    photo = images.from_array(scene())
    again = images.from_tensor(torch.full((3, 10, 14), 1.5), like=photo)
    assert again.pixels.max() == 1


# --- what becomes RGB -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".gif"])
def test_grey_becomes_rgb(tmp_path, suffix):
    flat = np.full((10, 14), 77, np.uint8)
    photo = images.read(saved(Image.fromarray(flat), tmp_path / f"grey{suffix}"))
    np.testing.assert_array_equal(images.to_array(photo), np.full((10, 14, 3), 77))


@pytest.mark.parametrize("make", [deep_png, deep_tiff], ids=["png", "tiff"])
def test_sixteen_bit_grey_keeps_its_depth(tmp_path, make):
    values = scene(1, np.uint16)
    options = {"photometric": "minisblack"} if make is deep_tiff else {}
    photo = images.read(make(values, tmp_path / "grey", **options))
    assert photo.bits == 16
    np.testing.assert_array_equal(images.to_array(photo), values.repeat(3, 2))


def test_a_tiff_with_white_as_zero_is_not_a_negative(tmp_path):
    values = scene(1, np.uint16)[..., 0]
    photo = images.read(deep_tiff(values, tmp_path / "grey.tif", photometric="miniswhite"))
    np.testing.assert_array_equal(images.to_array(photo)[..., 0], 65535 - values)


def test_sixteen_bit_colour_is_not_reduced_to_eight(tmp_path):
    values = scene(3, np.uint16)
    for path in (deep_png(values, tmp_path / "a.png"), deep_tiff(values, tmp_path / "a.tif")):
        np.testing.assert_array_equal(images.to_array(images.read(path)), values)


@pytest.mark.parametrize("options", [{"compression": "zlib", "predictor": True}, {"byteorder": ">"}], ids=str)
def test_any_layout_of_a_deep_tiff_is_read(tmp_path, options):
    values = scene(3, np.uint16)
    np.testing.assert_array_equal(
        images.to_array(images.read(deep_tiff(values, tmp_path / "a.tif", **options))), values
    )


def test_a_planar_deep_tiff_is_refused_rather_than_scrambled(tmp_path):
    values = np.moveaxis(scene(3, np.uint16), 2, 0).copy()
    path = deep_tiff(values, tmp_path / "a.tif", planarconfig="separate")
    with pytest.raises(InputError, match=r"a\.tif.*one plane per colour.*save it"):
        images.read(path)


def test_alpha_multiplied_into_a_deep_tiff_is_taken_out_again(tmp_path):
    values = np.zeros((4, 4, 4), np.uint16)
    values[..., :3], values[..., 3] = 16384, 32768
    values[0] = 0
    photo = images.read(deep_tiff(values, tmp_path / "a.tif", extrasamples=["assocalpha"]))
    np.testing.assert_array_equal(photo.pixels[1:], np.float32(0.5))
    np.testing.assert_array_equal(photo.pixels[0], 0)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_alpha_is_kept_apart_from_the_colours(mode):
    image = Image.fromarray(scene(4)).convert(mode)
    np.testing.assert_array_equal(images.to_array(images.from_pil(image)), np.asarray(image.convert("RGBA")))


def test_a_palette_becomes_colours(tmp_path):
    image = Image.fromarray(scene()).quantize(8)
    photo = images.read(saved(image, tmp_path / "palette.png"))
    assert photo.alpha is None
    np.testing.assert_array_equal(images.to_array(photo), np.asarray(image.convert("RGB")))


def test_a_transparent_palette_entry_becomes_alpha(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    photo = images.read(saved(image, tmp_path / "palette.png", transparency=0))
    assert photo.alpha.tolist() == [[0, 1], [1, 0]]


def test_a_transparent_colour_becomes_alpha(tmp_path):
    values = np.full((2, 2, 3), 9, np.uint8)
    values[0, 0] = (1, 2, 3)
    photo = images.read(saved(Image.fromarray(values), tmp_path / "a.png", transparency=(1, 2, 3)))
    assert photo.alpha.tolist() == [[0, 1], [1, 1]]


def test_black_and_white_becomes_zero_and_one(tmp_path):
    bits = np.array([[True, False], [False, True]])
    photo = images.read(saved(Image.fromarray(bits), tmp_path / "bits.png"))
    assert photo.pixels[..., 0].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_without_a_profile_becomes_rgb(tmp_path, suffix):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, 8:, 1:3] = 255  # paper white on the left, magenta and yellow on the right
    photo = images.read(saved(Image.fromarray(ink, "CMYK"), tmp_path / f"ink{suffix}"))
    colours = images.to_array(photo)[8, [2, 13]].astype(int)
    assert np.abs(colours - [[255, 255, 255], [255, 0, 0]]).max() <= 3


def test_cmyk_with_a_profile_goes_through_it(tmp_path):
    ink = np.zeros((4, 4, 4), np.uint8)
    ink[2:, :, 0] = 255
    profile = ink_profile(paper=(100, 0, 0), cyan=(50, 60, 40))
    path = saved(Image.fromarray(ink, "CMYK"), tmp_path / "ink.tif", icc_profile=profile)
    photo = images.read(path)
    assert photo.icc is None  # the pixels are sRGB now
    white, cyan = images.to_array(photo)[[0, 3], 0].astype(int)
    assert white.min() >= 250
    assert (
        cyan[0] > cyan[1] + 60
    )  # this profile prints "cyan" as a red, Pillow alone would give (0, 255, 255)


def test_a_damaged_cmyk_profile_is_named(tmp_path):
    image = Image.fromarray(np.zeros((4, 4, 4), np.uint8), "CMYK")
    path = saved(image, tmp_path / "ink.tif", icc_profile=b"not a profile" * 20)
    with pytest.raises(InputError, match=r"ink\.tif.*CMYK colour profile is damaged.*save it as RGB"):
        images.read(path)


def test_only_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert images.to_array(images.read(tmp_path / "moving.gif"))[..., 0].max() == 10


def ink_profile(paper, cyan):
    """A CMYK profile of two nodes per ink: all inks print black, cyan as Lab `cyan`, all else as `paper`."""

    def lab(colour):
        return bytes([round(colour[0] * 255 / 100), 128 + colour[1], 128 + colour[2]])

    ramp = bytes(range(256))
    # cyan varies slowest
    nodes = lab(paper) * 8 + lab(cyan) * 7 + lab((0, 0, 0))
    identity = struct.pack(">9i", *(65536 * (row == column) for row in range(3) for column in range(3)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + nodes + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text\0\0\0\0none\0\0\0\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", 4) + b"ink\0" + bytes(78)
    tags, body, start = b"", b"", 128 + 4 + 12 * 4
    for name, content in ((b"A2B0", table), (b"wtpt", white), (b"cprt", text), (b"desc", description)):
        tags += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = bytes(4) + b"\0\0\0\0" + struct.pack(">I", 0x02100000) + b"prtrCMYKLab "
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    header = header.ljust(128, b"\0")
    profile = header + struct.pack(">I", 4) + tags + body
    return struct.pack(">I", len(profile)) + profile[4:]


# --- which way up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    upright = scene()
    image = Image.fromarray(stored_as(upright, orientation))
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    path = saved(image, tmp_path / f"a{suffix}", exif=exif(orientation), **options)
    seen = images.to_array(images.read(path))
    with Image.open(path) as stored:
        np.testing.assert_array_equal(seen, np.asarray(ImageOps.exif_transpose(stored)))
    if suffix != ".jpg":
        np.testing.assert_array_equal(seen, upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_exif_orientation_of_sixteen_bit_files_is_applied(tmp_path, orientation, channels):
    upright = scene(channels, np.uint16)
    expected = upright if channels > 1 else upright.repeat(3, 2)
    stored = stored_as(upright, orientation)

    png = deep_png(stored, tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(with_chunk(png, b"eXIf", exif(orientation).removeprefix(b"Exif\0\0")))
    np.testing.assert_array_equal(images.to_array(images.read(tmp_path / "a.png")), expected)

    options = {1: {"photometric": "minisblack"}, 4: {"extrasamples": ["unassalpha"]}}.get(channels, {})
    for name, compression in (("raw.tif", None), ("packed.tif", "zlib")):
        tag = [(ORIENTATION, "H", 1, orientation, True)]
        path = deep_tiff(stored, tmp_path / name, extratags=tag, compression=compression, **options)
        np.testing.assert_array_equal(images.to_array(images.read(path)), expected)


def test_what_is_written_is_upright_and_says_nothing_else(tmp_path):
    image = Image.fromarray(stored_as(scene(), 6))
    photo = images.read(saved(image, tmp_path / "turned.jpg", exif=exif(6)))
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        images.write(tmp_path / f"out{suffix}", photo)
        with Image.open(tmp_path / f"out{suffix}") as out:
            assert out.size == (14, 10)
            assert out.getexif().get(ORIENTATION, 1) == 1


def test_an_orientation_that_does_not_exist_is_ignored(tmp_path):
    path = saved(Image.fromarray(scene()), tmp_path / "a.png", exif=exif(9))
    np.testing.assert_array_equal(images.to_array(images.read(path)), scene())


# --- what is not an image ---------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        images.read(tmp_path / "gone.png")


def test_a_folder_is_not_an_image(tmp_path):
    with pytest.raises(InputError, match="is not a file; name one image in it"):
        images.read(tmp_path)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(InputError, match=r"a\.jpg is empty \(0 bytes\)"):
        images.read(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "content", [b"a shopping list\n", b"%PDF-1.7\n%%EOF\n", b"<!doctype html>", bytes(1000)], ids=str
)
def test_what_is_not_an_image_is_named(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jpg is not an image that can be read"):
        images.read(tmp_path / "a.jpg")


KINDS = {
    "jpeg": lambda path: saved(Image.fromarray(scene(height=64, width=64)), path, format="JPEG"),
    "png": lambda path: saved(Image.fromarray(scene(height=64, width=64)), path, format="PNG"),
    "tiff": lambda path: saved(Image.fromarray(scene(height=64, width=64)), path, format="TIFF"),
    "webp": lambda path: saved(Image.fromarray(scene(height=64, width=64)), path, format="WEBP"),
    "bmp": lambda path: saved(Image.fromarray(scene(height=64, width=64)), path, format="BMP"),
    "gif": lambda path: saved(Image.fromarray(scene(height=64, width=64)), path, format="GIF"),
    "deep png": lambda path: deep_png(scene(dtype=np.uint16, height=64, width=64), path),
    "deep tiff": lambda path: deep_tiff(
        scene(dtype=np.uint16, height=64, width=64), path, compression="zlib"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_half_a_file_is_never_taken_for_a_whole_one(tmp_path, kind, share):
    whole = KINDS[kind](tmp_path / "whole.png").read_bytes()
    (tmp_path / "part.png").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"part\.png"):
        images.read(tmp_path / "part.png")


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what the damage did to a TIFF's tags
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_give_an_image_or_one_clear_error(tmp_path, kind):
    whole = KINDS[kind](tmp_path / "whole.png").read_bytes()
    random, outcomes = np.random.default_rng(0), []
    for _ in range(40):
        damaged = bytearray(whole)
        reach = len(whole) if random.random() < 0.5 else min(len(whole), 200)
        for position in random.integers(0, reach, 6):
            damaged[position] = random.integers(0, 256)
        (tmp_path / "damaged.png").write_bytes(damaged)
        try:
            shape = images.read(tmp_path / "damaged.png").pixels.shape
        except InputError as error:
            outcomes.append("damaged.png" in str(error))
        else:
            outcomes.append(len(shape) == 3 and shape[2] == 3)
    assert all(outcomes)
    assert len(outcomes) == 40


def png_that_claims(width, height, tmp_path):
    """A PNG whose header says `width` × `height` and whose data say nothing of the kind."""
    png = bytearray(saved(Image.fromarray(scene()), tmp_path / "claim.png").read_bytes())
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    (tmp_path / "claim.png").write_bytes(png)
    return tmp_path / "claim.png"


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0)])
def test_an_image_without_pixels_is_named(tmp_path, width, height):
    with pytest.raises(InputError, match=r"claim\.png"):
        images.read(png_that_claims(width, height, tmp_path))


def test_a_decompression_bomb_is_not_decoded(tmp_path):
    with pytest.raises(InputError, match=r"claim\.png has 100000 × 100000 pixels; at most 268,435,456"):
        images.read(png_that_claims(100_000, 100_000, tmp_path))


def test_the_limit_on_size_is_ours_and_pillows_own_is_left_alone(tmp_path, monkeypatch):
    path = saved(Image.fromarray(scene()), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    workers = [threading.Thread(target=images.read, args=(path,)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert images.read(path).pixels.shape == (10, 14, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(images, "MAX_PIXELS", 139)
    with pytest.raises(InputError, match="14 × 10 pixels; at most 139"):
        images.read(path)


@pytest.mark.parametrize("kind", [np.float32, np.uint32])
def test_more_than_sixteen_bits_are_refused(tmp_path, kind):
    tifffile.imwrite(tmp_path / "a.tif", scene(1).astype(kind)[..., 0])
    with pytest.raises(InputError, match=r"a\.tif"):
        images.read(tmp_path / "a.tif")


# --- what cannot be written -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["photo.jpg", "photo.jpeg", "photo.bmp", "PHOTO.JPG"])
def test_alpha_has_no_place_in_jpeg_or_bmp(tmp_path, name):
    with pytest.raises(InputError, match=r"transparency, which (JPEG|BMP) cannot hold; use \.png"):
        images.write(tmp_path / name, images.from_array(scene(4)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["photo.pdf", "photo", "photo.gif"])
def test_an_unknown_suffix_is_named_with_the_known_ones(tmp_path, name):
    with pytest.raises(InputError, match=r"cannot write .*; use \.jpg, .*\.png"):
        images.write(tmp_path / name, images.from_array(scene()))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist; create it first"):
        images.write(tmp_path / "nowhere" / "photo.png", images.from_array(scene()))


def test_a_folder_is_not_overwritten(tmp_path):
    (tmp_path / "photo.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        images.write(tmp_path / "photo.png", images.from_array(scene()))


def test_an_image_beyond_the_format_is_named(tmp_path):
    wide = images.from_array(np.zeros((1, 70_000, 3), np.uint8))
    with pytest.raises(InputError, match=r"JPEG cannot hold 70000 × 1 pixels.*use \.png"):
        images.write(tmp_path / "wide.jpg", wide)


def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"photo\.png cannot be written: No space left on device"):
        images.write(tmp_path / "photo.png", images.from_array(scene()))
    assert not list(tmp_path.iterdir())


def test_nan_is_not_written_and_the_old_file_stays(tmp_path):
    images.write(tmp_path / "photo.png", images.from_array(scene()))
    before = (tmp_path / "photo.png").read_bytes()
    broken = images.Photo(np.full((4, 4, 3), np.nan, np.float32))
    with pytest.raises(InputError, match="NaN"):
        images.write(tmp_path / "photo.png", broken)
    assert (tmp_path / "photo.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_pillow_image_of_too_many_bits_is_refused():
    with pytest.raises(InputError, match="the image has pixels of Pillow's mode 'F'"):
        images.from_pil(Image.new("F", (4, 4)))


def test_a_sixteen_bit_pillow_image_keeps_its_values():
    values = scene(1, np.uint16)[..., 0]
    photo = images.from_pil(Image.open(io.BytesIO(tiff_bytes(values))))
    np.testing.assert_array_equal(images.to_array(photo)[..., 0], values)


def tiff_bytes(values):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="minisblack")
    return buffer.getvalue()
