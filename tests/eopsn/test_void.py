"""The void test on integral images."""

from __future__ import annotations

import pytest
import torch

from cvpr21lib.eopsn import void
from cvpr21lib.errors import InputError


def random_mask(share: float, height: int = 40, width: int = 56) -> torch.Tensor:
    return torch.rand(height, width, generator=torch.Generator().manual_seed(0)) < share


def random_boxes(count: int = 300, reach: float = 60) -> torch.Tensor:
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(1)) * (reach + 10) - 10


def test_the_integral_image_counts_the_pixels_above_and_left():
    mask = random_mask(0.5)
    integral = void.integral(mask)
    for y, x in ((0, 0), (0, 9), (7, 0), (13, 21), (40, 56)):
        assert integral[y, x] == mask[:y, :x].sum()


def test_majority_equals_counting_pixels():
    mask, boxes = random_mask(0.5), random_boxes()
    expected = []
    for x1, y1, x2, y2 in boxes.int().tolist():  # towards zero
        inside = mask[max(y1, 0) : max(y2 - 1, 0), max(x1, 0) : max(x2 - 1, 0)].float()
        expected.append(inside.numel() > 0 and inside.mean().item() > 0.5)
    found = void.majority(void.integral(mask), boxes)
    assert found.tolist() == expected
    assert 20 < found.sum() < 280


def test_one_half_is_no_majority():
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[:, :4] = True
    assert void.majority(void.integral(mask), torch.tensor([[0.0, 0, 9, 9], [0, 0, 8, 9]])).tolist() == [
        False,  # 8 columns count, 4 of them void
        True,
    ]


def test_without_void_no_box_is_void_and_with_nothing_else_every_box_that_has_pixels():
    boxes = random_boxes()
    assert not void.majority(void.integral(torch.zeros(40, 56, dtype=torch.bool)), boxes).any()
    x1, y1, x2, y2 = boxes.int().T
    with_pixels = (x1.clamp(0) < (x2 - 1).clamp(max=56)) & (y1.clamp(0) < (y2 - 1).clamp(max=40))
    found = void.majority(void.integral(torch.ones(40, 56, dtype=torch.bool)), boxes)
    assert torch.equal(found, with_pixels)


@pytest.mark.parametrize(
    "box",
    [
        (5, 5, 5, 20),
        (5, 5, 5.9, 20),
        (20, 20, 5, 5),
        (-30, -30, -5, -5),
        (100, 0, 200, 40),
        (0, 90, 56, 200),
        (float("nan"), 0, 56, 40),
        (0, 0, float("nan"), float("nan")),
    ],
)
def test_boxes_without_pixels_are_not_void(box):
    everything = void.integral(torch.ones(40, 56, dtype=torch.bool))
    assert void.majority(everything, torch.tensor([box], dtype=torch.float32)).tolist() == [False]


def test_a_box_beyond_the_image_counts_inside_it():
    mask = torch.zeros(40, 56, dtype=torch.bool)
    mask[20:, 28:] = True
    huge = torch.tensor([[28.0, 20, 1e9, float("inf")], [-1e9, -1e9, 1e9, 1e9]])
    assert void.majority(void.integral(mask), huge).tolist() == [True, False]


def test_no_boxes_give_no_answers():
    assert void.majority(void.integral(random_mask(0.5)), torch.zeros(0, 4)).shape == (0,)


def test_wrong_shapes_are_named():
    with pytest.raises(InputError, match=r"torch.uint8 of shape \(4, 4\)"):
        void.integral(torch.zeros(4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"\(4,\); expected \(n, 4\)"):
        void.majority(void.integral(random_mask(0.5)), torch.zeros(4))
