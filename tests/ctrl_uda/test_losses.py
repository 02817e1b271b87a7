from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cvpr21lib.ctrl_uda import losses
from cvpr21lib.errors import InputError

torch.set_num_threads(1)


def value_and_gradient(loss: torch.Tensor, given: torch.Tensor) -> tuple[float, torch.Tensor]:
    return loss.item(), torch.autograd.grad(loss, given)[0]


def example(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 5, 4, 6, generator=generator, dtype=dtype)
    label = torch.randint(0, 5, (2, 4, 6), generator=generator)
    label[0, :2] = 255
    label[1, 3, :3] = -1
    return logits.requires_grad_(), label


def test_cross_entropy_counts_pixels_with_a_class():
    logits, label = example()
    kept = (label >= 0) & (label < 255)
    expected = F.cross_entropy(logits.movedim(1, 3)[kept], label[kept])
    torch.testing.assert_close(losses.cross_entropy(logits, label), expected)


def test_all_pixels_ignored_give_zero_and_zero_gradient():
    logits, label = example()
    for void in (255, -1):
        value, gradient = value_and_gradient(losses.cross_entropy(logits, label.fill_(void)), logits)
        assert value == 0
        assert not gradient.any()


def test_one_image_ignored_leaves_the_other_its_mean():
    logits, label = example()
    label[1] = 255
    expected = losses.cross_entropy(logits[:1], label[:1])
    torch.testing.assert_close(losses.cross_entropy(logits, label), expected)


def test_a_label_outside_the_table_is_named():
    logits, label = example()
    label[0, 3, 0], label[1, 0, 0] = 19, 7
    with pytest.raises(InputError, match="labels hold 7, 19; expected classes 0 to 4, and 255"):
        losses.cross_entropy(logits, label)


def test_maps_of_another_size_are_refused():
    logits, label = example()
    with pytest.raises(InputError, match="resize the logits"):
        losses.cross_entropy(logits, label[:, :3])
    with pytest.raises(InputError, match="resize the prediction"):
        losses.berhu(torch.zeros(2, 1, 3, 3), torch.zeros(2, 3, 4))
    with pytest.raises(InputError, match="one value a pixel"):  # which would broadcast
        losses.berhu(torch.zeros(1, 1, 3, 3), torch.zeros(2, 3, 3))


def test_berhu_is_linear_below_a_fifth_of_the_largest_error_and_quadratic_above():
    pred = torch.tensor([[[1.0, -2.0, 3.0, 10.0]]])
    loss = losses.berhu(pred, torch.zeros(1, 1, 4))
    assert loss.item() == pytest.approx((1 + 2 + (9 + 4) / 4 + (100 + 4) / 4) / 4)


def test_the_threshold_of_berhu_is_that_of_the_whole_batch():
    pred = torch.tensor([[[[1.0, 2.0]]], [[[10.0, 0.5]]]])
    target = torch.zeros(2, 1, 2)
    apart = (losses.berhu(pred[:1], target[:1]) + losses.berhu(pred[1:], target[1:])) / 2
    together = losses.berhu(pred, target)
    assert together.item() == pytest.approx((1 + 2 + (100 + 4) / 4 + 0.5) / 4)
    assert together < apart


def test_berhu_of_one_image_or_one_pixel_keeps_its_dimensions():
    for size in ((1, 1, 1, 1), (1, 1, 1, 5), (1, 1, 5, 1), (2, 1, 1, 1)):
        pred, target = torch.rand(size), torch.rand(size[0], *size[2:])
        torch.testing.assert_close(losses.berhu(pred, target), losses.berhu(pred[:, 0], target))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_prediction_equal_to_its_target_gives_zero_and_zero_gradient(dtype):
    target = torch.rand(2, 3, 4, dtype=dtype)
    pred = target[:, None].clone().requires_grad_()
    value, gradient = value_and_gradient(losses.berhu(pred, target), pred)
    assert value == 0
    assert not gradient.any()


def test_negative_and_huge_depth_have_finite_gradients():
    pred = torch.tensor([[[[-5.0, 0, 1e-30, 1e30]]]]).requires_grad_()
    value, gradient = value_and_gradient(losses.berhu(pred, torch.ones(1, 1, 4)), pred)
    assert torch.tensor(value).isfinite()
    assert gradient.isfinite().all()


def test_gradients_are_right():
    logits, label = example(torch.float64)
    assert torch.autograd.gradcheck(lambda z: losses.cross_entropy(z, label), logits)
    generator = torch.Generator().manual_seed(1)
    pred = torch.randn(2, 1, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    target[0, 0, 0] += 20  # the largest error moves the threshold, a constant: not to be differentiated
    found = torch.autograd.grad(losses.berhu(pred, target), pred)[0]
    error = pred[:, 0].detach() - target
    tau = 0.2 * error.abs().max()
    expected = torch.where(error.abs() <= tau, error.sign(), error / tau) / error.numel()
    torch.testing.assert_close(found[:, 0], expected)
    for domain in ("source", "target"):
        assert torch.autograd.gradcheck(lambda z, d=domain: losses.adversarial(z, d), pred)


def test_source_is_0_and_target_is_1():
    logits = torch.tensor([-3.0, 0.0, 2.0])
    for domain, value in (("source", 0.0), ("target", 1.0)):
        expected = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, value))
        torch.testing.assert_close(losses.adversarial(logits, domain), expected)
    sure = torch.tensor([-200.0, 200.0]).requires_grad_()
    value, gradient = value_and_gradient(losses.adversarial(sure, "target"), sure)
    assert value == pytest.approx(100)
    assert gradient.tolist() == pytest.approx([-0.5, 0])
    with pytest.raises(InputError, match="'real'; expected source or target"):
        losses.adversarial(logits, "real")


def test_both_halves_of_the_discriminator_loss_count_in_full():
    source, target = torch.tensor([-1.0, 0.5]), torch.tensor([2.0])
    halves = losses.adversarial(source, "source") + losses.adversarial(target, "target")
    torch.testing.assert_close(losses.discriminator(source, target), halves)
    assert losses.discriminator(torch.tensor([-50.0]), torch.tensor([50.0])).item() == pytest.approx(0)


def test_half_precision_is_averaged_in_float32():
    logits, label = example()
    for loss in (
        losses.cross_entropy(logits.bfloat16(), label),
        losses.berhu(logits.bfloat16()[:, :1], torch.zeros(2, 4, 6)),
        losses.adversarial(logits.bfloat16(), "source"),
    ):
        assert loss.dtype == torch.float32
