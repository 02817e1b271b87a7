"""One list of targets: drawn by one rule, repeatable, and never a label that cannot be reached."""

from __future__ import annotations

import pytest
import torch

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import targets

KINDS = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]])
LABELS = KINDS[[0] * 12 + [1] * 10 + [2] * 9 + [3] * 30]
"""Three labels, carried by 12, 10 and 9 images, and 30 images without any."""


def test_the_same_seed_gives_the_same_list():
    one, other, third = (targets.draw(LABELS, 40, seed) for seed in (5, 5, 6))
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.picks, other.picks)
    assert not torch.equal(one.picks, third.picks)


def test_only_labels_with_more_than_n_t_images_are_drawn_and_never_the_empty_one():
    drawn = targets.draw(LABELS, 200, seed=0).labels.unique(dim=0)
    assert drawn.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert targets.draw(LABELS, 200, seed=0, n_t=8).labels.unique(dim=0).tolist() == sorted(
        KINDS[:3].tolist()
    )


def test_labels_are_drawn_uniformly_however_many_images_carry_them():
    labels = KINDS[[0] * 1000 + [1] * 10]
    share = (targets.draw(labels, 4000, seed=0).labels == KINDS[0]).all(1).float().mean()
    assert share.item() == pytest.approx(0.5, abs=0.03)


def test_every_pick_carries_exactly_the_target():
    drawn = targets.draw(LABELS, 50, seed=1)
    assert drawn.picks.shape == (50, 9)
    assert (LABELS[drawn.picks] == drawn.labels[:, None]).all()


def test_slices_keep_numbers_labels_and_picks_together():
    drawn = targets.draw(LABELS, 10, seed=1)
    part = drawn[4:7]
    assert len(part) == 3
    assert part.numbers.tolist() == [4, 5, 6]
    assert torch.equal(part.labels, drawn.labels[4:7])
    assert torch.equal(part.picks, drawn.picks[4:7])


def test_chosen_labels_get_images_of_the_database():
    chosen = targets.toward(KINDS[[2, 0]], LABELS, seed=0, n_t=3)
    assert (LABELS[chosen.picks] == KINDS[[2, 0]][:, None]).all()


def test_a_label_that_the_database_lacks_is_named():
    with pytest.raises(
        InputError, match=r"no database image carries exactly the labels \[0, 2\]; .*prototype"
    ):
        targets.toward(torch.tensor([[1, 0, 0], [1, 0, 1]]), LABELS, seed=0)


@pytest.mark.parametrize("make", [lambda y: targets.toward(y, LABELS, seed=0), targets.unseen])
def test_an_empty_target_is_refused(make):
    with pytest.raises(InputError, match="target 1 is an empty label vector"):
        make(KINDS[[0, 3]])


def test_too_few_images_of_every_label_are_an_error_with_a_remedy():
    with pytest.raises(InputError, match=r"more than 12 times .* 61 images \(at most 30\); lower n_t"):
        targets.draw(LABELS, 5, seed=0, n_t=12)
    with pytest.raises(InputError, match="lower n_t"):
        targets.draw(LABELS[:0], 5, seed=0)


@pytest.mark.parametrize("labels", [torch.tensor([1, 0]), torch.tensor([[2, 0]]), torch.tensor([[0.5, 0]])])
def test_what_is_no_label_vector_is_refused(labels):
    with pytest.raises(InputError, match=r"vectors .* of 0 and 1"):
        targets.draw(labels, 5, seed=0)


def test_other_classes_and_no_voters_are_refused():
    with pytest.raises(InputError, match="targets have 2 classes, but the database 3"):
        targets.toward(torch.ones(1, 2), LABELS, seed=0)
    with pytest.raises(InputError, match="n_t is 0"):
        targets.draw(LABELS, 5, seed=0, n_t=0)


def test_no_queries_have_no_targets():
    assert targets.draw(LABELS, 0, seed=0).picks.shape == (0, 9)
