"""The step of adaptation in the official order, for every method and any network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpr21lib.ctrl_uda import cross_task, losses, step
from cvpr21lib.ctrl_uda.discriminator import Discriminator
from cvpr21lib.ctrl_uda.model import CTRL
from cvpr21lib.ctrl_uda.step import METHODS, Adaptation, SelfLearning, Sized
from cvpr21lib.runs import Loss, Step

torch.set_num_threads(1)

BINS = cross_task.bins("SID", 15)
CLASSES = 7


class Tiny(nn.Module):
    """A network of three convolutions, at half the size; it counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(3, width, 3, 2, 1) for width in (CLASSES, 1, CLASSES))
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.seen.append(image)
        semantic, depth, refined = (part(image) for part in self.parts)
        return semantic, depth + 3, refined


@pytest.fixture
def batch() -> dict[str, Any]:
    torch.manual_seed(0)
    label = torch.randint(0, CLASSES, (2, 40, 48))
    label[:, :5] = 255
    return {
        "source": torch.randn(2, 3, 40, 48),
        "label": label,
        "depth": torch.rand(2, 40, 48) * 5,
        "target": torch.randn(2, 3, 32, 64),
    }


def networks(method: str) -> dict[str, nn.Module]:
    torch.manual_seed(1)
    found: dict[str, nn.Module] = {"net": Tiny()}
    channels = step.channels(METHODS[method], CLASSES, len(BINS))
    return found | ({"discriminator": Discriminator(channels, width=2)} if channels else {})


def enlarged(part: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(part, like.shape[-2:], mode="bilinear", align_corners=True)


def information(logits: Tensor) -> Tensor:
    return cross_task.self_information(logits.softmax(1))


def literal_map(method: str, prediction: tuple[Tensor, Tensor, Tensor], like: Tensor) -> Tensor:
    """What the discriminator sees, in words of its own for each method."""
    semantic, depth, refined = (enlarged(part, like) for part in prediction)
    distance = cross_task.self_information(cross_task.quantise(depth, BINS))
    return {
        "advent": lambda: information(semantic),
        "mtl+advent": lambda: information(semantic),
        "dada": lambda: information(semantic) * depth,
        "ctrl-no-srh": lambda: torch.cat([information(semantic), distance], 1),
        "ctrl": lambda: torch.cat([information(semantic), distance, information(refined)], 1),
    }[method]()


def gradients(network: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in network.parameters()]


def one_step(phases: list[Any], nets: dict[str, nn.Module], batch: dict[str, Any], number: int = 0) -> Step:
    """What `runs` does: one network after the other, the others frozen."""
    running = Step(number, nets, batch)
    for phase in phases:
        for name, network in nets.items():
            network.requires_grad_(name == phase.network)
        nets[phase.network].zero_grad()
        found = phase.loss(running)
        for loss in [found] if isinstance(found, Loss) else found:
            sum(loss.terms.values()).backward()
    return running


def together(losses):
    """Several losses as one."""
    parts = list(losses)
    return Loss(
        {name: value for part in parts for name, value in part.terms.items()},
        {name: value for part in parts for name, value in part.watched.items()},
    )


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_the_literal_step(batch, method):
    nets = networks(method)
    adaptation = Adaptation(METHODS[method], BINS, lambda_srh=0.5, lambda_depth=0.1, lambda_adv=0.3)
    one_step(adaptation.phases(), nets, batch)
    found = [gradients(network) for network in nets.values()]

    net, judge = nets["net"].requires_grad_(True), nets.get("discriminator")
    for network in nets.values():
        network.zero_grad()
    prediction = net(batch["source"])
    semantic, depth, refined = (enlarged(part, batch["label"]) for part in prediction)
    loss = F.cross_entropy(semantic, batch["label"], ignore_index=255)
    if METHODS[method].depth:
        loss = loss + 0.1 * losses.berhu(depth, batch["depth"])
    if METHODS[method].refined:
        loss = loss + 0.5 * F.cross_entropy(refined, batch["label"], ignore_index=255)
    loss.backward(retain_graph=True)
    if judge is not None:
        judge.requires_grad_(False)
        f_source = literal_map(method, prediction, batch["source"])
        f_target = literal_map(method, net(batch["target"]), batch["target"])
        says = judge(f_target)
        (0.3 * F.binary_cross_entropy_with_logits(says, torch.zeros_like(says))).backward()
        judge.requires_grad_(True)
        for seen, truth in ((f_source, 0.0), (f_target, 1.0)):
            says = judge(seen.detach())
            F.binary_cross_entropy_with_logits(says, torch.full_like(says, truth)).backward()
    for ours, network in zip(found, nets.values(), strict=True):
        torch.testing.assert_close(ours, gradients(network), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("method", "passes"), [("source", 1), ("mtl", 1), ("advent", 2), ("ctrl", 2)])
def test_the_target_passes_once_and_only_if_there_is_an_adversary(batch, method, passes):
    nets = networks(method)
    phases = Adaptation(METHODS[method], BINS).phases()
    assert [phase.network for phase in phases] == ["net", "discriminator"][:passes]
    one_step(phases, nets, batch)
    assert [id(image) for image in nets["net"].seen] == [id(batch[d]) for d in ("source", "target")[:passes]]


@pytest.mark.parametrize(
    ("method", "channels"),
    [("source", 0), ("advent", 7), ("mtl+advent", 7), ("dada", 7), ("ctrl-no-srh", 22), ("ctrl", 29)],
)
def test_channels_of_the_discriminator(batch, method, channels):
    assert step.channels(METHODS[method], 7, 15) == channels
    if channels:
        adaptation = Adaptation(METHODS[method], BINS)
        sized = Sized(Tiny()(batch["target"]))
        assert adaptation.seen(sized, batch["target"]).shape == (2, channels, 32, 64)


def test_the_discriminator_learns_from_maps_of_the_old_weights(batch):
    nets = networks("ctrl")
    adaptation = Adaptation(METHODS["ctrl"], BINS)
    running = Step(0, nets, batch)
    before = literal_map("ctrl", nets["net"](batch["source"]), batch["source"])
    list(adaptation.network(running))
    with torch.no_grad():
        for parameter in nets["net"].parameters():
            parameter.add_(1.0)
    for name in ("F_source", "F_target"):
        assert not running.memo[name].requires_grad
    torch.testing.assert_close(running.memo["F_source"], before.detach(), rtol=0, atol=1e-5)
    list(adaptation.judgement(running))
    assert len(nets["net"].seen) == 3  # once above, and twice in the step


def test_losses_one_by_one_give_the_gradients_of_all_together(batch):
    nets, adaptation = networks("ctrl"), Adaptation(METHODS["ctrl"], BINS, lambda_adv=0.5)
    found = []
    for way in ("together", "one by one"):
        nets["net"].zero_grad()
        nets["discriminator"].requires_grad_(False)
        parts = adaptation.network(Step(0, nets, batch))
        for loss in [together(parts)] if way == "together" else parts:
            sum(loss.terms.values()).backward()
        found.append(gradients(nets["net"]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_the_adversary_is_silent_where_its_weight_is_0_and_the_discriminator_learns(batch):
    nets = networks("ctrl")
    adaptation = Adaptation(METHODS["ctrl"], BINS, lambda_adv=lambda number: 0.1 * max(0, number - 3))
    for number, expected in ((0, False), (3, False), (4, True)):
        running = Step(number, nets, batch)
        loss = together(adaptation.network(running))
        assert ("adv" in loss.terms) == expected
        assert set(together(adaptation.judgement(running)).terms) == {"d_source", "d_target"}
    says = nets["discriminator"](running.memo["F_target"])
    torch.testing.assert_close(loss.terms["adv"], 0.1 * losses.adversarial(says, "source"))


def test_maps_at_the_size_of_the_head(batch):
    nets, adaptation = networks("ctrl"), Adaptation(METHODS["ctrl"], BINS, align_at="head")
    nets["discriminator"] = nn.Conv2d(29, 1, 1)
    running = one_step(adaptation.phases(), nets, batch)
    assert running.memo["F_source"].shape == (2, 29, 20, 24)
    assert running.memo["F_target"].shape == (2, 29, 16, 32)


def test_labels_and_depth_may_be_smaller_than_the_image(batch):
    nets, adaptation = networks("ctrl"), Adaptation(METHODS["ctrl"], BINS)
    batch |= {"label": batch["label"][:, ::2, ::2], "depth": batch["depth"][:, ::4, ::4]}
    loss = together(adaptation.network(Step(0, nets, batch)))
    prediction = nets["net"](batch["source"])
    torch.testing.assert_close(loss.terms["seg"], losses.cross_entropy(prediction[0], batch["label"]))
    depth = enlarged(prediction[1], batch["depth"])
    torch.testing.assert_close(loss.terms["depth"], 1e-3 * losses.berhu(depth, batch["depth"]))


def test_void_everywhere_is_a_step_without_labels(batch):
    nets, adaptation = networks("ctrl"), Adaptation(METHODS["ctrl"], BINS)
    batch["label"] = torch.full_like(batch["label"], 255)
    loss = together(adaptation.network(Step(0, nets, batch)))
    assert loss.terms["seg"] == loss.terms["srh"] == 0
    sum(loss.terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in nets["net"].parameters())


def test_batch_norm_sees_source_and_then_target():
    torch.manual_seed(0)
    net = CTRL(CLASSES, width_div=64, blocks=(1, 1, 1, 1)).train()
    nets = {"net": net, "discriminator": Discriminator(29, width=2)}
    batch = {"source": torch.randn(1, 3, 40, 48), "target": 3 + torch.randn(1, 3, 32, 64),
             "label": torch.zeros(1, 40, 48).long(), "depth": torch.rand(1, 40, 48)}  # fmt: skip
    norm, convolution = net.backbone.bn1, net.backbone.conv1
    expected = norm.running_mean.clone()
    for image in (batch["source"], batch["target"]):
        expected = 0.9 * expected + 0.1 * convolution(image).mean((0, 2, 3)).detach()
    list(Adaptation(METHODS["ctrl"], BINS).network(Step(0, nets, batch)))
    torch.testing.assert_close(norm.running_mean, expected)
    assert norm.num_batches_tracked == 2


def test_self_learning_is_cross_entropy_on_the_target_alone(batch):
    nets = {"net": Tiny()}
    pseudo = torch.randint(0, CLASSES, (2, 32, 64))
    pseudo[:, 8:] = 255
    loss = together(SelfLearning(lambda _: pseudo).network(Step(0, nets, batch)))
    assert set(loss.terms) == {"pseudo"}
    assert loss.watched["labelled"] == 0.25
    expected = F.cross_entropy(enlarged(nets["net"](batch["target"])[0], pseudo), pseudo, ignore_index=255)
    torch.testing.assert_close(loss.terms["pseudo"], expected)
    loss.terms["pseudo"].backward()
    assert [part.weight.grad is None for part in nets["net"].parts] == [False, True, True]


def test_self_learning_may_keep_the_source(batch):
    pseudo = torch.full((2, 32, 64), 255)
    learning = SelfLearning(lambda _: pseudo, keep_source=True)
    loss = together(learning.network(Step(0, {"net": Tiny()}, batch)))
    assert set(loss.terms) == {"seg", "pseudo"}
    assert loss.terms["pseudo"] == 0
    assert loss.terms["seg"] > 0
