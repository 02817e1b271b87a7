"""Cosine k-means."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cvpr21lib.eopsn import kmeans
from cvpr21lib.errors import InputError


def blobs(each: int = 40, clusters: int = 5, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (N, D) ≥ 0 of very different lengths around a few directions, and the direction of each."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.eye(clusters, width)
    member = torch.arange(clusters).repeat(each)
    points = directions[member] + 0.1 * torch.rand(len(member), width, generator=generator)
    return points * (0.2 + 3 * torch.rand(len(member), 1, generator=generator)), member


def literal(points: torch.Tensor, start: torch.Tensor, iterations: int = 150) -> torch.Tensor:
    """The algorithm word by word, in float64, one cluster after the other."""
    points = points.double()
    centres = points[start]
    for _ in range(iterations):
        cosine = F.cosine_similarity(points[:, None], centres[None], dim=2)
        nearest = (1 - cosine).argmin(1)
        before = centres.clone()
        for cluster in range(len(centres)):
            if (nearest == cluster).any():
                centres[cluster] = points[nearest == cluster].mean(0)
        if (centres - before).norm(dim=1).sum() ** 2 < 1e-3:
            break
    return nearest


def test_it_equals_the_literal_algorithm_across_chunks(monkeypatch):
    monkeypatch.setattr(kmeans, "CHUNK", 33)
    points = torch.rand(400, 16, generator=torch.Generator().manual_seed(3))
    start = torch.arange(0, 400, 40)
    assert torch.equal(kmeans.cosine_kmeans(points, 10, start=start).assignment, literal(points, start))


def test_directions_are_found_whatever_the_lengths():
    points, member = blobs()
    clusters = kmeans.cosine_kmeans(points, 5, start=torch.arange(5))
    assert torch.equal(clusters.assignment, member)
    assert clusters.sizes.tolist() == [40] * 5
    scaled = kmeans.cosine_kmeans(points * 100, 5, start=torch.arange(5), tolerance=10)
    assert torch.equal(scaled.assignment, member)


def test_a_centre_is_the_plain_mean_and_long_members_pull_it_more():
    points, member = blobs()
    clusters = kmeans.cosine_kmeans(points, 5, start=torch.arange(5))
    means = torch.stack([points[member == cluster].mean(0) for cluster in range(5)])
    torch.testing.assert_close(clusters.centres, means)
    cosine = F.cosine_similarity(points, means[member])
    torch.testing.assert_close(clusters.distance, 1 - cosine.view(40, 5).mean(0), rtol=0, atol=1e-6)


def test_an_empty_cluster_keeps_its_centre_and_has_distance_0():
    points, _ = blobs()
    points[1] = points[0] * 0.5  # the same direction: ties go to the first
    clusters = kmeans.cosine_kmeans(points, 3, start=torch.tensor([0, 1, 2]), iterations=1)
    assert clusters.sizes[1] == 0
    assert torch.equal(clusters.centres[1], points[1])
    assert clusters.distance[1] == 0
    assert clusters.distance[[0, 2]].min() > 0


def test_the_last_cluster_may_be_empty():
    points, _ = blobs()
    points[1] = points[0]
    clusters = kmeans.cosine_kmeans(points, 2, start=torch.tensor([0, 1]), iterations=1)
    assert clusters.sizes.tolist() == [200, 0]


def test_fewer_points_than_clusters_make_one_cluster_each():
    points, _ = blobs(each=1)
    clusters = kmeans.cosine_kmeans(points, 128, torch.Generator().manual_seed(0))
    assert clusters.sizes.tolist() == [1] * 5
    assert clusters.assignment.sort().values.tolist() == list(range(5))


def test_no_points_make_no_clusters():
    clusters = kmeans.cosine_kmeans(torch.zeros(0, 7), 3)
    assert (clusters.centres.shape, clusters.sizes.shape, clusters.distance.shape) == ((0, 7), (0,), (0,))


def test_points_of_length_0_are_at_distance_1():
    points = torch.cat([torch.eye(2), torch.zeros(2, 2)])
    clusters = kmeans.cosine_kmeans(points, 2, start=torch.tensor([0, 1]), iterations=1)
    assert clusters.assignment.tolist() == [0, 1, 0, 0]
    torch.testing.assert_close(clusters.distance, torch.tensor([2 / 3, 0]))


def test_the_generator_decides():
    points = torch.rand(300, 8, generator=torch.Generator().manual_seed(1))
    one, same, other = (
        kmeans.cosine_kmeans(points, 12, torch.Generator().manual_seed(seed)).assignment for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_sums_for_accelerators_agree_with_those_of_the_processor(monkeypatch):
    points, member = blobs()
    expected = torch.zeros(6, points.shape[1]).index_add_(0, member, points)
    monkeypatch.setattr(kmeans, "CHUNK", 64)
    torch.testing.assert_close(kmeans._sums_by_product(points, member, 6), expected)


def test_it_stops_at_the_limit():
    points = torch.rand(300, 8, generator=torch.Generator().manual_seed(1))
    assert kmeans.cosine_kmeans(points, 12, start=torch.arange(12), iterations=2, tolerance=0).iterations == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_named(value):
    points, _ = blobs()
    points[[7, 9], 3] = value
    with pytest.raises(InputError, match="in 2 of 200 rows, first in row 7"):
        kmeans.cosine_kmeans(points, 5)


def test_impossible_requests_are_named():
    with pytest.raises(InputError, match="at least one cluster"):
        kmeans.cosine_kmeans(torch.rand(4, 4), 0)
    with pytest.raises(InputError, match=r"shape \(4,\)"):
        kmeans.cosine_kmeans(torch.rand(4), 2)
