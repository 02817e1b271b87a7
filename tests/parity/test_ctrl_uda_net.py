"""CTRL-UDA's networks and training step against numbers of the official code (susaha/ctrl-uda) on a CPU."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Adam

from cvpr21lib.ctrl_uda import cross_task, deeplab, optim
from cvpr21lib.ctrl_uda.discriminator import Discriminator
from cvpr21lib.ctrl_uda.model import CTRL, Head
from cvpr21lib.ctrl_uda.step import METHODS, Adaptation
from cvpr21lib.runs import Step
from tests.parity.official import Official

torch.set_num_threads(1)


class Fixture(Official):
    paper = "ctrl_uda"


def filled(network: nn.Module, seed: int) -> nn.Module:
    """The network with weights by the rule of the fixtures' `meta`: a function of each name."""
    made = {}
    for name, value in network.state_dict().items():
        if value.ndim == 0:
            made[name] = value
            continue
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + seed))
        u = 2 * generator.random(value.numel()).reshape(value.shape) - 1
        if value.ndim == 4:
            u *= np.sqrt(6 / np.prod(value.shape[1:]))
        elif name.endswith("running_var"):
            u = 1 + 0.5 * u
        elif name.endswith("weight"):
            u = (0.2 if name.split(".")[-2] == "bn3" else 1) * (1 + 0.2 * u)
        else:
            u *= 0.1
        made[name] = torch.from_numpy(u.astype(np.float32))
    network.load_state_dict(made)
    return network


@pytest.mark.parametrize("index", range(4))
def test_blocks(index):
    fixture = Fixture("blocks_small")
    shape = fixture.meta["bottleneck"][index]
    inputs, outputs = shape["inplanes"], 4 * shape["planes"]
    block = deeplab.block(inputs, outputs, shape["stride"], shape["dilation"], shape["downsample"])
    block.load_state_dict(fixture.group(f"b{index}/sd/"))
    x = fixture[f"b{index}/in/x"]
    fixture.expect_within(f"b{index}/out/eval", block.eval()(x), 1e-6)
    fixture.expect_within(f"b{index}/out/train", block.train()(x), 1e-6)
    fixture.expect_within(f"b{index}/out/rm_bn3", block.bn3.running_mean, 1e-6)
    fixture.expect_within(f"b{index}/out/rv_bn3", block.bn3.running_var, 1e-6)


@pytest.mark.parametrize("name", ["cls", "disc"])
def test_head_and_discriminator(name):
    fixture = Fixture("blocks_small")
    state, x = fixture.group(f"{name}/sd/"), fixture[f"{name}/in/x"]
    if name == "cls":
        network: nn.Module = Head(x.shape[1], 3)
    else:
        network = Discriminator(x.shape[1], width=4)
    network.load_state_dict(state)
    fixture.expect_within(f"{name}/out/y", network(x), 1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_whole_network(dtype, tolerance):
    fixture = Fixture("mtl_full_recipe")
    net = filled(CTRL(fixture.meta["num_classes"]), fixture.meta["seed"])
    assert len(net.state_dict()) == fixture.meta["keys"]
    for name, first in fixture.meta["first3"].items():
        assert net.state_dict()[name].flatten()[:3].tolist() == pytest.approx(first)
    x = fixture["in/x"].to(dtype)
    net.to(dtype).eval()
    with torch.no_grad():
        features = net.backbone(x)
        encoded, gate = net.decoder(features)
        fixture.expect_within("out/eval/backbone_first8", features[:, :8], tolerance)
        fixture.expect_within("out/eval/dec3", encoded[:, :16], tolerance)
        fixture.expect_within("out/eval/dec4_first8", gate[:, :8], tolerance)
        for mode in ("eval", "train"):
            net.train(mode == "train")
            for part, actual in zip(("seg", "dep", "srh"), net(x), strict=True):
                fixture.expect_within(f"out/{mode}/{part}", actual, tolerance)
    fixture.expect_within("out/train/bn1_rm", net.backbone.bn1.running_mean, tolerance)
    fixture.expect_within("out/train/l4_bn3_rv", net.backbone.layer4[2].bn3.running_var, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_whole_discriminator(dtype, tolerance):
    fixture = Fixture("disc_recipe")
    network = filled(Discriminator(fixture.meta["in_channels"]), fixture.meta["seed"]).to(dtype)
    fixture.expect_within("out/y", network(fixture["in/x"].to(dtype)), tolerance)


def test_two_training_steps():
    """Losses, gradients after each backward pass, learning rates, and weights; in float64, to 1e-6."""
    fixture = Fixture("train_step_recipe")
    net = filled(CTRL(7), fixture.meta["seed_model"]).double().train()
    discriminator = filled(Discriminator(29), fixture.meta["seed_disc"]).double().train()
    networks = {"net": net, "discriminator": discriminator}
    optimizers = {
        "net": optim.sgd(net, backbone_repeat="official"),
        "discriminator": Adam(discriminator.parameters(), 1e-4, betas=(0.9, 0.99)),
    }
    schedules = [optim.poly(optimizer, 90_000) for optimizer in optimizers.values()]
    adaptation = Adaptation(METHODS["ctrl"], cross_task.bins("SID", 15))
    batch = {"source": fixture["in/xs"].double(), "target": fixture["in/xt"].double()}
    batch |= {"label": fixture["in/ys"].long(), "depth": fixture["in/ds"].double()}
    for number, log in enumerate(fixture.meta["log"]):
        rates = {group["lr"] for group in optimizers["net"].param_groups}
        assert sorted(rates) == pytest.approx(sorted(set(log["lr"])), rel=1e-12)
        step, values = Step(number, networks, batch), {}
        discriminator.requires_grad_(False)
        for loss, norms in zip(
            adaptation.network(step), ("gradnorm_src", "gradnorm_src_plus_adv"), strict=True
        ):
            sum(loss.terms.values()).backward()
            values |= {name: value.item() for name, value in loss.terms.items()}
            found = {name: gradient_norm(getattr(net, name)) for name in log[norms]}
            assert found == pytest.approx(log[norms], rel=1e-6)
        assert all(parameter.grad is None for parameter in discriminator.parameters())
        discriminator.requires_grad_(True)
        for loss in adaptation.judgement(step):
            sum(loss.terms.values()).backward()
            values |= {name: value.item() for name, value in loss.terms.items()}
        assert gradient_norm(discriminator) == pytest.approx(log["gradnorm_disc"], rel=1e-6)
        expected = {"seg": "seg", "srh": "srh", "d_source": "d_src", "d_target": "d_tgt"}
        for ours, official in expected.items():
            assert values[ours] == pytest.approx(log[f"loss_{official}"], rel=1e-6)
        for ours, official in {"depth": "dep", "adv": "adv"}.items():
            assert values[ours] == pytest.approx(1e-3 * log[f"loss_{official}"], rel=1e-6)
        for each in (*optimizers.values(), *schedules):
            each.step()
            if isinstance(each, torch.optim.Optimizer):
                each.zero_grad()
        state = net.state_dict()
        probes = {name: state[name].flatten()[5].item() for name in log["probe"]}
        assert probes == pytest.approx(log["probe"], rel=1e-6)
        norms = {name: parameter_norm(getattr(net, name)) for name in log["param_norm"]}
        assert norms == pytest.approx(log["param_norm"], rel=1e-9)
        assert parameter_norm(discriminator) == pytest.approx(log["disc_norm"], rel=1e-9)


def gradient_norm(network: nn.Module) -> float:
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.stack([gradient.norm() for gradient in gradients]).norm().item()


def parameter_norm(network: nn.Module) -> float:
    return torch.stack([parameter.detach().norm() for parameter in network.parameters()]).norm().item()
