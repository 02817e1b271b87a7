from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator

from cvpr21lib.eopsn import boxes as box
from cvpr21lib.eopsn import roi, targets


def test_anchors_are_not_rounded_and_start_at_the_corner():
    cells = box.cells((32,), (0.5, 1.0, 2.0))
    assert cells[0].tolist() == pytest.approx([-22.627417, -11.3137085, 22.627417, 11.3137085])
    assert (cells[:, 2:] - cells[:, :2]).prod(1).tolist() == pytest.approx([1024] * 3)
    assert torch.equal(cells, -cells[:, [2, 3, 0, 1]])
    rounded = AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),)).cell_anchors[0]
    assert torch.equal(rounded, cells.round())
    assert not torch.equal(rounded, cells)
    grid = box.anchors(2, 3, 4, cells)
    assert grid.shape == (18, 4)
    assert torch.equal(grid[:3], cells)
    assert torch.equal(grid[3 * 4 : 3 * 4 + 3], cells + torch.tensor([4.0, 4, 4, 4]))  # row 1, column 1


@pytest.mark.parametrize("weights", [box.RPN_WEIGHTS, box.BOX_WEIGHTS])
def test_decode_inverts_encode(weights):
    generator = torch.Generator().manual_seed(0)
    corners = 100 * torch.rand(2, 50, 4, generator=generator, dtype=torch.float64)
    corners[..., 2:] += corners[..., :2] + 1
    deltas = box.encode(corners[0], corners[1], weights)
    torch.testing.assert_close(box.decode(corners[0], deltas, weights), corners[1])


def test_a_side_grows_at_most_62_and_a_half_times():
    grown = box.decode(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 100, 100]]), box.RPN_WEIGHTS)
    torch.testing.assert_close(grown, torch.tensor([[-61.5, -61.5, 63.5, 63.5]]))


def test_a_box_belongs_to_the_level_of_its_size():
    side = torch.tensor([1.0, 111.99, 112, 223.99, 224, 447.9, 448, 4000])
    square = torch.stack([0 * side, 0 * side, side, side], 1)
    assert roi.levels(square, (4, 8, 16, 32)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    # torchvision adds 1e-6 to the logarithm, so that a box just below the border goes to the next level
    below = torch.tensor([[0, 0, 112, 112 * (1 - 1e-6)]])
    assert roi.levels(below, (4, 8, 16, 32)).tolist() == [0]


def test_boxes_without_area_go_to_the_finest_level():
    none = torch.tensor([[5.0, 5, 5, 9], [9, 9, 5, 5], [0, 0, 0, 0]])
    assert roi.levels(none, (4, 8)).tolist() == [0, 0, 0]


def test_pooling_a_ramp_gives_the_middle_of_each_bin():
    """Aligned: the value at a pixel is that of its centre, half a pixel from its corner."""
    ramp = (torch.arange(32) * 4 + 2.0).expand(1, 1, 32, 32)  # stride 4: x in pixels of the image
    pooled = roi.pool([ramp], (4,), [torch.tensor([[16.0, 16, 72, 72]])], [0], 7, 0)
    torch.testing.assert_close(pooled[0, 0, 3], torch.arange(7) * 8 + 20.0)


def test_boxes_are_pooled_from_their_own_image_and_in_order():
    maps = [torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 32 // k, 32 // k) * k for k in (1, 2)]
    small, large = [0.0, 0, 20, 20], [0.0, 0, 120, 120]
    groups = [torch.tensor([large, small]), torch.empty(0, 4), torch.tensor([small])]
    pooled = roi.pool(maps, (4, 8), groups, [1, 0, 0], 1, 2)
    assert pooled.flatten().tolist() == [4, 2, 1]


def test_match_and_what_lies_between_the_thresholds():
    truth = torch.tensor([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2], [100, 100, 104, 104]])
    index, matched = targets.match(boxes, truth, 0.3, 0.7)
    assert index.tolist() == [0, 0, 0, 1]
    assert matched.tolist() == [1, targets.IGNORED, 0, 0]
    _, matched = targets.match(boxes, truth, 0.3, 0.7, keep_best=True)
    assert matched.tolist() == [1, targets.IGNORED, 0, 1]


def test_objects_without_area_or_outside_match_nothing():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 5]])
    for truth in ([[5.0, 5, 5, 5]], [[500.0, 500, 600, 600]]):
        _, matched = targets.match(boxes, torch.tensor(truth), 0.3, 0.7, keep_best=True)
        assert matched.tolist() == [0, 0]
    _, matched = targets.match(boxes, torch.empty(0, 4), 0.3, 0.7, keep_best=True)
    assert matched.tolist() == [0, 0]


def test_sampling_takes_as_many_as_there_are_and_a_share_of_positives():
    matched = torch.tensor([1] * 10 + [0] * 20 + [-1] * 5)
    positive, negative = targets.sample(matched, 16, 0.25)
    assert (len(positive), len(negative)) == (4, 12)
    assert (matched[positive] == 1).all()
    assert (matched[negative] == 0).all()
    assert len(set(negative.tolist())) == 12
    positive, negative = targets.sample(matched, 512, 0.5)
    assert (len(positive), len(negative)) == (10, 20)


def test_sampling_repeats_with_its_generator():
    matched = torch.tensor([1] * 50 + [0] * 50)
    one, two = (targets.sample(matched, 20, 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
