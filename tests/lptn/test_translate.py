"""A photograph in any form goes in, the same form comes out; what is not a photograph is named."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cvpr21lib import cli, images
from cvpr21lib.errors import InputError
from cvpr21lib.lptn import LPTN, FullResolution
from cvpr21lib.lptn.translate import translate

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network():
    """A small LPTN of two levels with arbitrary weights."""
    torch.manual_seed(0)
    return LPTN(num_high=2, nrb_low=1, nrb_high=1, width=16)


@pytest.fixture
def weights(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "net_g.pth")
    return tmp_path / "net_g.pth"


class Same(nn.Module):
    """Returns its input, so that only the way in and out is left to see."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return image * self.scale


def scene(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


# --- one photograph, many forms ---------------------------------------------------------------------------


def test_the_result_is_the_networks_output_clamped(network):
    image = torch.rand(2, 3, 33, 50)
    with torch.no_grad():
        expected = network(image)
    assert expected.min() < 0
    torch.testing.assert_close(translate(image, network), expected.clamp(0, 1), rtol=0, atol=0)


@pytest.mark.parametrize(("height", "width"), [(5, 5), (5, 200), (37, 50), (64, 96)])
def test_any_size_from_the_smallest_on_keeps_its_shape(network, height, width):
    assert translate(torch.rand(3, height, width), network).shape == (3, height, width)
    assert translate(scene(height, width, 3), network).shape == (height, width, 3)


def test_all_forms_give_the_same_pixels(network, tmp_path):
    values = scene(21, 30, 3)
    array = translate(values, network)
    images.write(tmp_path / "photo.png", images.from_array(values))

    pillow = translate(Image.fromarray(values), network)
    photo = translate(images.from_array(values), network)
    from_file = translate(tmp_path / "photo.png", network)
    tensor = translate(torch.from_numpy(values).permute(2, 0, 1).float() / 255, network)
    batch = translate(torch.from_numpy(values).permute(2, 0, 1)[None].float() / 255, network)
    floats = translate((values / np.float32(255)).astype(np.float32), network)

    assert array.dtype == np.uint8
    assert isinstance(pillow, Image.Image)
    assert pillow.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(pillow), array)
    np.testing.assert_array_equal(images.to_array(photo), array)
    np.testing.assert_array_equal(images.to_array(from_file), array)
    for other in (tensor.permute(1, 2, 0).numpy(), batch[0].permute(1, 2, 0).numpy(), floats):
        np.testing.assert_array_equal(np.round(other * 255), array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_depth_and_alpha_of_an_array_are_kept_exactly(dtype, channels):
    values = scene(9, 12, channels, dtype=dtype)
    out = translate(values, Same())
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_keep_their_type_and_alpha(dtype):
    values = np.random.default_rng(0).random((9, 12, 4)).astype(dtype)
    out = translate(values, Same())
    assert out.dtype == dtype
    np.testing.assert_array_equal(out[..., 3], values[..., 3])
    np.testing.assert_allclose(out, values, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_keeps_its_type_and_alpha(dtype):
    image = torch.rand(2, 4, 9, 12).to(dtype)
    out = translate(image, Same())
    assert out.dtype == dtype
    torch.testing.assert_close(out, image, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 1)])
def test_a_grey_array_becomes_rgb(shape):
    values = scene(*shape)
    out = translate(values, Same())
    assert out.shape == (9, 12, 3)
    np.testing.assert_array_equal(out, np.broadcast_to(values.reshape(9, 12, 1), (9, 12, 3)))


def test_a_grey_array_with_alpha_becomes_rgb_with_alpha():
    values = scene(9, 12, 2)
    np.testing.assert_array_equal(translate(values, Same()), values[..., [0, 0, 0, 1]])


def test_a_grey_tensor_becomes_rgb():
    image = torch.rand(1, 9, 12)
    torch.testing.assert_close(translate(image, Same()), image.expand(3, 9, 12))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_any_pillow_mode_is_translated(network, mode):
    image = Image.fromarray(scene(20, 20, 3)).convert(mode)
    out = translate(image, network)
    assert out.mode == ("RGBA" if "A" in mode else "RGB")
    assert out.size == (20, 20)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_deep_file_with_alpha_and_profile_keeps_them(network, tmp_path, suffix):
    values = scene(20, 26, 4, dtype=np.uint16)
    profile = bytes(16) + b"RGB " + bytes(108)
    images.write(tmp_path / f"in{suffix}", images.from_array(values, profile))
    photo = translate(str(tmp_path / f"in{suffix}"), network)
    assert (photo.bits, photo.icc) == (16, profile)
    np.testing.assert_array_equal(images.to_array(photo)[..., 3], values[..., 3])


# --- the network ------------------------------------------------------------------------------------------


def test_a_file_of_weights_gives_what_its_network_gives(network, weights):
    values = scene(20, 20, 3)
    np.testing.assert_array_equal(translate(values, weights), translate(values, network))


def test_the_network_is_used_in_evaluation_mode_and_left_as_it_was():
    class Noisy(Same):
        def forward(self, image):
            assert not self.training
            assert not torch.is_grad_enabled()
            return super().forward(image)

    network = Noisy().train()
    assert not translate(torch.rand(3, 9, 9), network).requires_grad
    assert network.training


def test_the_baseline_without_a_pyramid_translates_too():
    assert translate(scene(4, 4, 3), FullResolution(1, 16)).shape == (4, 4, 3)


def test_the_photograph_given_is_not_changed(network):
    values, tensor = scene(20, 20, 3), torch.rand(3, 20, 20)
    before, before_tensor = values.copy(), tensor.clone()
    translate(values, network)
    translate(tensor, network)
    np.testing.assert_array_equal(values, before)
    assert torch.equal(tensor, before_tensor)


# --- what is not a photograph -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (torch.rand(3, 4, 40), "4 × 40 pixels is too small for a pyramid of 2 levels"),
        (scene(40, 4, 3), "40 × 4 pixels is too small"),
        (np.zeros((0, 20, 3), np.uint8), "no pixels"),
        (torch.zeros(0, 3, 20, 20), "no pixels"),
        (torch.full((3, 20, 20), torch.nan), "NaN or infinite"),
        (np.full((20, 20, 3), np.inf), "NaN or infinite"),
        (torch.rand(3, 20, 20) * 255, r"expected values in \[0, 1\], but they span"),
        (np.full((20, 20, 3), -0.5), r"they span \[-0.5, -0.5\]"),
        (torch.zeros(3, 20, 20, dtype=torch.uint8), "floats in .* but got torch.uint8"),
        (np.zeros((20, 20, 3), np.int64), "uint8, uint16 or floats .* int64"),
        (np.zeros((3, 20, 20), np.uint8), r"channels last, but got the shape \(3, 20, 20\)"),
        (torch.rand(20, 20, 3), r"expected a tensor .* got the shape \(20, 20, 3\)"),
        (torch.rand(5, 20, 20), "1, 3 or 4 channels"),
        (torch.rand(20, 20), r"got the shape \(20, 20\)"),
        ([[1, 2], [3, 4]], "cannot translate a list"),
        (Image.new("F", (20, 20)), "mode 'F'"),
        (Image.new("I;16", (20, 20)), "cannot hold 16-bit colours"),
    ],
)
def test_what_is_not_a_photograph_is_named(network, image, complaint):
    with pytest.raises(InputError, match=complaint):
        translate(image, network)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("gone.png", None, "does not exist"),
        ("empty.png", b"", "is empty"),
        ("text.jpg", b"not a photograph", "is not an image that can be read"),
        ("cut.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF", "cut.jpg"),
    ],
)
def test_a_file_that_is_not_a_photograph_is_named(network, tmp_path, name, content, complaint):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(complaint)):
        translate(tmp_path / name, network)


@pytest.mark.parametrize("device", ["cuda:99", "quantum"])
def test_a_device_that_is_not_there_is_named(network, device):
    with pytest.raises(InputError, match=f"device is '{device}', which is not there"):
        translate(scene(20, 20, 3), network, device=device)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.pth"):
        translate(scene(20, 20, 3), tmp_path / "gone.pth")


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_translates_a_turned_photograph_from_file_to_file(network, weights, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(scene(20, 30, 3)).save(tmp_path / "in.png", exif=exif)
    words = ["translate", str(tmp_path / "in.png"), "--weights", str(weights), "--device", "cpu"]
    assert cli.main([*words, "--out", str(tmp_path / "out.png")]) == 0
    upright = np.rot90(scene(20, 30, 3), -1).copy()
    out = images.to_array(images.read(tmp_path / "out.png"))
    np.testing.assert_array_equal(out, translate(upright, network))


@pytest.mark.parametrize(
    ("photo", "out", "complaint"),
    [
        ("gone.png", "out.png", "gone.png does not exist"),
        ("clear.png", "out.jpg", "transparency, which JPEG cannot hold; use .png"),
        ("clear.png", "out.raw", "cannot write a .raw file"),
        ("clear.png", "nowhere/out.png", "nowhere does not exist"),
        ("small.png", "out.png", "too small for a pyramid of 2 levels"),
    ],
)
def test_the_command_refuses_before_it_writes(weights, tmp_path, capsys, photo, out, complaint):
    images.write(tmp_path / "clear.png", images.from_array(scene(20, 20, 4)))
    images.write(tmp_path / "small.png", images.from_array(scene(4, 4, 3)))
    words = ["translate", str(tmp_path / photo), "--weights", str(weights), "--out", str(tmp_path / out)]
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1
    assert not (tmp_path / out).exists()
