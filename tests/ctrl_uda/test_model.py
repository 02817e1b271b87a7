"""The networks have the official parts, names, sizes and counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet101

from cvpr21lib.ctrl_uda.deeplab import ResNet101
from cvpr21lib.ctrl_uda.discriminator import Discriminator
from cvpr21lib.ctrl_uda.model import CTRL
from cvpr21lib.errors import InputError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def narrow() -> CTRL:
    torch.manual_seed(0)
    return CTRL(7, width_div=32)


def count(module: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


@pytest.mark.parametrize(
    ("classes", "total", "trained", "head", "channels", "discriminator"),
    [(16, 48_602_948, 48_497_604, 1_179_712, 47, 2_809_793),
     (7, 47_275_772, 47_170_428, 516_124, 29, 2_791_361)],
)  # fmt: skip
def test_official_numbers_of_parameters(classes, total, trained, head, channels, discriminator):
    with torch.device("meta"):
        net, judge = CTRL(classes), Discriminator(channels)
    assert (count(net), count(net, trained=True)) == (total, trained)
    assert (count(net.backbone), count(net.backbone, trained=True)) == (42_500_160, 42_394_816)
    assert [count(part) for part in (net.decoder, net.head_seg, net.head_srh, net.head_dep)] == [
        3_738_752, head, head, 4_612,
    ]  # fmt: skip
    assert sum(b.numel() for b in net.buffers()) == 105_448
    assert count(judge) == discriminator


def test_official_names():
    with torch.device("meta"):
        names = CTRL(16).state_dict().keys()
        backbone = {f"backbone.{name}" for name in resnet101().state_dict() if not name.startswith("fc.")}
    assert len(names) == 656
    heads = {f"head_{head}.layer6.conv2d_list.{i}" for head in ("seg", "dep", "srh") for i in range(4)}
    parts = heads | {f"decoder.dec{i}" for i in range(1, 5)}
    assert set(names) == backbone | {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    with torch.device("meta"):
        judge = Discriminator(29).state_dict()
    assert set(judge) == {f"{i}.{kind}" for i in (0, 2, 4, 6, 8) for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (9, 9)), ((95, 127), (13, 17)), ((320, 640), (41, 81))]
)
def test_sizes_are_rounded_up_as_in_caffe(size, expected):
    backbone = ResNet101(width_div=64, blocks=(1, 1, 1, 1)).eval()
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, *size)).shape == (1, 32, *expected)


def test_strides_and_dilations_are_where_caffe_has_them(narrow):
    backbone = narrow.backbone
    assert [len(layer) for layer in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)] == [
        3, 4, 23, 3,
    ]  # fmt: skip
    for layer, stride, dilation in (("layer1", 1, 1), ("layer2", 2, 1), ("layer3", 1, 2), ("layer4", 1, 4)):
        for index, block in enumerate(getattr(backbone, layer)):
            assert block.conv1.stride == ((stride,) * 2 if index == 0 else (1, 1))
            assert block.conv2.stride == (1, 1)
            assert block.conv2.dilation == block.conv2.padding == (dilation,) * 2
            assert (block.downsample is not None) == (index == 0)
        assert getattr(backbone, layer)[0].downsample[0].stride == (stride,) * 2


def test_all_maps_have_the_size_of_the_features(narrow):
    semantic, depth, refined = narrow(torch.randn(2, 3, 50, 70))
    assert semantic.shape == refined.shape == (2, 7, 7, 9)
    assert depth.shape == (2, 1, 7, 9)


def test_batch_norm_uses_the_batch_in_training_and_its_weights_stay(narrow):
    norms = [module for module in narrow.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 104
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())
    narrow.train()
    assert all(norm.training for norm in norms)
    before = norms[0].running_mean.clone()
    image = torch.randn(1, 3, 33, 33)
    narrow(image)
    expected = 0.9 * before + 0.1 * narrow.backbone.conv1(image).mean((0, 2, 3))
    torch.testing.assert_close(norms[0].running_mean, expected)


def test_the_gradient_of_the_refined_map_reaches_the_depth(narrow):
    narrow.zero_grad()
    narrow(torch.randn(1, 3, 33, 33)).refined.square().sum().backward()
    assert narrow.head_dep.layer6["conv2d_list"][0].weight.grad.abs().sum() > 0
    assert narrow.head_seg.layer6["conv2d_list"][0].weight.grad is None


def test_the_refined_map_is_the_head_on_features_times_depth(narrow):
    narrow.eval()
    image = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        features = narrow.backbone(image)
        gated = features * narrow.decoder(features)[1]
        depth = narrow(image).depth
        expected = sum(conv(gated * depth) for conv in narrow.head_srh.layer6["conv2d_list"])
        torch.testing.assert_close(narrow(image).refined, expected)


def test_convolutions_start_small(narrow):
    weights = torch.cat(
        [m.weight.detach().flatten() for m in CTRL(7, 8).modules() if isinstance(m, nn.Conv2d)]
    )
    assert weights.std().item() == pytest.approx(0.01, rel=0.01)
    assert abs(weights.mean()) < 1e-4


@pytest.mark.parametrize("width_div", [0, 3, 128])
def test_widths_that_do_not_divide(width_div):
    with pytest.raises(InputError, match=f"width_div is {width_div}; expected a divisor of 64"):
        CTRL(7, width_div)


def test_a_discriminator_of_nothing():
    with pytest.raises(InputError, match="0 input channels"):
        Discriminator(0)
