"""ProS-GAN's attacks beside the official way of computing them, on one thread, in processor time.

`make benchmarks` prints the ratios; the two ways take turns, and the fastest round of each counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from cvpr21lib.prosgan import attacks, targets
from cvpr21lib.prosgan.generator import Generator
from cvpr21lib.prosgan.prototype import PrototypeNet
from cvpr21lib.prosgan.victims import Victim

BITS, CLASSES = 32, 21
one_thread = pytest.mark.benchmark(timer=time.process_time)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def queries(count: int) -> tuple[Tensor, targets.Targets]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.eye(CLASSES)[torch.arange(10 * CLASSES) % CLASSES]
    return torch.rand(count, 3, 224, 224, generator=generator), targets.draw(labels, count, seed=0)


def official_steps(victim: nn.Module, images: Tensor, code: Tensor, steps: int, step: float) -> Tensor:
    """Gradients of the victim's parameters are computed and added up, too, though nobody uses them."""
    delta = torch.zeros_like(images, requires_grad=True)
    for t in range(steps):
        loss = -(victim(images + delta, attacks.alpha(t)) * code).mean()
        loss.backward()
        moved = (delta - step * delta.grad).detach().clamp(-attacks.EPSILON, attacks.EPSILON)
        delta.data = (images + moved).clamp(0, 1) - images
        delta.grad.zero_()
    return (images + delta).detach()


@one_thread
@pytest.mark.parametrize("backbone", ["VGG11", "ResNet18"])
def test_dhta_step(against, backbone):
    """One step on one image at 224 x 224."""
    torch.manual_seed(0)
    victim, (images, aims) = Victim(backbone, BITS).eval(), queries(1)
    codes = torch.randn(10 * CLASSES, BITS, generator=torch.Generator().manual_seed(0)).sign()
    ours = attacks.dhta(codes, steps=1, step=1.0)
    code = ours.aim(aims)
    torch.testing.assert_close(
        ours(victim, images, aims), official_steps(victim, images, code, 1, 1.0), rtol=0, atol=1e-6
    )
    against(
        f"one DHTA step, {backbone}",
        lambda: ours(victim, images, aims),
        lambda: official_steps(victim, images, code, 1, 1.0),
        3,
        time.process_time,
    )


@one_thread
def test_prosgan_images_per_second(benchmark, capsys):
    """The whole attack on two images."""
    torch.manual_seed(0)
    images, aims = queries(2)
    attack = attacks.ProSGAN(Generator(), PrototypeNet(CLASSES, BITS))
    victim = torch.tanh  # is not asked
    attack(victim, images, aims)
    benchmark.pedantic(attack, args=(victim, images, aims), rounds=3)
    rate = len(images) / benchmark.stats.stats.min
    benchmark.extra_info.update(images_per_second=round(rate, 3))
    with capsys.disabled():
        print(f"\nProS-GAN: {rate:.2f} images a second of processor time")
