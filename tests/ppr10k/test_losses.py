from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import losses, lut

torch.set_num_threads(1)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


# --- human-region priority --------------------------------------------------------------------------------


def test_an_error_on_a_person_counts_twenty_five_times():
    target = random(1, 3, 6, 8)
    mask = torch.zeros(1, 1, 6, 8)
    mask[..., 2, 3] = 1
    on_person, elsewhere = target.clone(), target.clone()
    on_person[..., 2, 3] += 0.1
    elsewhere[..., 5, 7] += 0.1
    ratio = losses.hrp(on_person, target, mask) / losses.hrp(elsewhere, target, mask)
    assert ratio.item() == pytest.approx(25)
    ratio = losses.hrp(on_person, target, mask, human=2) / losses.hrp(elsewhere, target, mask, human=2)
    assert ratio.item() == pytest.approx(4)


def test_no_person_gives_the_mean_squared_error_and_only_persons_25_times_it():
    pred, target = random(2, 3, 6, 8), random(2, 3, 6, 8, seed=1)
    plain = F.mse_loss(pred, target)
    torch.testing.assert_close(losses.hrp(pred, target, torch.zeros(2, 1, 6, 8)), plain)
    torch.testing.assert_close(losses.hrp(pred, target, torch.ones(2, 1, 6, 8)), 25 * plain)
    torch.testing.assert_close(losses.hrp(pred, target, torch.ones(2, 1, 6, 8), human=1), plain)


def test_the_loss_grows_with_the_area_of_the_people():
    pred, target = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    values = []
    for row in range(4):
        mask[..., row, :] = 1
        values.append(losses.hrp(pred, target, mask).item())
    assert values == pytest.approx([7, 13, 19, 25])


def test_any_positive_mask_is_a_person_and_channels_count_together():
    pred, target = random(1, 3, 6, 8), random(1, 3, 6, 8, seed=1)
    hard = torch.zeros(1, 1, 6, 8)
    hard[..., :4] = 1
    torch.testing.assert_close(losses.hrp(pred, target, 1e-6 * hard), losses.hrp(pred, target, hard))
    torch.testing.assert_close(losses.hrp(pred, target, hard > 0), losses.hrp(pred, target, hard))
    three = torch.zeros(1, 3, 6, 8)
    three[:, 2, :, :4] = 0.5
    torch.testing.assert_close(losses.hrp(pred, target, three), losses.hrp(pred, target, hard))


def test_hrp_has_the_gradient_of_its_definition():
    pred, target = random(2, 3, 3, 4).requires_grad_(), random(2, 3, 3, 4, seed=1)
    mask = (random(2, 1, 3, 4, seed=2) > 0.5).double()
    assert gradcheck(lambda y: losses.hrp(y, target, mask), (pred,))
    losses.hrp(pred, target, mask).backward()
    expected = 2 * torch.where(mask > 0, 25, 1) * (pred - target).detach() / pred.numel()
    torch.testing.assert_close(pred.grad, expected)


@pytest.mark.parametrize("shape", [(2, 1, 5, 8), (2, 1, 12, 16), (1, 1, 6, 8), (2, 6, 8)])
def test_a_mask_of_another_size_is_named(shape):
    image = torch.rand(2, 3, 6, 8)
    with pytest.raises(InputError, match=r"the mask has the shape .* resize it to \(N, 1, H, W\)"):
        losses.hrp(image, image, torch.ones(shape))


# --- group-level consistency ------------------------------------------------------------------------------


def crops(photograph: torch.Tensor, corners: torch.Tensor, crop: int) -> tuple[torch.Tensor, torch.Tensor]:
    views = [[], []]
    for image, (top_1, left_1, top_2, left_2) in zip(photograph, corners.tolist(), strict=True):
        views[0].append(image[:, top_1 : top_1 + crop, left_1 : left_1 + crop])
        views[1].append(image[:, top_2 : top_2 + crop, left_2 : left_2 + crop])
    return torch.stack(views[0]), torch.stack(views[1])


CORNERS = torch.tensor([[0, 0, 5, 5], [5, 0, 0, 3], [2, 4, 2, 4], [1, 5, 4, 0]])


def test_overlapping_boxes_show_the_same_pixels():
    photograph = random(4, 3, 20, 20)
    first, second = crops(photograph, CORNERS, 15)
    for one, other, box, same in zip(first, second, *losses.overlap(CORNERS, 15), strict=True):
        assert torch.equal(one[:, *box], other[:, *same])
        assert min(one[:, *box].shape[1:]) >= 10


def test_overlap_is_all_that_both_crops_show():
    for (rows, columns), _, corner in zip(*losses.overlap(CORNERS, 15), CORNERS.tolist(), strict=True):
        assert rows.stop - rows.start == 15 - abs(corner[0] - corner[2])
        assert columns.stop - columns.start == 15 - abs(corner[1] - corner[3])


def test_crops_need_not_be_square():
    ((rows, columns),), ((same_rows, same_columns),) = losses.overlap(torch.tensor([[0, 2, 3, 0]]), (8, 6))
    assert (rows, columns) == (slice(3, 8), slice(0, 4))
    assert (same_rows, same_columns) == (slice(0, 5), slice(2, 6))


def test_official_crops_always_overlap_by_half_the_photograph():
    corners = torch.randint(0, 448 - 336 + 1, (200, 4), generator=torch.Generator().manual_seed(0))
    corners[0] = torch.tensor([0, 0, 112, 112])
    sides = [
        (box[0].stop - box[0].start, box[1].stop - box[1].start) for box in losses.overlap(corners, 336)[0]
    ]
    assert min(min(side) for side in sides) == 224


def test_equal_colours_cost_nothing_whatever_lies_outside_the_overlap():
    first, second = crops(random(4, 3, 20, 20), CORNERS, 15)
    assert losses.glc(first, second, CORNERS) == 0
    for view, boxes in zip((first, second), losses.overlap(CORNERS, 15), strict=True):
        outside = torch.ones_like(view, dtype=torch.bool)
        for sample, box in zip(outside, boxes, strict=True):
            sample[:, *box] = False
        view[outside] = 7
    assert losses.glc(first, second, CORNERS) == 0


def test_a_constant_shift_costs_its_square_in_every_sample_alike():
    first, second = crops(random(4, 3, 20, 20), CORNERS, 15)
    assert losses.glc(first, second + 0.1, CORNERS).item() == pytest.approx(0.01)
    assert losses.glc(second + 0.1, first, CORNERS[:, [2, 3, 0, 1]]).item() == pytest.approx(0.01)


def test_a_short_last_batch_counts_less_only_with_the_official_quirk():
    first, second = crops(random(4, 3, 20, 20), CORNERS, 15)
    second = second + 0.1
    assert losses.glc(first, second, CORNERS, batch_size=16).item() == pytest.approx(0.01 * 4 / 16)
    assert losses.glc(first, second, CORNERS, batch_size=4) == losses.glc(first, second, CORNERS)


def test_both_views_are_pulled_together():
    views = [random(2, 3, 4, 4, seed=seed).requires_grad_() for seed in (0, 1)]
    corners = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 2]])
    assert gradcheck(lambda a, b: losses.glc(a, b, corners), views)
    losses.glc(*views, corners).backward()
    assert views[0].grad.sum().item() == pytest.approx(-views[1].grad.sum().item())
    assert not views[0].grad[0, :, 0].any()  # the first row of the first view is not in the second


@pytest.mark.parametrize("corner", [[0, 0, 15, 0], [0, 16, 3, 0], [0, 0, 99, 99]])
def test_crops_that_do_not_meet_are_named(corner):
    view = torch.rand(1, 3, 15, 15)
    with pytest.raises(InputError, match=r"do not overlap; place them nearer"):
        losses.glc(view, view, torch.tensor([corner]))


def test_views_and_corners_must_belong_together():
    view = torch.rand(2, 3, 15, 15)
    with pytest.raises(InputError, match="two views of one shape"):
        losses.glc(view, view[..., :14], CORNERS[:2])
    with pytest.raises(InputError, match=r"\(3, 4\)"):
        losses.glc(view, view, CORNERS[:3])


# --- regularisers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 9, 33])
def test_the_identity_rises_everywhere_and_varies_by_its_step(size):
    identity = lut.identity(size).double()
    assert losses.monotonicity(identity) == 0
    ends = 2 if size == 2 else (size + 1) / (size - 1)  # mean of 2, 1, ..., 1, 2
    # each axis moves one of three output channels
    assert losses.total_variation(identity).item() == pytest.approx(ends / (size - 1) ** 2)
    assert losses.total_variation(torch.ones_like(identity)) == 0


def test_with_two_points_the_only_difference_counts_twice():
    luts = random(1, 3, 2, 2, 2)
    expected = sum(2 * luts.diff(dim=axis).square().mean() for axis in (2, 3, 4))
    torch.testing.assert_close(losses.total_variation(luts), expected)


def test_the_end_differences_count_double():
    step = torch.zeros(3, 5, 5, 5)
    values = []
    for position in range(4):
        step[..., position + 1 :] = 1
        step[..., : position + 1] = 0
        values.append(losses.total_variation(step).item())
    assert values == pytest.approx([2 / 4, 1 / 4, 1 / 4, 2 / 4])


@pytest.mark.parametrize("axis", [-3, -2, -1])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_every_channel_must_rise_with_every_input(axis, channel):
    ramp = torch.linspace(0, 1, 5).view(-1, *[1] * (-1 - axis)).expand(5, 5, 5)
    one = torch.zeros(3, 5, 5, 5)
    one[channel] = ramp
    assert losses.monotonicity(one) == 0
    assert losses.monotonicity(-one).item() == pytest.approx(0.25 / 3)


@pytest.mark.parametrize("loss", [losses.total_variation, losses.monotonicity])
def test_values_are_summed_over_the_luts(loss):
    luts = random(4, 3, 4, 4, 4)
    torch.testing.assert_close(loss(luts), sum(loss(one) for one in luts))


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("loss", [losses.total_variation, losses.monotonicity])
def test_regularisers_have_true_gradients(loss, size):
    assert gradcheck(loss, (random(2, 3, size, size, size).requires_grad_(),))


def test_a_flat_lut_is_not_pushed_anywhere():
    flat = torch.full((2, 3, 4, 4, 4), 0.3, requires_grad=True)
    (losses.total_variation(flat) + losses.monotonicity(flat)).backward()
    assert not flat.grad.any()


def test_one_step_down_a_monotone_loss_removes_a_dip():
    dipped = lut.identity(5)
    dipped[0, 2, 2, 2] -= 0.4
    dipped.requires_grad_()
    before = losses.monotonicity(dipped)
    before.backward()
    after = losses.monotonicity(dipped.detach() - 10 * dipped.grad)
    assert 0 < after < before


def test_the_total_weighs_its_terms_as_released():
    weights, luts = random(2, 3) - 0.5, random(3, 3, 5, 5, 5)
    norm, tv, mn = losses.weight_norm(weights), losses.total_variation(luts), losses.monotonicity(luts)
    torch.testing.assert_close(norm, (weights**2).sum() / 6)
    torch.testing.assert_close(losses.regulariser(weights, luts), 1e-4 * (norm + tv) + 10 * mn)
    torch.testing.assert_close(losses.regulariser(weights, luts, 0, 1), mn)


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (2, 3, 1, 1, 1), (3, 4, 4), (4, 5, 5, 5), (3, 4, 5, 5)])
def test_what_is_not_a_lut_is_named(shape):
    for loss in (losses.total_variation, losses.monotonicity):
        with pytest.raises(InputError, match=r"expected \(K, 3, D, D, D\) with D of at least 2"):
            loss(torch.zeros(shape))
