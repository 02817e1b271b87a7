"""Mining void proposals that look like an exemplar."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cvpr21lib.eopsn.clustering import Calibrated, Schedule
from cvpr21lib.eopsn.memory import VoidProposals
from cvpr21lib.eopsn.mining import mine
from cvpr21lib.eopsn.pseudo_truth import PseudoTruth
from cvpr21lib.errors import InputError

RULES = Schedule()


def image(features: torch.Tensor, place: int = 0, flipped: bool = False) -> VoidProposals:
    """Proposals of 40 × 40 pixels side by side in an input of 100 × 400."""
    left = 40.0 * torch.arange(len(features))
    boxes = torch.stack([left, torch.full_like(left, 10), left + 40, torch.full_like(left, 50)], 1)
    return VoidProposals(place, boxes, torch.zeros(len(features)), features, (100, 400), flipped)


def at(*degrees: float, length: float = 1.0) -> torch.Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return length * torch.stack([angle.cos(), angle.sin()], 1)


def labels(*classes: int) -> torch.Tensor:
    return torch.tensor(classes)


def test_each_exemplar_takes_the_most_similar_proposal_of_each_image():
    batch = [image(at(80, 8, 3, 95), 4), image(at(88, 200, 300), 7)]
    rows, mined = mine(at(0, 90, length=3), labels(5, 2), batch, RULES, 0)
    assert [classes.tolist() for classes in mined] == [[-1, -1, 5, 2], [2, -1, -1]]
    assert rows.image.tolist() == [4, 4, 7]
    assert rows.label.tolist() == [5, 2, 2]
    assert rows.box[0].tolist() == pytest.approx([0.2, 0.1, 0.3, 0.5])


def test_the_distance_is_a_bound_that_shrinks_with_the_boxes_found():
    batch = [image(at(25))]  # at distance 0.094
    assert len(mine(at(0), labels(0), batch, RULES, 0)[0].label) == 1
    assert len(mine(at(0), labels(0), batch, RULES, 1100)[0].label) == 1  # τ = 0.095
    assert len(mine(at(0), labels(0), batch, RULES, 1140)[0].label) == 0  # τ = 0.093
    alike = 1 - F.cosine_similarity(at(0), at(25)).item()
    assert len(mine(at(0), labels(0), batch, Schedule(mine_distance=alike - 1e-6), 0)[0].label) == 0


def test_one_proposal_gets_the_class_of_the_exemplar_it_resembles_most():
    rows, mined = mine(at(10, 3, 350), labels(0, 1, 2), [image(at(0, 180))], RULES, 0)
    assert mined[0].tolist() == [1, -1]
    assert rows.label.tolist() == [1]


def test_of_overlapping_proposals_the_more_similar_is_mined():
    void = image(at(4, 92, 180))
    void.boxes[1] = void.boxes[0] + torch.tensor([39.0, 0, 39, 0])
    _, mined = mine(at(0, 90), labels(0, 1), [void], RULES, 0)
    assert mined[0].tolist() == [-1, 1, -1]


def test_small_proposals_are_passed_over():
    void = image(at(0, 10))
    void.boxes[0] = torch.tensor([0.0, 0, 32, 32])
    assert mine(at(0), labels(0), [void], RULES, 0)[1][0].tolist() == [-1, 0]
    assert mine(at(0), labels(0), [void], RULES, 0, min_area=0)[1][0].tolist() == [0, -1]


def test_mined_boxes_are_those_of_the_stored_image():
    rows, _ = mine(at(0), labels(0), [image(at(0), flipped=True)], RULES, 0)
    assert rows.box[0].tolist() == pytest.approx([0.9, 0.1, 1.0, 0.5])


def test_an_object_that_is_mined_again_stays_once_in_the_table():
    ours, official = PseudoTruth(["a", "b"]), PseudoTruth(["a", "b"], official=True)
    for table in (ours, official):
        for _ in range(2):
            table.add(mine(at(0), labels(0), [image(at(0, 90), 1)], RULES, 0)[0])
    assert (len(ours), len(official)) == (1, 2)


def test_calibrated_rules_compare_centred_features():
    rules = Calibrated()
    rules.mean, rules.distance = torch.tensor([10.0, 10]), 0.05
    batch = [image(torch.tensor([[10.0, 9], [11, 10]]))]  # around the mean: opposite, and the same direction
    exemplar = torch.tensor([[12.0, 10]])
    assert mine(exemplar, labels(0), batch, rules, 0)[1][0].tolist() == [-1, 0]
    assert mine(exemplar, labels(0), [image(batch[0].features[:1])], rules, 0)[1][0].tolist() == [-1]
    assert mine(exemplar, labels(0), [image(batch[0].features[:1])], RULES, 0)[1][0].tolist() == [0]


def test_nothing_comes_of_nothing():
    rows, mined = mine(at(0), labels(0), [], RULES, 0)
    assert (len(rows.label), mined) == (0, [])
    rows, mined = mine(at(0), labels(0), [image(at())], RULES, 0)
    assert (len(rows.label), mined[0].tolist()) == (0, [])
    rows, mined = mine(at(), labels(), [image(at(0, 1))], RULES, 0)
    assert (rows.box.shape, mined[0].tolist()) == ((0, 4), [-1, -1])
    assert rows.image.dtype == torch.long


def test_features_that_are_not_finite_are_named():
    bad = image(at(0, 1), 6)
    bad.features[1] = float("nan")
    with pytest.raises(InputError, match="in the image at place 6 hold NaN or infinity in 1 of 2 rows"):
        mine(at(0), labels(0), [bad], RULES, 0)
    with pytest.raises(InputError, match="the features of the exemplars hold NaN"):
        mine(torch.full((1, 2), float("inf")), labels(0), [image(at(0))], RULES, 0)
