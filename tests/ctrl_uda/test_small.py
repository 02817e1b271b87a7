"""The demo's networks have the paper's wiring: depth gates semantics, and conditions the refined ones."""

from __future__ import annotations

import pytest
import torch

from cvpr21lib.ctrl_uda import small


@pytest.fixture
def net() -> small.SmallNet:
    torch.manual_seed(0)
    return small.SmallNet(7).double()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 48, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_three_maps_have_a_quarter_of_the_image_s_size(net):
    for height, width in ((48, 96), (50, 97)):
        semantic, depth, refined = net(torch.rand(1, 3, height, width).double())
        size = (-(-height // 4), -(-width // 4))
        assert semantic.shape == refined.shape == (1, 7, *size)
        assert depth.shape == (1, 1, *size)


def test_an_image_is_not_changed_by_others_in_its_batch(net, image):
    """So a target in the batch changes nothing by itself, as it would through batch normalisation."""
    together, alone = net(image), net(image[:1])
    for first, second in zip(together, alone, strict=True):
        torch.testing.assert_close(first[:1], second)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()(image)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_refined_map_sees_depth_and_passes_its_gradient_on(net, image):
    """R = head(g ⊙ D): without depth nothing but the head's bias is left."""
    net(image)[2].square().mean().backward()
    assert net.depth.weight.grad.abs().max() > 0
    with torch.no_grad():
        net.depth.weight.zero_()
        net.depth.bias.zero_()
    refined = net(image)[2]
    bias = sum(branch.bias for branch in net.refined.branches)
    torch.testing.assert_close(refined, bias.view(1, 7, 1, 1).expand_as(refined))


def test_semantics_depend_on_the_decoder_of_depth_through_the_gate_alone(net, image):
    semantic, *_ = net(image)
    semantic.square().mean().backward(retain_graph=True)
    assert net.decoder[0].weight.grad.abs().max() > 0
    assert net.depth.weight.grad is None
    with torch.no_grad():
        net.gate.weight.zero_()
        net.gate.bias.fill_(1)
    plain = net.semantic(net.backbone(image - 0.5))
    torch.testing.assert_close(net(image)[0], plain)


def test_the_gate_starts_nearly_open(net):
    assert torch.equal(net.gate.bias, torch.ones_like(net.gate.bias))
    assert net.gate.weight.std() < 0.02


def test_the_discriminator_judges_by_place(net):
    judge = small.SmallDiscriminator(29)
    maps = torch.rand(2, 29, 12, 24)
    assert judge(maps).shape == (2, 1, 3, 6)
    other = maps.clone()
    other[:, :, :, :4] = 0
    changed = (judge(maps) - judge(other)).abs().amax((0, 1, 2)) > 1e-6
    assert changed[0]
    assert not changed[-1]


def test_the_sizes_are_those_that_the_chapter_names():
    count = [
        sum(p.numel() for p in each.parameters())
        for each in (small.SmallNet(7), small.SmallDiscriminator(29))
    ]
    assert count == [72_749, 29_121]
