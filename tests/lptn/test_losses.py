from __future__ import annotations

import pytest
import torch
from torch import nn

from cvpr21lib.errors import InputError
from cvpr21lib.lptn import losses

torch.set_num_threads(1)

KINDS = ["standard", "vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"]


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 2, 3, 5, 6, generator=generator).double().unbind()


def test_pixel_losses_are_their_definitions():
    pred, target = pair()
    assert losses.mse(pred, target).item() == pytest.approx(((pred - target) ** 2).mean().item())
    assert losses.l1(pred, target, reduction="sum").item() == pytest.approx(
        (pred - target).abs().sum().item()
    )
    assert losses.charbonnier(pred, pred).item() == pytest.approx(1e-6)
    assert losses.mse(pred, target, reduction="none").shape == pred.shape


@pytest.mark.parametrize("loss", [losses.mse, losses.l1, losses.charbonnier])
def test_weights_choose_where_the_error_counts(loss):
    pred, target = pair()
    weight = torch.zeros(2, 1, 5, 6, dtype=torch.float64)
    weight[..., :3] = 1
    left = loss(pred[..., :3], target[..., :3])
    torch.testing.assert_close(loss(pred, target, weight), left)
    torch.testing.assert_close(loss(pred, target, 7 * weight), left)  # the mean divides by the weights
    torch.testing.assert_close(loss(pred, target, 7 * weight, "sum"), 7 * left * 2 * 3 * 5 * 3)
    torch.testing.assert_close(loss(pred, target, weight.expand(-1, 3, -1, -1)), left)


def test_total_variation_sees_edges_only():
    flat = torch.full((1, 3, 6, 8), 0.4)
    assert losses.total_variation(flat) == 0
    edge = flat.clone()
    edge[..., 4:] += 0.5
    assert losses.total_variation(edge).item() == pytest.approx(0.5 / 7)
    hidden = torch.ones(1, 1, 6, 8)
    hidden[..., 3] = 0
    assert losses.total_variation(edge, hidden) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_pull_the_logits_their_way(kind):
    logits = torch.tensor([0.2, -0.3, 0.4]).requires_grad_()

    def slope(real: bool, for_discriminator: bool) -> float:
        loss = losses.adversarial(logits, real, for_discriminator, kind)
        return torch.autograd.grad(loss, logits)[0].mean().item()

    assert slope(real=True, for_discriminator=True) < 0
    assert slope(real=False, for_discriminator=True) > 0
    assert slope(real=True, for_discriminator=False) < 0


def test_several_scales_are_averaged():
    scales = [torch.randn(2, 1, 4, 4), torch.randn(2, 1, 2, 2), torch.randn(2, 1, 1, 1)]
    expected = sum(losses.adversarial(scale, True, True, "lsgan") for scale in scales) / 3
    torch.testing.assert_close(losses.adversarial(scales, True, True, "lsgan"), expected)


def test_gradient_penalty_of_a_linear_critic_is_known():
    real, fake = torch.rand(2, 3, 3, 4, 4, dtype=torch.float64)
    alpha = torch.rand(3, 1, 1, 1, dtype=torch.float64)
    slope = torch.rand(3 * 4 * 4, dtype=torch.float64)

    def critic(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ slope

    penalty = losses.gradient_penalty(critic, real, fake, alpha)
    assert penalty.item() == pytest.approx((slope.norm().item() - 1) ** 2)


def test_gradient_penalty_is_taken_between_the_samples():
    seen = []

    def critic(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach())
        return x.sum((1, 2, 3))

    real, fake, alpha = torch.ones(2, 3, 2, 2), torch.zeros(2, 3, 2, 2), torch.tensor([0.25, 1.0])
    losses.gradient_penalty(critic, real, fake, alpha.view(2, 1, 1, 1))
    assert seen[0][0].unique().item() == 0.25
    assert seen[0][1].unique().item() == 1.0


def test_gradient_penalty_can_be_differentiated_again():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Conv2d(4, 1, 2)).double()
    real, fake = torch.rand(2, 2, 3, 4, 4, dtype=torch.float64)
    alpha = torch.rand(2, 1, 1, 1, dtype=torch.float64)
    weight = critic[0].weight
    losses.gradient_penalty(critic, real, fake, alpha).backward()
    step = torch.zeros_like(weight)
    step[1, 2, 0, 1] = 1e-5
    with torch.no_grad():
        weight += step
    up = losses.gradient_penalty(critic, real, fake, alpha)
    with torch.no_grad():
        weight -= 2 * step
    down = losses.gradient_penalty(critic, real, fake, alpha)
    assert weight.grad[1, 2, 0, 1].item() == pytest.approx((up - down).item() / 2e-5, rel=1e-5)


def test_gradient_penalty_changes_neither_sample():
    real, fake = torch.rand(2, 2, 3, 4, 4).unbind()
    losses.gradient_penalty(nn.Conv2d(3, 1, 4), real, fake, torch.zeros(2, 1, 1, 1))
    losses.gradient_penalty(nn.Conv2d(3, 1, 4), real, fake, torch.ones(2, 1, 1, 1))
    assert not real.requires_grad
    assert not fake.requires_grad


def test_unknown_names_are_refused():
    pred, target = pair()
    with pytest.raises(InputError, match="'mean', 'sum' or 'none'"):
        losses.mse(pred, target, reduction="avg")
    with pytest.raises(InputError, match="standard, vanilla, lsgan"):
        losses.adversarial(pred, True, True, "gan")
