"""The generator's layout, and what its output may depend on."""

from __future__ import annotations

import pytest
import torch

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan.generator import Generator

torch.set_num_threads(1)


def small(**settings) -> Generator:
    torch.manual_seed(0)
    return Generator(**{"size": (8, 16), "features": 6, "label_widths": (8, 4, 4), "width": 4} | settings)


def test_official_sizes_and_names():
    with torch.device("meta"):
        net = Generator()
    assert sum(p.numel() for p in net.parameters()) == 21_454_121
    parts = {"label_encoder": 13_044_440, "image_encoder": 4_213_568, "decoder": 4_194_304, "residual": 1_809}
    assert {part: sum(p.numel() for p in getattr(net, part).parameters()) for part in parts} == parts
    residual = [f".{block}.main.{layer}.weight" for block in range(12) for layer in (0, 3)]
    names = {f"label_encoder.fc.0.{part}" for part in ("weight", "bias")}
    names |= {f"label_encoder.transform.{number}.weight" for number in (0, 3, 6, 9, 12)}
    names |= {f"image_encoder.{number}.{part}" for number in (0, 3, 6) for part in ("weight", "bias")}
    names |= {f"image_encoder{name}" for name in residual[18:]}
    names |= {f"decoder{name}" for name in residual[:6]}
    names |= {"decoder.3.weight", "decoder.6.weight", "residual.0.weight"}
    assert set(net.state_dict()) == names
    assert len(names) == 28


@pytest.mark.parametrize("channels", [1, 3])
def test_output_has_the_images_shape_and_range(channels):
    net = small(channels=channels, blocks=1)
    image = torch.rand(2, channels, 8, 16) * 2 - 1
    made = net(image, torch.randn(2, 6))
    assert made.shape == image.shape
    assert made.abs().max() < 1


def test_each_image_is_attacked_by_itself():
    net, image, feature = small(), torch.rand(3, 3, 8, 16) * 2 - 1, torch.randn(3, 6)
    alone = torch.cat([net(image[i : i + 1], feature[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(image, feature), alone)


def test_the_label_steers_the_output():
    net, image = small(), torch.rand(1, 3, 8, 16) * 2 - 1
    one, other = (net(image, feature) for feature in torch.randn(2, 1, 6))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(8, 18), (0, 8), (6, 8)])
def test_sizes_that_do_not_halve_are_refused(size):
    with pytest.raises(InputError, match=rf"size is {size[0]} x {size[1]}; .* multiples of 4 pixels"):
        small(size=size)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 1, 8, 16), (3, 8, 16)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"this generator attacks \(N, 3, 8, 16\)"):
        small()(torch.zeros(shape), torch.zeros(1, 6))
