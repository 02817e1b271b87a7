"""Official generators and PrototypeNets, and victims of ours, read by what the files hold."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import weights
from cvpr21lib.prosgan.generator import Generator
from cvpr21lib.prosgan.prototype import PrototypeNet
from cvpr21lib.prosgan.victims import Victim

torch.set_num_threads(1)


def generator(**settings) -> Generator:
    torch.manual_seed(0)
    return Generator(**{"size": (16, 16), "features": 6, "label_widths": (8, 6, 4), "width": 4} | settings)


@pytest.mark.parametrize(
    "settings",
    [{}, {"blocks": 1, "channels": 1}, {"label_widths": (4, 2), "size": (12, 12)}, {"features": 9}],
)
def test_generators_of_any_width_load(tmp_path, settings):
    net = generator(**settings)
    torch.save({f"module.{name}": value for name, value in net.state_dict().items()}, tmp_path / "g.pth")
    loaded = weights.load_generator(tmp_path / "g.pth")
    assert not loaded.training
    image = torch.rand(2, net.channels, *net.size) * 2 - 1
    feature = torch.rand(2, settings.get("features", 6))
    assert torch.equal(loaded(image, feature), net(image, feature))


def test_the_official_generators_layout_is_read_off_its_shapes(tmp_path, monkeypatch):
    """As published: 28 tensors by their official names, here without the memory for 21 million numbers."""
    with torch.device("meta"):
        state = Generator().state_dict()
        monkeypatch.setattr(weights.checkpoints, "load", lambda path: state)
        monkeypatch.setattr(weights.checkpoints, "fit", lambda module, state, source: None)
        loaded = weights.load_generator(tmp_path)
    assert {k: v.shape for k, v in loaded.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert loaded.size == (224, 224)


def test_prototype_nets_load(tmp_path):
    net = PrototypeNet(5, 8, hidden=12, features=7)
    torch.save(net.state_dict(), tmp_path / "p.pth", _use_new_zipfile_serialization=False)
    loaded = weights.load_prototype_net(tmp_path / "p.pth")
    assert torch.equal(loaded.code(torch.eye(5)), net.code(torch.eye(5)))


@pytest.mark.parametrize("method", ["DPSH", "HashNet"])
@pytest.mark.parametrize("backbone", ["AlexNet", "VGG11", "VGG16", "VGG19", "ResNet18", "ResNet50"])
def test_victims_of_ours_load_with_their_schedule(tmp_path, backbone, method):
    victim = Victim(backbone, 12, method, width_div=32)
    if method == "HashNet":
        victim.continuation.scale.fill_(2)
    save_file(victim.state_dict(), tmp_path / "v.safetensors")
    loaded = weights.load_victim(tmp_path / "v.safetensors")
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(image), victim.eval()(image))


@pytest.mark.parametrize("load", [weights.load_generator, weights.load_prototype_net, weights.load_victim])
def test_files_of_another_network_are_named(tmp_path, load):
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other.pth is not a .* is missing or misshapen \(it holds "):
        load(tmp_path / "other.pth")


def test_parts_that_are_missing_are_named(tmp_path):
    for number, (net, load, name) in enumerate(
        [
            (generator(), weights.load_generator, "decoder.3.weight"),
            (PrototypeNet(5, 8, 12, 7), weights.load_prototype_net, "classifier.0.bias"),
            (Victim("ResNet18", 8, width_div=16), weights.load_victim, "net.layer4.1.conv2.weight"),
        ]
    ):
        state = net.state_dict()
        del state[name]
        torch.save(state, tmp_path / f"{number}.pth")
        with pytest.raises(InputError, match=f"1 missing .{name}"):
            load(tmp_path / f"{number}.pth")


def test_a_generator_without_its_label_decoder_is_named(tmp_path):
    state = {k: v for k, v in generator().state_dict().items() if "transform" not in k}
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(InputError, match=r"label_encoder\.transform is missing"):
        weights.load_generator(tmp_path / "g.pth")


def test_an_unknown_depth_is_named(tmp_path):
    state = Victim("VGG11", 8, width_div=32).state_dict()
    del state["net.features.3.weight"]
    torch.save(state, tmp_path / "v.pth")
    with pytest.raises(InputError, match="has 7 convolutions; a VGG has 8, 13 or 16"):
        weights.load_victim(tmp_path / "v.pth")
