"""Pairs of members of one cluster that become exemplars."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from cvpr21lib.eopsn import exemplars


def members(count: int = 60, images: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(count, 6, generator=generator) + 0.5
    return features, torch.randint(images, (count,), generator=generator)


def literal(features: torch.Tensor, image: torch.Tensor, distance: float) -> list[int]:
    """All n² pairs sorted, then walked."""
    count = len(features)
    apart = 1 - F.normalize(features, dim=1) @ F.normalize(features, dim=1).T
    chosen, used = [], set()
    for pair in apart.flatten().argsort(stable=True).tolist():
        one, other = divmod(pair, count)
        if one >= other:
            continue
        if apart[one, other] > distance:
            break
        pictures = {int(image[one]), int(image[other])}
        if len(pictures) == 2 and not pictures & used:
            used |= pictures
            chosen += [one, other]
    return chosen


def test_pairs_are_those_of_the_literal_walk_across_chunks(monkeypatch):
    features, image = members()
    for distance in (0.01, 0.05, 2.0):
        expected = literal(features, image, distance)
        assert exemplars.coupled(features, image, distance).tolist() == expected
        monkeypatch.setattr(exemplars, "CHUNK", 7)
        assert exemplars.coupled(features, image, distance).tolist() == expected
        assert len(expected) > 2


def test_an_image_gives_one_exemplar_at_most_and_pairs_are_close():
    features, image = members()
    chosen = exemplars.coupled(features, image, 0.05)
    assert len(image[chosen].unique()) == len(chosen)
    first, second = features[chosen].unflatten(0, (-1, 2)).unbind(1)
    apart = 1 - F.cosine_similarity(first, second)
    assert apart.max() <= 0.05 + 1e-6
    assert torch.equal(apart, apart.sort().values)


def test_the_closest_pair_within_one_image_does_not_count():
    features = torch.tensor([[1.0, 0], [1, 0], [0.9, 0.1], [0, 1]])
    assert exemplars.coupled(features, torch.tensor([5, 5, 8, 9]), 0.1).tolist() == [0, 2]
    assert exemplars.coupled(features, torch.tensor([5, 5, 5, 5]), 2).tolist() == []


def test_a_pair_at_the_distance_itself_is_taken():
    features, image = torch.eye(2), torch.tensor([0, 1])
    assert exemplars.coupled(features, image, 1.0).tolist() == [0, 1]
    assert exemplars.coupled(features, image, 0.99).tolist() == []


def test_none_or_one_member_makes_no_pair():
    for count in (0, 1):
        chosen = exemplars.coupled(torch.ones(count, 4), torch.zeros(count, dtype=torch.long), 1.0)
        assert (chosen.tolist(), chosen.dtype) == ([], torch.long)
