from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from cvpr21lib.eopsn import masks
from cvpr21lib.errors import InputError


def by_grid_sample(mask: torch.Tensor, box: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """detectron2's way: sample the mask at the centre of every pixel of the image."""
    height, width = size
    x = (torch.arange(width) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(height) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], 2)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]


def test_pasting_by_two_products_equals_sampling_the_whole_image():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(30, 4, generator=generator) * torch.tensor([60.0, 40, 60, 40]) - 10
    boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2] + 0.3)
    boxes[0] = torch.tensor([-20.0, -20, 200, 200])
    shapes = torch.rand(30, 28, 28, generator=generator)
    size = (50, 70)
    whole = masks.full(masks.paste(shapes, boxes, size), size)
    for mask, shape, box in zip(whole, shapes, boxes, strict=True):
        sampled = by_grid_sample(shape, box, size)
        clear = (sampled - 0.5).abs() > 1e-5
        assert torch.equal(mask[clear], (sampled >= 0.5)[clear])


def test_boxes_outside_the_image_or_without_area_have_empty_masks():
    boxes = torch.tensor([[100.0, 100, 120, 120], [-30, 2, -10, 9], [5, 5, 5, 9], [9, 9, 5, 5]])
    patches = masks.paste(torch.ones(4, 28, 28), boxes, (20, 20))
    assert not masks.full(patches, (20, 20)).any()


def test_no_masks():
    assert masks.paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), (9, 9)) == []
    assert masks.full([], (9, 9)).shape == (0, 9, 9)


def test_polygons_are_rasterised_in_their_box_as_coco_does():
    ring = np.array([2.0, 3, 25, 6, 18, 26])
    polygons = masks.Polygons([[ring], [ring + 100]])
    inside = polygons.inside(torch.tensor([[0.0, 0, 28, 28]]), torch.tensor([0]), 28)
    expected = coco_mask.decode(coco_mask.frPyObjects([ring.tolist()], 28, 28))[..., 0]
    np.testing.assert_array_equal(inside[0].numpy(), expected)
    moved = polygons.inside(torch.tensor([[100.0, 100, 128, 128]]), torch.tensor([1]), 28)
    np.testing.assert_array_equal(moved, inside)


def test_bitmaps_and_polygons_agree_on_a_rectangle():
    pixels = torch.zeros(1, 40, 40, dtype=torch.bool)
    pixels[0, 10:30, 5:25] = True
    rectangle = masks.Polygons([[np.array([5.0, 10, 25, 10, 25, 30, 5, 30])]])
    box, first = torch.tensor([[0.0, 0, 40, 40]]), torch.tensor([0])
    bitmap = masks.Bitmaps(pixels).inside(box, first, 40)
    assert torch.equal(bitmap, rectangle.inside(box, first, 40))
    assert set(bitmap.unique().tolist()) == {0, 1}


def test_each_box_gets_the_mask_of_its_object():
    pixels = torch.zeros(3, 8, 8, dtype=torch.bool)
    pixels[2] = True
    boxes = torch.tensor([[0.0, 0, 8, 8]] * 3)
    inside = masks.Bitmaps(pixels).inside(boxes, torch.tensor([2, 0, 2]), 4)
    assert inside.mean((1, 2)).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "make", [lambda: masks.Bitmaps(torch.zeros(0, 5, 5, dtype=torch.bool)), lambda: masks.Polygons([])]
)
def test_an_image_without_objects_has_no_targets(make):
    none = make().inside(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 28)
    assert none.shape == (0, 28, 28)


@pytest.mark.parametrize("ring", [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, float("nan")]])
def test_what_is_no_polygon_is_refused(ring):
    with pytest.raises(InputError, match="a polygon of object 0"):
        masks.Polygons([[np.array(ring)]])


def test_masks_of_another_type_are_refused():
    with pytest.raises(InputError, match=r"torch.float32 of shape \(5, 5\); expected torch.bool"):
        masks.Bitmaps(torch.zeros(5, 5))
