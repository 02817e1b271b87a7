"""The hash networks: official sizes, free widths, and what they take in."""

from __future__ import annotations

from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.models import WeightsEnum

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan.victims import Victim, preprocess

torch.set_num_threads(1)

PARAMETERS = {
    "AlexNet": 57_134_944,
    "VGG11": 128_897_440,
    "VGG16": 134_391_648,
    "VGG19": 139_701_344,
    "ResNet18": 11_192_928,
    "ResNet50": 23_573_600,
}


@pytest.mark.parametrize("backbone", PARAMETERS)
def test_official_sizes(backbone):
    with torch.device("meta"):
        net = Victim(backbone, 32)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[backbone]


@pytest.mark.parametrize("method", ["DPSH", "DPH", "HashNet"])
@pytest.mark.parametrize("backbone", PARAMETERS)
def test_narrow_networks_of_the_same_layers(backbone, method):
    torch.manual_seed(0)
    net = Victim(backbone, 12, method, width_div=32)
    with torch.device("meta"):
        full = Victim(backbone, 12, method)
    assert list(net.state_dict()) == list(full.state_dict())
    u = net.eval()(torch.rand(2, 3, 64, 64))
    assert u.shape == (2, 12)
    assert u.isfinite().all()
    assert u.abs().max() < 1
    u.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_alpha_flattens_the_tanh():
    net = Victim("ResNet18", 8, width_div=16).eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(image, 0.1).atanh(), net(image).atanh() * 0.1, rtol=1e-4, atol=1e-6)


def test_only_hashnet_keeps_a_schedule_and_it_is_in_the_state():
    net = Victim("ResNet18", 8, "HashNet", width_div=16)
    for _ in range(3):
        net(torch.rand(2, 3, 32, 32))
    assert net.state_dict()["continuation.iterations"] == 3
    assert not any("continuation" in name for name in Victim("ResNet18", 8, width_div=16).state_dict())


def test_hashnet_starts_its_last_layer_small():
    torch.manual_seed(0)
    for backbone, method, small in (
        ("AlexNet", "HashNet", True),
        ("AlexNet", "DPH", False),
        ("ResNet18", "DPSH", True),
    ):
        net = Victim(backbone, 32, method, width_div=2 if backbone == "ResNet18" else 16).net
        last = net.fc if backbone == "ResNet18" else net.classifier[6]
        assert isinstance(last, nn.Linear)
        assert (last.bias.abs().max() == 0) == small
        if small:
            assert last.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"backbone": "VGG13"}, "backbone is 'VGG13'; it can be AlexNet"),
        ({"method": "DHN"}, "method is 'DHN'; it can be DPSH"),
        ({"bits": 0}, "bits is 0"),
        ({"width_div": 3}, "width_div is 3; expected a divisor of 64"),
        ({"width_div": 2, "pretrained": True}, "width_div is 2; .* 1 with ImageNet"),
    ],
)
def test_unknown_settings_are_named(settings, complaint):
    with pytest.raises(InputError, match=complaint):
        Victim(**settings)


def test_imagenets_weights_fill_all_but_the_last_layer(monkeypatch):
    torch.manual_seed(0)
    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: state)
    own = Victim("ResNet18", 8, pretrained=True).net.state_dict()
    assert own["fc.weight"].shape == (8, 512)
    assert all(torch.equal(own[name], state[name]) for name in state if not name.startswith("fc."))


def test_imagenets_weights_out_of_reach_are_named(monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    with pytest.raises(
        InputError, match=r"of AlexNet are not there .*no route to host.*bring https://.*alexnet"
    ):
        Victim("AlexNet", 8, pretrained=True)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 4, 32, 32), (3, 32, 32)])
def test_non_rgb_images_are_refused(shape):
    net = Victim("ResNet18", 8, width_div=16)
    with pytest.raises(InputError, match=r"expected RGB images \(N, 3, H, W\)"):
        net(torch.zeros(shape))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16"])
def test_non_rgb_pictures_are_refused(mode):
    with pytest.raises(InputError, match=f"mode is {mode}; convert it to RGB first"):
        preprocess(Image.new(mode, (300, 300)))


@pytest.mark.parametrize(
    "values", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8)]
)
def test_non_rgb_arrays_are_refused(values):
    with pytest.raises(InputError, match=r"expected RGB, \(H, W, 3\)"):
        preprocess(values)


def test_pictures_keep_their_range_without_imagenets_mean():
    white = preprocess(Image.new("RGB", (500, 260), "white"))
    assert white.shape == (3, 224, 224)
    assert white.min() == white.max() == 1
