"""A whole step of CTRL-UDA beside the literal order of its operations: same process and results, one thread.

Source and target passes, three backward passes, and both optimisers. `make benchmarks` prints the ratios, of
processor time; the two ways take turns, and the fastest round of each counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from cvpr21lib.ctrl_uda import cross_task, optim
from cvpr21lib.ctrl_uda.discriminator import Discriminator
from cvpr21lib.ctrl_uda.model import CTRL
from cvpr21lib.ctrl_uda.step import METHODS, Adaptation
from cvpr21lib.runs import Step

pytestmark = pytest.mark.benchmark(timer=time.process_time)

CLASSES, BINS = 16, cross_task.bins("SID", 15)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def networks(width_div: int) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    judge = Discriminator(2 * CLASSES + len(BINS), 64 // width_div)
    return {"net": CTRL(CLASSES, width_div).train(), "discriminator": judge}


def batch(height: int, width: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    label = torch.randint(0, CLASSES, (1, height, width))
    label[:, : height // 8] = 255
    images = {domain: 60 * torch.randn(1, 3, height, width) for domain in ("source", "target")}
    return images | {"label": label, "depth": 400 * torch.rand(1, height, width) ** 4 + 1}


def ours(nets: dict[str, nn.Module], data: dict[str, Tensor]) -> Callable[[], dict[str, float]]:
    adaptation = Adaptation(METHODS["ctrl"], BINS)
    optimizers = {
        "net": optim.sgd(nets["net"]),
        "discriminator": Adam(nets["discriminator"].parameters(), 1e-4, betas=(0.9, 0.99)),
    }

    def step() -> dict[str, float]:
        running, values = Step(0, nets, data), {}
        for name, parts in (("net", adaptation.network), ("discriminator", adaptation.judgement)):
            nets["discriminator"].requires_grad_(name == "discriminator")
            optimizers[name].zero_grad()
            for loss in parts(running):
                sum(loss.terms.values()).backward()
                values |= {key: value.item() for key, value in loss.terms.items()}
            optimizers[name].step()
        return values

    return step


def literal(nets: dict[str, nn.Module], data: dict[str, Tensor]) -> Callable[[], dict[str, float]]:
    """Every map by itself, the source's with a graph, and one update for each entry of the repeated list."""
    net, judge = nets["net"], nets["discriminator"]
    rates = [(p, 2.5e-4) for p in listed(net.backbone)]
    rates += [(p, 2.5e-3) for part in list(net.children())[1:] for p in part.parameters()]
    velocity: dict[Tensor, Tensor] = {}
    adam = Adam(judge.parameters(), 1e-4, betas=(0.9, 0.99))

    def step() -> dict[str, float]:
        net.zero_grad()
        judge.zero_grad()
        source = [enlarge(part, data["source"]) for part in net(data["source"])]
        values = {
            "seg": cross_entropy(source[0], data["label"]),
            "srh": cross_entropy(source[2], data["label"]),
            "depth": 1e-3 * berhu(source[1], data["depth"]),
        }
        sum(values.values()).backward(retain_graph=True)
        target = [enlarge(part, data["target"]) for part in net(data["target"])]
        f_source, f_target = relate(*source), relate(*target)
        judge.requires_grad_(False)
        values["adv"] = 1e-3 * binary(judge(f_target), 0.0)
        values["adv"].backward()
        judge.requires_grad_(True)
        values["d_source"] = binary(judge(f_source.detach()), 0.0)
        values["d_source"].backward()
        values["d_target"] = binary(judge(f_target.detach()), 1.0)
        values["d_target"].backward()
        with torch.no_grad():
            for parameter, rate in rates:
                update = parameter.grad + 5e-4 * parameter
                known = parameter in velocity
                velocity[parameter] = velocity[parameter].mul_(0.9).add_(update) if known else update
                parameter.sub_(rate * velocity[parameter])
        adam.step()
        return {name: value.item() for name, value in values.items()}

    return step


def listed(backbone: nn.Module) -> Iterator[nn.Parameter]:
    for part in backbone.children():
        for module in part.modules():
            yield from (p for p in module.parameters() if p.requires_grad)


def enlarge(part: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(part, like.shape[-2:], mode="bilinear", align_corners=True)


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    counts = (label >= 0) & (label != 255)
    chosen = logits.permute(0, 2, 3, 1)[counts]
    return F.cross_entropy(chosen, label[counts])


def berhu(pred: Tensor, target: Tensor) -> Tensor:
    error = (pred[:, 0] - target).abs()
    tau = 0.2 * error.max().item()
    small = (error <= tau).float()
    return (error * small + (error**2 + tau**2) / (2 * tau) * (1 - small)).mean()


def binary(logits: Tensor, truth: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))


def relate(semantic: Tensor, depth: Tensor, refined: Tensor) -> Tensor:
    near = torch.cat([-((depth - beta) ** 2) for beta in BINS.inverse.tolist()], 1)
    shares = (F.softmax(semantic, 1), F.softmax(near, 1), F.softmax(refined, 1))
    return torch.cat([-p * torch.log2(p + 1e-30) / math.log2(p.shape[1]) for p in shares], 1)


@pytest.mark.parametrize(("width_div", "size"), [(1, (96, 160)), (8, (160, 320))])
def test_a_step_of_ctrl(against, width_div, size):
    data = batch(*size)
    nets = networks(width_div), networks(width_div)
    ways = ours(nets[0], data), literal(nets[1], data)
    first, reference = (way() for way in ways)
    assert first == pytest.approx(reference, rel=1e-4)
    for name in ("net", "discriminator"):
        states = (each[name].state_dict() for each in nets)
        torch.testing.assert_close(*states, rtol=1e-3, atol=1e-5)
    label = f"CTRL step, ResNet-101 / {width_div}, {size[1]} x {size[0]}"
    against(label, *ways, 3, time.process_time)
