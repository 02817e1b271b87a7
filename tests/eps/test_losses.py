from __future__ import annotations

import math

import pytest
import torch

from cvpr21lib.eps import losses
from cvpr21lib.errors import InputError
from tests.eps import literal

torch.set_num_threads(1)

SURE = 40.0  # a logit after which the softmax is 1 in float32


def one_hot_maps(rows: list[str], classes: int) -> torch.Tensor:
    """Logits (1, classes + 1, h, w) that give each pixel to the class of its digit, "." to the background."""
    h, w = len(rows), len(rows[0])
    cam = torch.zeros(1, classes + 1, h, w)
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            cam[0, classes if letter == "." else int(letter), y, x] = SURE
    return cam


def example(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    cam = 3 * torch.randn(3, 7, 6, 5, generator=generator, dtype=dtype)
    saliency = torch.rand(3, 1, 24, 20, generator=generator, dtype=dtype)
    label = (torch.rand(3, 6, generator=generator) < 0.6).to(dtype)
    return cam, saliency, label


@pytest.mark.parametrize(("tau", "lam"), [(0.4, 0.5), (0.4, 0.9), (0.6, 0.2), (-1.0, 0.5)])
def test_loss_and_gradient_are_those_of_the_loop_over_classes(tau, lam):
    for seed in range(3):
        cam, saliency, label = example(seed, torch.float64)
        cam.requires_grad_()
        ours = losses.saliency(cam, saliency, label, tau, lam)
        theirs = literal.saliency_loss(cam, saliency, label, tau, lam)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
        gradients = (torch.autograd.grad(loss, cam)[0] for loss in (ours, theirs))
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-15)


def test_a_class_off_the_saliency_changes_side():
    cam = one_hot_maps(["00..", "0011", "..11"], classes=3)
    saliency = torch.tensor([[0.9, 0.9, 0, 0], [0.9, 0, 0, 0], [0, 0, 0, 0]]).view(1, 1, 3, 4)
    steps = losses.estimate(cam, saliency, torch.tensor([[1.0, 1, 0]]))
    area = 4 + 12 * 1e-4
    torch.testing.assert_close(steps.overlap, torch.tensor([[3 / area, 0, 0]]))
    assert steps.valid.tolist() == [[True, False, False]]
    assert steps.rejected.tolist() == [[False, True, False]]
    ones = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).view(1, 1, 3, 4)
    torch.testing.assert_close(steps.foreground, ones)
    torch.testing.assert_close(steps.background, 1 - ones)
    torch.testing.assert_close(steps.estimate, ones)


def test_overlap_must_exceed_tau():
    cam = one_hot_maps(["00", "00"], classes=1)
    saliency = torch.tensor([[1.0, 1], [0, 0]]).view(1, 1, 2, 2)
    exact = losses.estimate(cam, saliency, torch.ones(1, 1)).overlap.item()
    assert exact == pytest.approx(2 / (4 + 4 * 1e-4))  # the epsilon counts once a pixel
    assert not losses.estimate(cam, saliency, torch.ones(1, 1), tau=exact).valid.any()
    below = math.nextafter(exact, 0) - 1e-7
    assert losses.estimate(cam, saliency, torch.ones(1, 1), tau=below).valid.all()


def test_exactly_one_half_rounds_to_zero():
    cam = torch.full((1, 3, 1, 2), -1e9)
    cam[0, 0], cam[0, 2] = 0.0, 0.0  # class 0 and the background share every pixel
    steps = losses.estimate(cam, torch.ones(1, 1, 1, 2), torch.ones(1, 2))
    assert steps.maps[0, 0].tolist() == [[0.5, 0.5]]
    assert steps.overlap.tolist() == [[0, 0]]
    half = losses.estimate(one_hot_maps(["00"], 2), torch.full((1, 1, 1, 2), 0.5), torch.ones(1, 2))
    assert half.overlap.tolist() == [[0, 0]]


def test_unlabelled_classes_belong_to_no_side():
    cam, saliency, label = example()
    label[:, 2] = 0
    steps = losses.estimate(cam, saliency, label)
    absent = (steps.maps[:, :-1] * (1 - label)[..., None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(steps.foreground + steps.background + absent, torch.ones_like(absent))


def test_lambda_weighs_the_two_sides():
    cam, saliency, label = example()
    steps = losses.estimate(cam, saliency, label, lam=1.0)
    torch.testing.assert_close(steps.estimate, steps.foreground)
    steps = losses.estimate(cam, saliency, label, lam=0.0)
    torch.testing.assert_close(steps.estimate, 1 - steps.background)


def test_ablations_of_the_selection():
    cam, saliency, label = example()
    labelled = label > 0
    naive = losses.estimate(cam, saliency, label, selection="naive")
    assert torch.equal(naive.valid, labelled)
    assert not naive.rejected.any()
    everything = losses.estimate(cam, saliency, label, tau=-1)
    torch.testing.assert_close(naive.estimate, everything.estimate)
    steps = losses.estimate(cam, saliency, label, selection="predefined", background_classes=(0, 4))
    hand_picked = torch.tensor([True, False, False, False, True, False])
    assert torch.equal(steps.rejected, labelled & hand_picked)
    assert torch.equal(steps.valid, labelled & ~hand_picked)


def test_saliency_is_taken_from_the_nearest_pixels():
    saliency = torch.arange(16.0).view(1, 1, 4, 4) / 15
    steps = losses.estimate(torch.zeros(1, 2, 2, 2), saliency, torch.ones(1, 1))
    torch.testing.assert_close(steps.saliency, saliency[..., ::2, ::2])


def test_an_image_without_label_and_one_without_saliency_are_learnt_from():
    cam, saliency, label = example()
    cam.requires_grad_()
    without = losses.estimate(cam, saliency, torch.zeros_like(label))
    torch.testing.assert_close(without.estimate, 0.5 * (1 - without.maps[:, -1:]))
    black = losses.estimate(cam, torch.zeros_like(saliency), label)
    assert torch.equal(black.rejected, label > 0)
    for steps in (without, black):
        (gradient,) = torch.autograd.grad((steps.estimate - steps.saliency).square().mean(), cam)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_gradients_are_right():
    cam, saliency, label = example(dtype=torch.float64)
    cam.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: losses.saliency(x, saliency, label), cam)


def test_half_precision_maps_are_summed_in_float32():
    cam, saliency, label = example()
    cam = cam.bfloat16()
    expected = losses.saliency(cam.float(), saliency, label)
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses.saliency(cam, saliency, label)
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()


def test_the_background_score_is_not_classified():
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(4, 6, generator=generator)
    label = (torch.rand(4, 5, generator=generator) < 0.4).float()
    loss = losses.classification(pred, label)
    torch.testing.assert_close(loss, losses.classification(pred[:, :5], label))
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(pred[:, :5], label)
    torch.testing.assert_close(loss, entropy)


def test_what_does_not_fit_is_refused():
    cam, saliency, label = example()
    with pytest.raises(InputError, match="7 maps for labels of 5 classes"):
        losses.saliency(cam, saliency, label[:, :5])
    with pytest.raises(InputError, match="'union'; expected one of overlap, naive, predefined"):
        losses.saliency(cam, saliency, label, selection="union")
    with pytest.raises(InputError, match="8 scores for labels of 6 classes"):
        losses.classification(torch.zeros(3, 8), label)
