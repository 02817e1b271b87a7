"""Official checkpoints and start weights load, and what is something else is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cvpr21lib.ctrl_uda import weights
from cvpr21lib.ctrl_uda.discriminator import Discriminator
from cvpr21lib.ctrl_uda.model import CTRL
from cvpr21lib.ctrl_uda.recipe import Best
from cvpr21lib.errors import InputError

torch.set_num_threads(1)


def randomised(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator))
    return network


@pytest.fixture
def trained() -> CTRL:
    return randomised(CTRL(7, width_div=64), 1)


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    torch.testing.assert_close(dict(one), dict(two), rtol=0, atol=0)


def official_checkpoint(path: Path, net: CTRL, discriminator: Discriminator | None) -> Path:
    """As the official trainers save it; the second stage has no discriminator."""
    content = {
        "iter": 1000,
        "max_iter": 90000,
        "model_state_dict": net.state_dict(),
        "loss": torch.tensor(1.5),
    }
    content["optimizer_state_dict"] = torch.optim.SGD(net.parameters(), 0.1).state_dict()
    if discriminator is not None:
        content["disc_state_dict"] = discriminator.state_dict()
        content["disc_optim_state_dict"] = torch.optim.Adam(discriminator.parameters()).state_dict()
    torch.save(content, path)
    return path


def test_official_checkpoints_of_the_first_stage(tmp_path, trained):
    judge = randomised(Discriminator(29, width=2), 2)
    path = official_checkpoint(tmp_path / "model_1000_0.pth", trained, judge)
    net, discriminator = CTRL(7, width_div=64), Discriminator(29, width=2)
    weights.load_network(net, path)
    weights.load_discriminator(discriminator, path)
    same(net.state_dict(), trained.state_dict())
    same(discriminator.state_dict(), judge.state_dict())


def test_official_checkpoints_of_self_learning_have_no_discriminator(tmp_path, trained):
    path = official_checkpoint(tmp_path / "model_1000_0.pth", trained, None)
    same(weights.open_network(path).state_dict(), trained.state_dict())
    with pytest.raises(InputError, match="holds no discriminator: official checkpoints of self-learning"):
        weights.load_discriminator(Discriminator(29, width=2), path)


def test_a_network_opens_with_its_width_and_classes(tmp_path):
    made = randomised(CTRL(16, width_div=32), 3)
    torch.save(made.state_dict(), tmp_path / "bare.pth")
    net = weights.open_network(tmp_path / "bare.pth")
    assert (net.num_classes, net.width_div, net.training) == (16, 32, False)
    same(net.state_dict(), made.state_dict())


def test_the_best_model_opens_like_any_other(tmp_path, trained):
    best = Best(7, 64, ("miou", "iou/sky"))
    best.update(trained, {"miou": 40.0})
    save_file(best.state_dict(), tmp_path / "best.safetensors")
    same(weights.open_network(tmp_path / "best.safetensors").state_dict(), trained.state_dict())


def imagenet(path: Path, net: CTRL, prefix: str = "Scale.", counters: bool = False) -> Path:
    state = {
        prefix + name: value
        for name, value in net.backbone.state_dict().items()
        if counters or not name.endswith("num_batches_tracked")
    }
    layer5 = {f"{prefix}layer5.conv2d_list.0.weight": torch.zeros(21, 32, 3, 3)}
    torch.save(state | layer5, path)
    return path


@pytest.mark.parametrize("counters", [False, True])
def test_the_official_start_fills_the_backbone_alone(tmp_path, trained, counters):
    path = imagenet(tmp_path / "start.pth", trained, counters=counters)
    net = CTRL(7, width_div=64)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    weights.initialise(net, path)
    same(net.backbone.state_dict(), trained.backbone.state_dict())
    others = {name: value for name, value in before.items() if not name.startswith("backbone.")}
    same({name: net.state_dict()[name] for name in others}, others)


def test_a_random_start_changes_nothing():
    net = CTRL(7, width_div=64)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    weights.initialise(net, "random")
    same(net.state_dict(), before)


def test_torchvision_weights_are_refused_by_name(tmp_path, trained):
    state = trained.backbone.state_dict() | {"fc.weight": torch.zeros(1000, 32), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "resnet101.pth")
    with pytest.raises(
        InputError, match=r"resnet101\.pth holds torchvision's ResNet-101, which does not fit"
    ):
        weights.load_imagenet(CTRL(7, 64), tmp_path / "resnet101.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b"PK\x03\x04half", "damaged or half-written"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "model_1_0.pth"
    path.write_bytes(content)
    for read in (weights.read_network, weights.open_network):
        with pytest.raises(InputError, match=message):
            read(path)


def test_missing_layers_are_named(tmp_path, trained):
    state = trained.state_dict()
    del state["decoder.dec2.bias"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(InputError, match=r"1 missing \(decoder.dec2.bias\)"):
        weights.open_network(tmp_path / "part.pth")


def test_other_networks_are_named(tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not hold a network of CTRL-UDA"):
        weights.open_network(tmp_path / "other.pth")


def test_what_the_record_says_of_a_start(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"a")
    assert weights.describe(tmp_path / "a.pth") == "a.pth (sha256 ca978112ca1bbdca)"
    assert weights.describe("random") == "random"
    with pytest.raises(InputError, match=r"official README of susaha/ctrl-uda has the link"):
        weights.describe(tmp_path / weights.IMAGENET)
