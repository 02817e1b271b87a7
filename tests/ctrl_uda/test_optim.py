"""The official optimiser's repeated updates, without its repeated list."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.optim import SGD

from cvpr21lib.ctrl_uda import optim
from cvpr21lib.ctrl_uda.model import CTRL
from cvpr21lib.errors import InputError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def net() -> CTRL:
    return CTRL(7, width_div=64)


def official_list(backbone: nn.Module) -> Iterator[nn.Parameter]:
    """The backbone's weights as the official code walks to them."""
    for part in (
        backbone.conv1, backbone.bn1, backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4,
    ):  # fmt: skip
        for module in part.modules():
            yield from (p for p in module.parameters() if p.requires_grad)


def test_every_weight_stands_in_one_group_with_the_official_rates(net):
    groups = optim.parameter_groups(net, lr=1e-3)
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in net.parameters() if p.requires_grad}
    assert [(len(g["params"]), g["lr"], g["repeat"]) for g in groups] == [
        (1, 1e-3, 1), (99, 1e-3, 3), (4, 1e-3, 4), (8, 1e-2, 1), (8, 1e-2, 1), (8, 1e-2, 1), (8, 1e-2, 1),
    ]  # fmt: skip


def test_repeats_are_the_official_list(net):
    """314 entries for 104 weights; `official_repeat` counts by the name alone."""
    listed = Counter(map(id, official_list(net.backbone)))
    assert (sum(listed.values()), len(listed)) == (314, 104)
    for name, parameter in net.backbone.named_parameters():
        if parameter.requires_grad:
            assert optim.official_repeat(name) == listed[id(parameter)], name


def test_once_lists_the_backbone_in_one_group(net):
    groups = optim.parameter_groups(net, 1e-3, "once")
    assert [(len(g["params"]), g["repeat"]) for g in groups] == [(104, 1), (8, 1), (8, 1), (8, 1), (8, 1)]
    with pytest.raises(InputError, match="backbone_repeat is 'twice'; it can be official or once"):
        optim.parameter_groups(net, 1e-3, "twice")


def test_what_is_frozen_is_in_no_group():
    net = CTRL(7, width_div=64)
    net.head_srh.requires_grad_(False)
    groups = optim.parameter_groups(net, 1e-3)
    assert len(groups) == 6
    assert all(p.requires_grad for group in groups for p in group["params"])


@pytest.mark.parametrize("repeat", [1, 3, 4])
def test_repeated_updates_follow_the_official_rule(repeat):
    """v <- 0.9 v + g + wd·w (the first time g + wd·w), w <- w - lr v: again and again with the same g."""
    torch.manual_seed(repeat)
    parameter = nn.Parameter(torch.randn(5, dtype=torch.float64))
    w, v = parameter.detach().clone(), None
    optimizer = optim.RepeatedSGD(
        [{"params": [parameter], "repeat": repeat}], lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    for _ in range(3):
        g = torch.randn(5, dtype=torch.float64)
        parameter.grad = g.clone()
        optimizer.step()
        for _ in range(repeat):
            update = g + 5e-4 * w
            v = update if v is None else 0.9 * v + update
            w = w - 0.1 * v
        torch.testing.assert_close(parameter.detach(), w, rtol=1e-14, atol=0)


def test_once_is_plain_sgd(net):
    ours, plain = nn.Linear(4, 3), nn.Linear(4, 3)
    plain.load_state_dict(ours.state_dict())
    how = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    optimizers = optim.RepeatedSGD(ours.parameters(), **how), SGD(plain.parameters(), **how)
    for network, optimizer in zip((ours, plain), optimizers, strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
    assert torch.equal(ours.weight, plain.weight)


def test_the_optimiser_is_whole_after_a_step_that_failed(monkeypatch):
    groups = [{"params": [nn.Parameter(torch.zeros(2))], "repeat": 3}, {"params": []}]
    optimizer = optim.RepeatedSGD(groups, lr=0.1)

    def fail(self: SGD, closure: None = None) -> None:
        if len(self.param_groups) == 1:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(SGD, "step", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step()
    assert len(optimizer.param_groups) == 2


def test_a_saved_state_goes_on():
    """Momentum and repeats come back: a step after loading is the step without."""

    def make() -> tuple[nn.Parameter, optim.RepeatedSGD]:
        parameter = nn.Parameter(torch.ones(3))
        return parameter, optim.RepeatedSGD([{"params": [parameter], "repeat": 3}], lr=0.1, momentum=0.9)

    (one, first), (two, second) = make(), make()
    one.grad = torch.ones(3)
    first.step()
    with torch.no_grad():
        two.copy_(one)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for parameter, optimizer in ((one, first), (two, second)):
        parameter.grad = torch.full((3,), 0.5)
        optimizer.step()
    assert torch.equal(one, two)


def test_no_closures():
    with pytest.raises(InputError, match="no closure"):
        optim.RepeatedSGD([nn.Parameter(torch.zeros(1))], lr=0.1).step(lambda: 0.0)


def test_the_rate_falls_to_the_power_of_0_9_and_ends_at_0():
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=2.5e-4)
    scheduler, rates = optim.poly(optimizer, 4), []
    for _ in itertools.repeat(None, 6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([2.5e-4 * share**0.9 for share in (1, 0.75, 0.5, 0.25, 0, 0)])
