"""What is remembered of void proposals until they are clustered."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from cvpr21lib.eopsn import memory
from cvpr21lib.eopsn.memory import Memory, VoidProposals
from cvpr21lib.errors import InputError


def proposals(image: int, count: int = 30, flipped: bool = False) -> VoidProposals:
    """Feature r of image i is (i, r)."""
    generator = torch.Generator().manual_seed(image)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([200.0, 100])
    side = 20 + 40 * torch.rand(count, 2, generator=generator)
    features = torch.stack([torch.full((count,), float(image)), torch.arange(count).float()], 1)
    logits = 3 * torch.randn(count, generator=generator)
    return VoidProposals(image, torch.cat([corner, corner + side], 1), logits, features, (160, 260), flipped)


def free(images: list[VoidProposals]) -> list[torch.Tensor]:
    return [torch.full((len(void.boxes),), -1) for void in images]


def test_candidates_are_large_and_apart_and_not_mined():
    images = [proposals(0), proposals(1)]
    mined = free(images)
    mined[0][::2] = 3
    there = memory.candidates(images, mined)
    for number, void in enumerate(images):
        rows = there.features[there.image == number, 1].long()
        boxes = void.boxes[rows]
        assert ((boxes[:, 2:] - boxes[:, :2]).prod(1) > 32**2).all()
        assert (mined[number][rows] == -1).all()
        assert box_iou(boxes, boxes).fill_diagonal_(0).max() <= 1e-7
        assert torch.equal(there.objectness[there.image == number], void.objectness[rows].sigmoid())
        assert len(rows) > 3


def test_every_feature_stays_with_its_own_image_but_for_the_official_count():
    images = [proposals(image, count) for image, count in ((0, 10), (1, 20), (2, 30), (3, 30))]
    ours, official = (memory.candidates(images, free(images), official=way) for way in (False, True))
    assert torch.equal(ours.features[:, 0].long(), ours.image)
    assert torch.equal(official.box, ours.box)
    assert torch.equal(official.image, ours.image)
    others = (official.features != ours.features).any(1)
    assert torch.equal(others, official.image >= 2)


def test_boxes_of_a_mirrored_input_are_those_of_the_stored_image():
    plain, mirrored = proposals(0), proposals(0, flipped=True)
    x1, y1, x2, y2 = plain.boxes.T
    mirrored = mirrored._replace(boxes=torch.stack([260 - x2, y1, 260 - x1, y2], 1))
    there = [memory.candidates([void], free([void])).box for void in (plain, mirrored)]
    torch.testing.assert_close(*there)


def test_a_sample_of_each_batch_is_kept_in_proportion_to_its_objectness():
    count = 400
    corner = torch.stack([torch.arange(20).repeat(20), torch.arange(20).repeat_interleave(20)], 1) * 50.0
    logits = torch.where(torch.arange(count) < 200, 2.0, -2.0)
    batch = [
        VoidProposals(
            0, torch.cat([corner, corner + 40], 1), logits, torch.zeros(count, 1), (1000, 1000), False
        )
    ]
    remembered = Memory(sample=20)
    for seed in range(50):
        remembered.collect(batch, free(batch), torch.Generator().manual_seed(seed))
    assert len(remembered) == 1000
    likely = (remembered.content().objectness > 0.5).float().mean()
    assert likely == pytest.approx(0.88, abs=0.05)  # sigmoid(2)


def test_a_small_batch_is_kept_whole_and_the_generator_decides_otherwise():
    images = [proposals(0, 5)]
    small, one, same = Memory(), Memory(sample=4), Memory(sample=4)
    small.collect(images, free(images))
    assert len(small) == len(memory.candidates(images, free(images)).image) <= 5
    images = [proposals(1), proposals(2)]
    for each in (one, same):
        each.collect(images, free(images), torch.Generator().manual_seed(0))
    assert len(one) == 4
    assert torch.equal(one.content().features, same.content().features)


def test_proposals_that_score_nothing_at_all_can_be_drawn():
    void = proposals(0)
    void = void._replace(objectness=torch.full_like(void.objectness, -200))
    remembered = Memory()
    remembered.collect([void], free([void]))
    assert len(remembered) > 0


def test_nothing_void_leaves_nothing():
    remembered = Memory()
    remembered.collect([], [])
    remembered.collect([proposals(0, 0)], [torch.zeros(0, dtype=torch.long)])
    assert len(remembered) == 0
    assert remembered.content() is None


def test_a_saved_memory_goes_on_as_if_unbroken(tmp_path):
    images = [proposals(0), proposals(1)]
    unbroken, broken, resumed = Memory(), Memory(), Memory()
    for each in (unbroken, broken):
        each.collect(images, free(images), torch.Generator().manual_seed(0))
    torch.save(broken.state_dict(), tmp_path / "memory.pt")
    resumed.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    for each in (unbroken, resumed):
        each.collect(images, free(images), torch.Generator().manual_seed(1))
    for one, other in zip(unbroken.content(), resumed.content(), strict=True):
        assert torch.equal(one, other)
    resumed.load_state_dict(Memory().state_dict())
    assert resumed.content() is None
    unbroken.clear()
    assert len(unbroken) == 0


def test_the_content_does_not_depend_on_what_came_first():
    batches = [[proposals(image), proposals(image + 1)] for image in (0, 4, 2)]
    one, other = Memory(), Memory()
    for remembered, order in ((one, batches), (other, batches[::-1])):
        for batch in order:
            remembered.collect(batch, free(batch), torch.Generator().manual_seed(batch[0].image))
    for mine, yours in zip(one.content(), other.content(), strict=True):
        assert torch.equal(mine, yours)
    assert torch.equal(one.content().image, one.content().image.sort().values)


def test_lengths_that_differ_are_named():
    void = proposals(4)
    with pytest.raises(InputError, match="place 4 has 30 void boxes, 30 objectness values, 29 features"):
        memory.candidates([void._replace(features=void.features[1:])], free([void]))
    with pytest.raises(InputError, match="0 tensors of mined classes for 1 images"):
        Memory().collect([void], [])
