"""The trunk, beside torchvision's where detectron2 does otherwise."""

from __future__ import annotations

import torch

from cvpr21lib.eopsn.fpn import ResNetFPN
from cvpr21lib.eopsn.model import panoptic_fpn
from cvpr21lib.eopsn.resnet import ResNet
from tests.eopsn import narrow


def test_the_stride_is_in_the_first_convolution_of_a_block():
    body = ResNet(8, 16, 4)
    for layer in (body.layer2, body.layer3, body.layer4):
        assert layer[0].conv1.stride == (2, 2)
        assert layer[0].conv2.stride == (1, 1)
    assert body.layer1[0].conv1.stride == (1, 1)


def test_stem_and_res2_are_frozen_and_no_normalisation_is_trained():
    with torch.device("meta"):
        net = panoptic_fpn()
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {
        n for n, _ in net.named_parameters() if n.startswith(("trunk.body.conv1", "trunk.body.layer1"))
    }
    assert not any("bn" in name for name, _ in net.trunk.named_parameters())


def test_p6_is_every_other_value_of_p5_and_strides_double():
    maps = ResNetFPN(ResNet(8, 16, 4), 16)(torch.randn(1, 3, 64, 96))
    assert [tuple(maps[f"p{k}"].shape[2:]) for k in range(2, 7)] == [
        (16, 24),
        (8, 12),
        (4, 6),
        (2, 3),
        (1, 2),
    ]
    assert torch.equal(maps["p6"], maps["p5"][:, :, ::2, ::2])


def test_folded_trunk_gives_the_same_maps():
    net = narrow.network()
    generator = torch.Generator().manual_seed(1)
    for module in net.trunk.modules():
        if hasattr(module, "running_var"):
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
    image = narrow.images().images
    with torch.no_grad():
        expected, folded = net.trunk(image), net.folded().trunk(image)
    for level, values in expected.items():
        torch.testing.assert_close(folded[level], values, rtol=1e-4, atol=1e-4 * values.abs().max().item())
