"""The losses of the network."""

from __future__ import annotations

import pytest
import torch

from cvpr21lib.eopsn import losses
from cvpr21lib.eopsn.config import PADDING


def test_inactive_classes_stay_in_the_softmax_but_pull_at_nothing():
    logits = torch.zeros(2, 4, dtype=torch.float64)
    weight = torch.tensor([1.0, 1, 1, 0], dtype=torch.float64)
    loss = losses.classification(logits, torch.tensor([0, 2]), weight)
    assert float(loss) == pytest.approx(float(torch.tensor(4.0).log()))


def test_labels_of_inactive_classes_alone_give_zero():
    weight = torch.tensor([1.0, 0])
    assert float(losses.classification(torch.zeros(3, 2), torch.ones(3, dtype=torch.int64), weight)) == 0


def test_void_negative_spares_background_and_unknown_classes():
    logits = torch.full((1, 6), -20.0)
    logits[0, 4] = 20  # two known classes, background, three unknown ones
    assert float(losses.void_negative(logits, known=2)) == pytest.approx(0, abs=1e-6)
    logits[0, 1] = 40
    assert float(losses.void_negative(logits, known=2)) == pytest.approx(
        -torch.tensor(1e-8).log().item(), 1e-2
    )


def test_void_negative_has_the_right_gradient():
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: losses.void_negative(z, 3), logits)


def test_regression_is_l1_even_close_to_the_target():
    deltas, targets = torch.full((1, 4), 0.01), torch.zeros(1, 4)
    assert float(losses.box_regression(deltas, targets, count=8)) == pytest.approx(4 * 0.01 / 8)
    _, where = losses.rpn(torch.zeros(5), torch.zeros(5), deltas, targets)
    assert float(where) == pytest.approx(4 * 0.01 / 5)


def test_rpn_losses_are_at_most_ten():
    sure, where = losses.rpn(
        torch.tensor([1e4]), torch.tensor([0]), torch.full((1, 4), 1e4), torch.zeros(1, 4)
    )
    assert (float(sure), float(where)) == (10, 10)


def test_semantic_loss_is_the_mean_over_pixels_with_a_label():
    logits = torch.zeros(1, 5, 2, 2)
    labels = torch.tensor([[[1, PADDING], [PADDING, PADDING]]])
    assert float(losses.semantic(logits, labels)) == pytest.approx(float(torch.tensor(5.0).log()))


def test_nothing_to_learn_from_is_zero_and_has_a_gradient():
    none = torch.zeros(0, 6, requires_grad=True)
    pixels = torch.randn(1, 3, 2, 2, requires_grad=True)
    found = [
        losses.classification(none, torch.zeros(0, dtype=torch.int64), torch.ones(6)),
        losses.void_negative(none, 3),
        *losses.rpn(none[:, 0], torch.zeros(0), none[:, :4], torch.zeros(0, 4)),
        losses.box_regression(none[:, :4], torch.zeros(0, 4), 0),
        losses.mask(none, torch.zeros(0, 6)),
        losses.semantic(pixels, torch.full((1, 2, 2), PADDING)),
    ]
    assert [float(loss.detach()) for loss in found] == [0] * 7
    sum(found).backward()
    assert torch.equal(pixels.grad, torch.zeros_like(pixels))
