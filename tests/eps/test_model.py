from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from cvpr21lib.eps import CAM, EPS, ResNet38, load_official, normalise
from cvpr21lib.eps.resnet38 import FROZEN, FixedBatchNorm
from cvpr21lib.errors import InputError

torch.set_num_threads(1)

TINY = 64  # width divisor: one channel in the stem


def network(kind: str = "eps", width_div: int = TINY, classes: int = 5, seed: int = 0) -> EPS | CAM:
    """With statistics and weights of its norms that leave none of them an identity."""
    torch.manual_seed(seed)
    net = (EPS if kind == "eps" else CAM)(ResNet38(width_div), classes)
    for module in net.modules():
        if isinstance(module, FixedBatchNorm):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 1.5)
            for values in (module.bias.data, module.running_mean):
                values.normal_(0, 0.1)
    return net.eval()


def without_dropout(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return net


@pytest.mark.parametrize(("kind", "size"), [("eps", 105_156_928), ("cls", 105_152_832)])
def test_full_networks_have_the_official_size(kind, size):
    with torch.device("meta"):
        net = EPS(ResNet38()) if kind == "eps" else CAM(ResNet38())
    assert sum(p.numel() for p in net.parameters()) == size
    if kind == "eps":
        assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 104_288_256
        assert sum(p.numel() for p in net.backbone.b7.parameters()) == 37_758_976
    assert len(net.state_dict()) == 229
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 37
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == 44


@pytest.mark.parametrize("size", [(64, 48), (61, 50), (8, 9), (1, 1)])
def test_features_have_an_eighth_of_the_size_rounded_up(size):
    backbone = ResNet38(TINY).eval()
    features = backbone(torch.randn(2, 3, *size))
    assert features.shape == (2, backbone.channels, -(-size[0] // 8), -(-size[1] // 8))


def test_width_divides_every_number_of_channels():
    for divisor in (1, 2, 32, 64):
        with torch.device("meta"):
            backbone = ResNet38(divisor)
        assert backbone.channels == 4096 // divisor
        assert backbone.conv1a.out_channels == 64 // divisor
    for divisor in (0, 3, 128):
        with pytest.raises(InputError, match=f"width_div is {divisor}"):
            ResNet38(divisor)


def test_taps_are_what_the_named_blocks_read():
    backbone, image = network().backbone, torch.randn(1, 3, 40, 32)
    read = {}
    for name in ("b5", "b6"):
        block = backbone.get_submodule(name)
        block.register_forward_pre_hook(lambda block, given: read.update({block: block.activate(given[0])}))
    taps = backbone.taps(image)
    assert torch.equal(taps.conv4, read[backbone.b5])
    assert torch.equal(taps.conv5, read[backbone.b6])
    assert torch.equal(taps.conv6, backbone(image))
    assert [tap.shape[1] for tap in taps] == [512 // TINY, 1024 // TINY, 4096 // TINY]


def test_stem_and_norms_are_frozen_from_the_start():
    net = EPS(ResNet38(TINY))
    for name, parameter in net.backbone.named_parameters():
        assert parameter.requires_grad == ("conv_" in name and name.split(".")[0] not in FROZEN), name


def test_training_mode_changes_nothing_but_dropout():
    net, image = without_dropout(network()), torch.randn(2, 3, 24, 32)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    expected = net(image)
    trained = net.train()(image)
    trained.cam.sum().backward()
    torch.testing.assert_close(trained, expected)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    alone = net(image[:1])
    torch.testing.assert_close(alone.cam, expected.cam[:1])  # the other image has no influence


def test_dropout_is_where_the_official_code_has_it():
    rates = {n: m.p for n, m in network("cls").named_modules() if isinstance(m, nn.Dropout2d)}
    assert rates == {
        "backbone.b6.dropout_2b1": 0.3,
        "backbone.b6.dropout_2b2": 0.3,
        "backbone.b7.dropout_2b1": 0.5,
        "backbone.b7.dropout_2b2": 0.5,
        "dropout7": 0.5,
    }
    assert not hasattr(network("eps"), "dropout7")


def fixed_norm() -> tuple[FixedBatchNorm, torch.Tensor]:
    torch.manual_seed(0)
    norm = FixedBatchNorm(3).double()
    for values in (norm.weight.data, norm.running_var):
        values.uniform_(0.5, 1.5)
    norm.running_mean.normal_()
    return norm, torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)


def test_fixed_norm_is_batch_norm_by_stored_statistics():
    norm, x = fixed_norm()
    ordinary = nn.BatchNorm2d(3).double().eval()
    ordinary.load_state_dict(norm.state_dict())
    weight = torch.randn_like(x)
    for value, expected in (
        (norm(x), ordinary(x)),
        (norm(x.detach()), ordinary(x)),
        *zip(*(torch.autograd.grad((n(x) * weight).sum(), x) for n in (norm, ordinary)), strict=True),
    ):
        torch.testing.assert_close(value, expected)
    assert torch.autograd.gradcheck(norm, x)
    assert torch.autograd.gradgradcheck(norm, x)


def test_fixed_norm_keeps_no_activation_for_the_backward_pass():
    norm, x = fixed_norm()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        norm(x)
    assert sum(kept) == norm.num_features


@pytest.mark.parametrize("size", [(40, 56), (33, 17)])
def test_folded_backbone_gives_the_same_features(size):
    net, image = network(width_div=16), torch.randn(2, 3, *size)
    folded = net.backbone.folded()
    expected = net.backbone(image)
    torch.testing.assert_close(folded(image), expected, rtol=0, atol=1e-6 * expected.abs().max().item())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == 18
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 37, "the original was changed"


def test_any_backbone_serves():
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU())
    backbone.channels = 6
    net = EPS(backbone, 2)
    assert net(torch.randn(1, 3, 8, 12)).cam.shape == (1, 3, 2, 3)
    assert list(net.state_dict()) == ["0.weight", "0.bias", "fc8.weight"]


def test_eps_scores_are_the_means_of_its_maps():
    net, image = network(), torch.randn(2, 3, 40, 32)
    pred, cam = net(image)
    assert (pred.shape, cam.shape) == ((2, 6), (2, 6, 5, 4))
    torch.testing.assert_close(pred, cam.mean((2, 3)))
    torch.testing.assert_close(net.probabilities(image).sum(1), torch.ones(2, 5, 4))
    torch.testing.assert_close(net.class_maps(image), cam.softmax(1)[:, :5])


def test_cam_scores_are_the_means_of_its_maps_before_the_relu():
    net, image = network("cls"), torch.randn(2, 3, 40, 32)
    maps = F.conv2d(net.backbone(image), net.fc8.weight)
    torch.testing.assert_close(net(image), maps.mean((2, 3)))
    torch.testing.assert_close(net.class_maps(image), maps.relu())


@pytest.mark.parametrize("kind", ["eps", "cls"])
def test_some_maps_are_a_choice_of_all(kind):
    net, image, classes = network(kind), torch.randn(1, 3, 40, 32), torch.tensor([1, 4])
    torch.testing.assert_close(net.class_maps(image, classes), net.class_maps(image)[:, [1, 4]])


def test_normalise_is_imagenets():
    pixels = torch.tensor([[[124, 116, 104], [255, 0, 0]]], dtype=torch.uint8).numpy()
    values = normalise(pixels)
    assert values.shape == (3, 1, 2)
    assert values[:, 0, 0].abs().max() < 0.02  # the mean colour
    torch.testing.assert_close(
        values[:, 0, 1], torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    )


def test_names_are_the_official_ones_wherever_the_network_stands(tmp_path):
    net, other = network("cls"), network("cls", seed=1)
    names = list(net.state_dict())
    assert names[:3] == ["conv1a.weight", "b2.bn_branch2a.weight", "b2.bn_branch2a.bias"]
    assert names[-1] == "fc8.weight"
    assert not any("backbone" in name for name in names)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    other.load_state_dict(load_file(tmp_path / "net.safetensors"))
    for module in (other, nn.ModuleList([nn.Linear(1, 1), net, nn.Linear(1, 1)])):
        module.load_state_dict(module.state_dict())
    wrapped = module.state_dict()
    assert list(wrapped) == ["0.weight", "0.bias", *(f"1.{name}" for name in names), "2.weight", "2.bias"]
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(other(image), net(image))


@pytest.mark.parametrize(("outputs", "kind"), [(20, CAM), (21, EPS), (80, CAM), (81, EPS)])
def test_official_checkpoints_load(tmp_path, outputs, kind):
    net = network("cls", classes=outputs)
    state = net.state_dict()
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    for number, layout in enumerate(
        (
            state,
            {f"module.{name}": value for name, value in state.items()},
            {name: value for name, value in state.items() if name not in counters},
        )
    ):
        path = tmp_path / f"checkpoint_cls_{number}.pth"
        torch.save(layout, path)
        read = load_official(path)
        assert type(read) is kind
        assert not read.training
        assert read.num_classes == outputs // 10 * 10
        assert all(torch.equal(value, state[name]) for name, value in read.state_dict().items())


def test_other_numbers_of_classes_need_a_word(tmp_path):
    path = tmp_path / "six.pth"
    torch.save(network("eps", classes=5).state_dict(), path)
    with pytest.raises(InputError, match="6 outputs, unlike VOC"):
        load_official(path)
    assert load_official(path, "eps").num_classes == 5
    assert load_official(path, "cls").num_classes == 6


def test_files_that_do_not_fit_are_named(tmp_path):
    state, path = network("cls", classes=20).state_dict(), tmp_path / "odd.pth"
    torch.save({name: value for name, value in state.items() if not name.startswith("fc8")}, path)
    with pytest.raises(InputError, match=r"no fc8\.weight"):
        load_official(path)
    torch.save({name: value for name, value in state.items() if not name.startswith("b5.")}, path)
    with pytest.raises(InputError, match=r"13 missing \(b5.bn_branch2a.weight"):
        load_official(path)
    torch.save(state | {"conv1a.weight": torch.zeros(7, 3, 3, 3)}, path)
    with pytest.raises(InputError, match="stem of 7 channels"):
        load_official(path)
