"""From scores to detections, in each of the void modes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cvpr21lib.eopsn.config import UNKNOWN, Config
from cvpr21lib.eopsn.detections import Detections, detect

SIZE = (100, 100)
SURE, UNSURE = 3.0, -3.0


def apart(count: int) -> Tensor:
    """Boxes that do not overlap."""
    x = torch.arange(count) % 10 * 10.0
    y = torch.arange(count) // 10 * 10.0
    return torch.stack([x, y, x + 8, y + 8], 1)


def logits(config: Config, *classes: int) -> Tensor:
    """Boxes that are certainly of these classes."""
    made = torch.full((len(classes), config.logits), -10.0)
    made[torch.arange(len(classes)), torch.tensor(classes)] = 10
    return made


def found(config: Config, boxes: Tensor, scores: Tensor, objectness: list[float], **how: bool) -> Detections:
    return detect(boxes, scores, torch.tensor(objectness), SIZE, config, **how)


BASELINES = [Config(void_mode=mode, known=3) for mode in ("background", "ignorance", "suppression")]


@pytest.mark.parametrize("config", BASELINES, ids=lambda config: config.void_mode)
def test_unknown_is_what_no_known_class_claims_and_the_rpn_is_sure_of(config):
    scores = logits(config, 0, config.background, config.background)
    seen = found(config, apart(3), scores, [SURE, SURE, UNSURE])
    assert seen.labels.tolist() == [0, UNKNOWN]
    assert float(seen.scores[1]) == pytest.approx(torch.tensor(SURE).sigmoid().item())
    assert torch.equal(seen.boxes, apart(2))


@pytest.mark.parametrize("config", BASELINES, ids=lambda config: config.void_mode)
def test_every_known_class_is_found_the_last_one_too(config):
    seen = found(config, apart(3), logits(config, 0, 1, 2), [UNSURE] * 3)
    assert sorted(seen.labels.tolist()) == [0, 1, 2]


def test_void_ignorance_needs_no_void_class():
    """The released code wants a certain class to be the most probable one there, so that next to no unknown
    remains."""
    config = Config(void_mode="ignorance", known=3)
    seen = found(config, apart(1), torch.tensor([[-9.0, -9, -9, 9]]), [SURE])
    assert seen.labels.tolist() == [UNKNOWN]


def test_void_train_wants_void_to_be_the_most_probable_class():
    config = Config(void_mode="train", known=3)
    void, background = 3, 4
    assert (config.known, config.background, config.logits) == (void, background, 5)
    seen = found(config, apart(4), logits(config, void, background, void, 1), [SURE, SURE, UNSURE, SURE])
    assert seen.labels.tolist() == [1, UNKNOWN]
    assert torch.equal(seen.boxes[1], apart(1)[0])


def test_known_detections_come_first_and_may_leave_no_room():
    config = Config(known=3, detections=4)
    scores = logits(config, *[0] * 3, *[config.background] * 5)
    seen = found(config, apart(8), scores, [SURE] * 8)
    assert seen.labels.tolist() == [0, 0, 0, UNKNOWN]
    scores = logits(config, *[0] * 6, config.background, config.background)
    assert found(config, apart(8), scores, [SURE] * 8).labels.tolist() == [0] * 4


def test_at_most_half_of_the_detections_are_unknown_in_a_baseline():
    config = Config(known=3, detections=4)
    seen = found(config, apart(8), logits(config, *[config.background] * 8), [SURE] * 8)
    assert seen.labels.tolist() == [UNKNOWN] * 2


def test_unknown_boxes_of_a_baseline_compete_whatever_else():
    config = Config(known=3)
    boxes = torch.tensor([[0.0, 0, 50, 50], [0, 0, 50, 45]])
    seen = found(config, boxes, logits(config, *[config.background] * 2), [1.0, 2.0])
    assert torch.equal(seen.boxes, boxes[1:])


def test_discovered_classes_are_one_category_and_need_no_objectness():
    config = Config(known=3, unknown=4)
    seen = found(config, apart(4), logits(config, 1, 3, 4, 7), [UNSURE] * 4)
    assert sorted(zip(seen.labels.tolist(), seen.logit.tolist(), strict=True)) == [(-1, 4), (-1, 7), (1, 1)]


def test_the_first_discovered_class_competes_with_the_others_unless_official():
    """Boxes of the first and the second discovered class on one place: the official code keeps both."""
    config = Config(known=3, unknown=4)
    boxes, scores = torch.tensor([[0.0, 0, 50, 50]] * 2), logits(config, 4, 5)
    assert len(found(config, boxes, scores, [SURE] * 2).labels) == 1
    official = found(config, boxes, scores, [SURE] * 2, official=True)
    assert official.labels.tolist() == [UNKNOWN] * 2
    later = logits(config, 5, 6)
    assert len(found(config, boxes, later, [SURE] * 2, official=True).labels) == 1


def test_known_classes_do_not_compete_with_each_other():
    config = Config(known=3, unknown=4)
    boxes = torch.tensor([[0.0, 0, 50, 50]] * 3)
    assert len(found(config, boxes, logits(config, 0, 1, 5), [SURE] * 3).labels) == 3


@pytest.mark.parametrize("config", [*BASELINES, Config(known=3, unknown=4)])
def test_boxes_without_area_outside_or_not_finite_are_dropped(config):
    boxes = torch.tensor(
        [[5.0, 5, 5, 9], [200, 200, 220, 220], [9, 9, 5, 5], [float("nan"), 0, 9, 9], [90, 90, 999, 999]]
    )
    seen = found(config, boxes, logits(config, *[0] * 5), [SURE] * 5)
    assert seen.boxes.tolist() == [[90, 90, 100, 100]]


def test_tiny_boxes_stay():
    """torchvision drops those with a side below 0.01."""
    config = Config(known=3)
    seen = found(config, torch.tensor([[5.0, 5, 5.004, 9]]), logits(config, 0), [SURE])
    assert len(seen.boxes) == 1


@pytest.mark.parametrize(
    "config", [*BASELINES, Config(known=3, unknown=4), Config(known=3, void_mode="train")]
)
def test_no_proposals(config):
    seen = found(config, torch.zeros(0, 4), torch.zeros(0, config.logits), [])
    assert [len(field) for field in seen] == [0] * 4
