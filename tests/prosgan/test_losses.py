"""The losses at their best, at their worst, and where they point."""

from __future__ import annotations

import pytest
import torch

from cvpr21lib.prosgan import losses
from cvpr21lib.prosgan.prototype import Prototype


def test_hamming_is_the_share_of_wrong_bits_twice():
    code = torch.tensor([[1.0, 1, -1, -1]])
    assert losses.hamming(code, code) == 0
    assert losses.hamming(-code, code) == 2
    assert losses.hamming(code * torch.tensor([1, -1, 1, 1]), code) == pytest.approx(2 / 4)


def test_reconstruction_is_four_times_that_of_images_from_0_to_1():
    one, other = torch.rand(2, 2, 3, 4, 4)
    torch.testing.assert_close(
        losses.reconstruction(2 * one - 1, 2 * other - 1), 4 * (one - other).square().mean()
    )


def test_the_two_players_want_the_opposite_of_the_last_score():
    target = torch.eye(3)
    real, made = losses.expected(target, made=False), losses.expected(target, made=True)
    assert losses.discriminator(real, target, made, target) == 0
    assert losses.adversarial(real, target) == 0
    assert losses.adversarial(made, target) == pytest.approx(1 / 4)
    assert losses.discriminator(made, target, real, target) == pytest.approx(1 / 4)


def test_a_perfect_prototype_costs_the_likelihood_alone():
    y = torch.eye(2)
    codes = torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1]])
    loss = losses.prototype(Prototype(torch.empty(2, 0), codes, y), y, codes, y)
    assert loss.item() == pytest.approx(torch.tensor(-2.0).exp().log1p().item())


def test_the_prototype_loss_has_exact_gradients():
    generator = torch.Generator().manual_seed(0)
    y, labels = torch.randint(2, (2, 7, 4), generator=generator).double()
    codes = torch.randn(7, 5, generator=generator).double().sign()
    output, label = (torch.rand(7, n, generator=generator).double().requires_grad_() for n in (5, 4))
    assert torch.autograd.gradcheck(
        lambda h, c: losses.prototype(Prototype(h, h, c), y, codes, labels), (output, label)
    )


def test_an_empty_label_asks_to_be_far_from_all():
    codes, labels, empty = torch.ones(3, 4), torch.eye(3), torch.zeros(1, 3)
    near, far = (
        losses.prototype(Prototype(torch.empty(0), h, empty), empty, codes, labels)
        for h in (torch.ones(1, 4), -torch.ones(1, 4))
    )
    assert far < near
