"""The four DeepLabs have the published layers, and start from the weights of others."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from cvpr21lib.eps import deeplab, deeplab_weights, optim
from cvpr21lib.eps.deeplab import DeepLab, ResNet101, as_caffe, multi_scale
from cvpr21lib.eps.resnet38 import FixedBatchNorm, normalise
from cvpr21lib.errors import InputError

VERSIONS = pytest.mark.parametrize("version", ["v1", "v2"])
BACKBONES = pytest.mark.parametrize("backbone", ["vgg16", "resnet101"])
DIV = 16


def small(version: str = "v2", backbone: str = "resnet101", num_classes: int = 5) -> DeepLab:
    torch.manual_seed(0)
    return DeepLab(version, backbone, num_classes, width_div=DIV).eval()


@VERSIONS
@BACKBONES
def test_a_crop_of_321_pixels_has_logits_of_41(version, backbone):
    with torch.no_grad():
        assert small(version, backbone)(torch.rand(1, 3, 321, 321)).shape == (1, 5, 41, 41)


@VERSIONS
@BACKBONES
@pytest.mark.parametrize("size", [(65, 97), (50, 64), (9, 9), (1, 1)])
def test_an_image_of_any_size_has_logits_of_an_eighth(version, backbone, size):
    with torch.no_grad():
        height, width = small(version, backbone)(torch.rand(1, 3, *size)).shape[2:]
    assert abs(height - size[0] / 8) <= 2
    assert abs(width - size[1] / 8) <= 2
    if size == (65, 97):  # 8k + 1
        assert (height, width) == (9, 13)


@pytest.mark.parametrize(
    ("version", "backbone", "millions"),
    [("v1", "vgg16", 20.5), ("v2", "vgg16", 37.9), ("v1", "resnet101", 42.9), ("v2", "resnet101", 44.0)],
)
def test_number_of_parameters(version, backbone, millions):
    """20.5 million is what DeepLab calls its own LargeFOV by."""
    with torch.device("meta"):
        net = DeepLab(version, backbone)
    assert round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(("version", "rates"), [("v1", [12]), ("v2", [6, 12, 18, 24])])
def test_dilations_of_the_branches(version, rates):
    with torch.device("meta"):
        vgg, resnet = DeepLab(version, "vgg16"), DeepLab(version, "resnet101")
    for branches, channels in ((vgg.backbone.fc6, 512), (resnet.fc8, 2048)):
        assert [each.dilation for each in branches] == [(rate, rate) for rate in rates]
        assert [each.padding for each in branches] == [(rate, rate) for rate in rates]
        assert {(each.in_channels, each.kernel_size) for each in branches} == {(channels, (3, 3))}
    assert {(each.in_channels, each.out_channels) for each in vgg.backbone.fc7} == {(1024, 1024)}
    assert {(each.kernel_size, each.in_channels) for each in vgg.fc8} == {((1, 1), 1024)}


def test_vgg16_keeps_an_eighth_from_pool4_on_and_dilates_conv5():
    with torch.device("meta"):
        features = DeepLab("v1", "vgg16").backbone.features
    pools = [layer for layer in features if isinstance(layer, nn.MaxPool2d)]
    assert [(pool.kernel_size, pool.stride, pool.padding) for pool in pools] == [
        (3, 2, 1), (3, 2, 1), (3, 2, 1), (3, 1, 1), (3, 1, 1),
    ]  # fmt: skip
    convolutions = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    assert [layer.dilation for layer in convolutions] == [(1, 1)] * 10 + [(2, 2)] * 3


def test_only_large_fov_averages_after_pool5():
    with torch.device("meta"):
        v1, v2 = DeepLab("v1", "vgg16"), DeepLab("v2", "vgg16")
    assert isinstance(v1.backbone.pool5a, nn.AvgPool2d)
    assert isinstance(v2.backbone.pool5a, nn.Identity)


def test_resnet_dilates_its_last_two_layers_instead_of_striding():
    with torch.device("meta"):
        backbone = DeepLab("v2", "resnet101").backbone
    for layer, depth, stride, dilation in (
        (backbone.layer1, 3, 1, 1), (backbone.layer2, 4, 2, 1), (backbone.layer3, 23, 1, 2),
        (backbone.layer4, 3, 1, 4),
    ):  # fmt: skip
        assert len(layer) == depth
        assert {block.conv2.dilation for block in layer} == {(dilation, dilation)}
        assert layer[0].conv2.stride == (stride, stride)


def test_batch_normalisation_is_frozen():
    net = small().train()
    image = torch.rand(2, 3, 33, 33)
    before = {name: value.clone() for name, value in net.state_dict().items() if "running" in name}
    net(image).sum().backward()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 104
    assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())


def test_without_dilation_it_is_torchvisions_network():
    torch.manual_seed(0)
    theirs = ResNet(Bottleneck, [3, 4, 23, 3], norm_layer=FixedBatchNorm).eval()
    ours = ResNet101()
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    ours.load_state_dict(state)
    for name, module in ours.named_modules():
        if name.startswith(("layer3", "layer4")) and isinstance(module, nn.Conv2d):
            like = theirs.get_submodule(name)
            module.stride, module.dilation, module.padding = like.stride, like.dilation, like.padding
    image = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        features = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(features))))
        torch.testing.assert_close(ours(image), expected, rtol=1e-4, atol=1e-5)


@BACKBONES
def test_logits_are_the_sum_of_the_branches(backbone):
    net, image = small("v2", backbone), torch.rand(1, 3, 49, 49)
    with torch.no_grad():
        together = net(image)
        parts = []
        for number in range(4):
            for other, classifier in enumerate(net.fc8):
                classifier.weight.mul_(0) if other != number else None
                classifier.bias.mul_(0)
            parts.append(net(image))
            net = small("v2", backbone)
    torch.testing.assert_close(sum(parts), together, rtol=1e-4, atol=1e-5)


@VERSIONS
@BACKBONES
def test_classifiers_learn_ten_times_as_fast_and_biases_twice(version, backbone):
    net = small(version, backbone)
    groups = optim.parameter_groups(net, lr=1e-3, weight_decay=5e-4)
    assert [round(group["lr"] / 1e-3) for group in groups] == [1, 2, 10, 20]
    assert [group["weight_decay"] for group in groups] == [5e-4, 0, 5e-4, 0]
    branches = len(deeplab.RATES[version])
    biases = 13 + 2 * branches if backbone == "vgg16" else 0
    assert [len(group["params"]) for group in groups[1:]] == [biases, branches, branches]
    trained = {id(parameter) for parameter in net.parameters() if parameter.requires_grad}
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(listed) == len(trained)
    assert set(listed) == trained


def test_dropout_acts_in_training_only():
    net, image = small("v1", "vgg16"), torch.rand(1, 3, 33, 33)
    with torch.no_grad():
        assert torch.equal(net(image), net(image))
        net.train()
        assert not torch.equal(net(image), net(image))


class Brightness(nn.Module):
    """Stands for a network: two logits, the image's brightness and darkness, at an eighth of its size."""

    def forward(self, image: Tensor) -> Tensor:
        grey = nn.functional.avg_pool2d(image.mean(1, keepdim=True), 8)
        return torch.cat([grey, -grey], 1)


def test_several_scales_have_their_logits_and_their_maximum():
    image = torch.rand(2, 3, 64, 96)
    logits = multi_scale(Brightness(), image, (0.5, 0.75))
    assert [tuple(each.shape[2:]) for each in logits] == [(8, 12), (4, 6), (6, 9), (8, 12)]
    assert (logits[3] >= logits[0]).all()
    torch.testing.assert_close(logits[0], Brightness()(image))
    assert len(multi_scale(Brightness(), image, ())) == 1


def test_a_flat_image_looks_the_same_at_all_scales():
    logits = multi_scale(Brightness(), torch.full((1, 3, 64, 64), 0.3), (0.5, 0.75))
    torch.testing.assert_close(logits[-1], logits[0])


def mini_vgg16() -> dict[str, Tensor]:
    """torchvision's VGG16 with all channels divided by DIV."""
    features = small("v1", "vgg16").backbone.features
    wide = 4096 // DIV
    generator = torch.Generator().manual_seed(1)
    state = {
        f"features.{name}": torch.randn(v.shape, generator=generator)
        for name, v in features.state_dict().items()
    }
    for layer, shape in ((0, (wide, 512 // DIV * 49)), (3, (wide, wide)), (6, (1000, wide))):
        state[f"classifier.{layer}.weight"] = torch.randn(shape, generator=generator)
        state[f"classifier.{layer}.bias"] = torch.randn(shape[0], generator=generator)
    return state


@VERSIONS
def test_vgg16_starts_from_torchvisions_with_its_fully_connected_layers_thinned_out(version):
    net, state = small(version, "vgg16"), mini_vgg16()
    before = net.fc8[0].weight.clone()
    deeplab_weights.load(net, state, "torchvision")
    assert torch.equal(net.backbone.features[28].weight, state["features.28.weight"])
    windows = state["classifier.0.weight"].view(4096 // DIV, 512 // DIV, 7, 7)
    for fc6, fc7 in zip(net.backbone.fc6, net.backbone.fc7, strict=True):
        assert torch.equal(fc6.weight[3, 5], windows[12, 5][[0, 3, 6]][:, [0, 3, 6]])
        assert torch.equal(fc7.weight[2, 3, 0, 0], state["classifier.3.weight"][8, 12])
        assert torch.equal(fc7.bias, state["classifier.3.bias"][::4])
    assert torch.equal(net.fc8[0].weight, before)


def test_torchvisions_own_names_and_shapes_fit():
    """At full width, without any values: the weights of ImageNet would load."""
    with torch.device("meta"):
        for backbone, theirs in (
            ("vgg16", torchvision.models.vgg16()),
            ("resnet101", torchvision.models.resnet101()),
        ):
            net, state = DeepLab("v2", backbone), theirs.state_dict()
            if backbone == "vgg16":
                state = deeplab_weights.from_vgg16(state, 4, "torchvision")
            own = net.backbone.state_dict()
            assert {name: value.shape for name, value in state.items() if not name.startswith("fc.")} == {
                name: value.shape for name, value in own.items()
            }


def test_imagenet_weights_are_torchvisions(monkeypatch):
    """The files themselves are not fetched here; which ones would be, and that their hash is checked, is."""
    asked = []

    def get_state_dict(self, **how):
        asked.append((self.name, self.url.rsplit("/", 1)[1], how))
        return small().backbone.state_dict()

    monkeypatch.setattr(torchvision.models.ResNet101_Weights, "get_state_dict", get_state_dict)
    deeplab_weights.initialise(small(), "imagenet")
    assert asked == [("IMAGENET1K_V1", "resnet101-63fe2227.pth", {"check_hash": True})]


def deeplab_pytorch_state(net: DeepLab, prefix: str = "", shortcut: str = "shortcut") -> dict[str, Tensor]:
    """`net`'s weights under the names of kazuto1011/deeplab-pytorch."""
    units = {"conv1": "reduce.conv", "bn1": "reduce.bn", "conv2": "conv3x3.conv", "bn2": "conv3x3.bn",
             "conv3": "increase.conv", "bn3": "increase.bn", "downsample.0": f"{shortcut}.conv",
             "downsample.1": f"{shortcut}.bn"}  # fmt: skip
    state = {}
    for name, value in net.backbone.state_dict().items():
        if not name.startswith("layer"):
            state[f"{prefix}layer1.conv1.{name.replace('1.', '.')}"] = value
            continue
        layer, block, rest = name.removeprefix("layer").split(".", 2)
        unit, part = rest.rsplit(".", 1)
        state[f"{prefix}layer{int(layer) + 1}.block{int(block) + 1}.{units[unit]}.{part}"] = value
    for number, classifier in enumerate(net.fc8):
        state[f"{prefix}aspp.c{number}.weight"] = classifier.weight.detach()
    return state


@pytest.mark.parametrize(
    ("prefix", "shortcut"), [("", "shortcut"), ("base.", "shortcut"), ("scale.", "proj")]
)
def test_weights_of_deeplab_pytorch_fit_and_are_treated_as_caffes(tmp_path, prefix, shortcut):
    source, net = small(), small()
    torch.manual_seed(3)
    for parameter in source.parameters():
        nn.init.normal_(parameter, std=0.1)
    state = deeplab_pytorch_state(source, prefix, shortcut)
    state = {name: value for name, value in state.items() if "num_batches" not in name}
    torch.save(state, tmp_path / "deeplabv1_resnet101-coco.pth")
    deeplab_weights.initialise(net, str(tmp_path / "deeplabv1_resnet101-coco.pth"))
    for (name, ours), theirs in zip(
        net.backbone.state_dict().items(), source.backbone.state_dict().values(), strict=True
    ):
        assert "num_batches" in name or torch.equal(ours, theirs), name
    assert net.backbone.caffe
    assert net.backbone.layer2[0].conv1.stride == (2, 2)
    assert net.backbone.layer2[0].conv2.stride == (1, 1)
    with torch.no_grad():
        assert net(torch.rand(1, 3, 65, 65)).shape[2:] == (9, 9)


def test_caffe_sees_bgr_less_its_mean():
    pixels = torch.tensor([[[200, 10, 90]]], dtype=torch.uint8)
    caffe = as_caffe(normalise(pixels.numpy())[None])[0, :, 0, 0]
    torch.testing.assert_close(
        caffe, torch.tensor([90 - 104.008, 10 - 116.669, 200 - 122.675]), rtol=0, atol=1e-4
    )


def test_the_record_names_the_initial_weights(tmp_path):
    path = tmp_path / "coco.pth"
    path.write_bytes(b"some weights")
    digest = hashlib.sha256(b"some weights").hexdigest()[:16]
    assert deeplab_weights.describe(str(path)) == f"coco.pth (sha256 {digest})"
    assert deeplab_weights.describe("imagenet") == "imagenet (torchvision IMAGENET1K_V1)"
    assert deeplab_weights.describe("random") == "random"


def test_weights_of_something_else_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(4, 3, 7, 7)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="do not fit ResNet101"):
        deeplab_weights.initialise(small(), str(tmp_path / "other.pth"))
    with pytest.raises(InputError, match=r"does not hold torchvision's VGG16: .*classifier.0.weight"):
        deeplab_weights.initialise(small("v1", "vgg16"), str(tmp_path / "other.pth"))
    with pytest.raises(InputError, match="which is no file; it can be imagenet, random"):
        deeplab_weights.describe("imagent")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"version": "v3"}, "version is 'v3'; it can be v1, v2"),
        ({"backbone": "vgg19"}, "backbone is 'vgg19'; it can be vgg16, resnet101"),
        ({"width_div": 3}, "divisor of 64"),
    ],
)
def test_unknown_networks_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        DeepLab(**arguments)
