"""Ranking and average precision: by counting or by sorting, with ties in one order or in all."""

from __future__ import annotations

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
import torch

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import retrieval, retrieval_compiled
from cvpr21lib.prosgan.retrieval import expected_average_precision, pack, rank, score


def signs(rng: np.random.Generator, count: int, bits: int) -> np.ndarray:
    return 2 * rng.integers(0, 2, (count, bits)) - 1


def random_case(seed: int, queries: int, items: int, bits: int, classes: int = 5, share: float = 0.2):
    rng = np.random.default_rng(seed)
    return tuple(
        pack(signs(rng, count, bits), rng.random((count, classes)) < share) for count in (queries, items)
    )


def by_hand(codes, item_codes, labels, item_labels) -> float:
    """MAP by its definition, ties by place."""
    total = 0.0
    for code, label in zip(codes, labels, strict=True):
        distances = (code != item_codes).sum(1)
        order = sorted(range(len(item_codes)), key=lambda i: (distances[i], i))
        places = [place for place, i in enumerate(order, 1) if (label & item_labels[i]).any()]
        total += np.mean([found / place for found, place in enumerate(places, 1)]) if places else 0
    return total / len(codes)


@pytest.mark.parametrize("bits", [1, 7, 12, 48, 64, 65, 130, 300])
def test_any_number_of_bits_gives_the_map_of_its_definition(bits):
    rng = np.random.default_rng(bits)
    codes, items = signs(rng, 4, bits), signs(rng, 50, bits)
    labels, item_labels = (rng.integers(0, 2, (count, 3)) for count in (4, 50))
    queries, database = pack(codes, labels), pack(items, item_labels)
    np.testing.assert_array_equal(retrieval.distances(queries, database), (codes[:, None] != items).sum(-1))
    assert score(queries, database).map == pytest.approx(
        by_hand(codes, items, labels, item_labels), abs=1e-12
    )


@pytest.mark.parametrize("top", [1, 10, 97, 500])
@pytest.mark.parametrize(("bits", "classes"), [(8, 5), (12, 80), (64, 21), (200, 130), (300, 64)])
def test_counting_and_sorting_agree(bits, classes, top):
    queries, database = random_case(0, 9, 501, bits, classes, 0.05)
    sorted_, counted = (way.score(queries, database, top) for way in (Numpy, retrieval_compiled))
    np.testing.assert_allclose(counted[0], sorted_[0], rtol=0, atol=1e-12)
    for i in (1, 2):
        np.testing.assert_array_equal(counted[i], sorted_[i])
    for counted_, sorted_ in zip(
        retrieval_compiled.rank(queries, database, top), Numpy.rank(queries, database, top), strict=True
    ):
        np.testing.assert_array_equal(counted_, sorted_)


class Numpy:
    score, rank = retrieval._score, retrieval._rank


def test_neither_blocks_nor_threads_change_a_digit(monkeypatch):
    queries, database = random_case(1, 50, 301, 16)
    whole = [way.score(queries, database, 301) for way in (Numpy, retrieval_compiled)]
    monkeypatch.setattr(retrieval_compiled, "_PIECE", 1000)
    monkeypatch.setattr(retrieval_compiled.torch, "get_num_threads", lambda: 3)
    blocks = retrieval._blocks
    monkeypatch.setattr(retrieval, "_blocks", lambda *pair: blocks(*pair, pairs=1000))
    for way, expected in zip((Numpy, retrieval_compiled), whole, strict=True):
        for found, before in zip(way.score(queries, database, 301), expected, strict=True):
            np.testing.assert_array_equal(found, before)


@pytest.mark.parametrize("large", [False, True], ids=["numpy", "compiled"])
def test_memory_does_not_grow_with_queries_times_items(large, monkeypatch):
    monkeypatch.setattr(retrieval, "_is_large", lambda *_: large)
    queries, database = random_case(
        2, 2000, 4000, 16
    )  # one byte a pair would be 8 MB, a sort's indices 64 MB
    score(pack(np.ones((1, 16)), np.ones((1, 5))), database)  # what is loaded once is not counted
    tracemalloc.start()
    score(queries, database)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (4e6 if large else 40e6)


def test_the_nearest_come_first_and_ties_by_their_place():
    items = np.array([[-1, -1, 1], [1, 1, 1], [1, -1, 1], [1, 1, -1], [1, 1, 1]])
    ranking = rank(pack([[1, 1, 1]], [[1]]), pack(items, np.ones((5, 1))), 4)
    assert ranking.items.tolist() == [[1, 4, 2, 3]]
    assert ranking.distances.tolist() == [[0, 0, 1, 1]]


def test_a_code_of_zero_counts_as_plus_one():
    zeros, ones = (pack(torch.full((1, 8), value), np.ones((1, 2))) for value in (0.0, 1.0))
    np.testing.assert_array_equal(zeros.codes, ones.codes)
    np.testing.assert_array_equal(pack(torch.full((1, 8), -0.0), np.ones((1, 2))).codes, ones.codes)
    assert retrieval.distances(zeros, ones) == 0


def test_zeros_among_signs_count_as_plus_one():
    found = pack(np.array([[0, -1, 1, 0]]), np.ones((1, 1)))
    np.testing.assert_array_equal(found.codes, pack(np.array([[1, -1, 1, 1]]), np.ones((1, 1))).codes)


def test_outputs_of_the_network_count_by_their_signs():
    u = torch.tensor([[0.1, -0.9, 0.0, -1e-30]], requires_grad=True)
    np.testing.assert_array_equal(
        pack(u, np.ones((1, 1))).codes, pack(np.array([[1, -1, 1, -1]]), np.ones((1, 1))).codes
    )


def test_a_query_without_labels_is_counted_with_an_average_precision_of_0():
    rng = np.random.default_rng(3)
    codes, database = signs(rng, 2, 8), pack(signs(rng, 30, 8), np.ones((30, 4)))
    scores = score(pack(codes, np.array([[1, 0, 0, 0], [0, 0, 0, 0]])), database)
    assert scores.stable.tolist() == [1, 0]
    assert (scores.map, scores.map_expected, scores.without_relevant) == (0.5, 0.5, 1)


def test_a_query_whose_labels_nothing_has_is_counted_with_an_average_precision_of_0():
    database = pack(np.ones((3, 8)), np.array([[1, 0], [1, 0], [0, 0]]))
    scores = score(pack(np.ones((2, 8)), np.array([[1, 0], [0, 1]])), database)
    assert scores.map == 0.5
    assert scores.without_relevant == 1


def test_items_without_labels_are_ranked_and_never_relevant():
    database = pack(np.ones((4, 8)), np.array([[0], [1], [0], [1]]))
    assert score(pack(np.ones((1, 8)), [[1]]), database).map == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_t_map_is_map_by_the_target_labels():
    """Half of the database carries the target's label and its code: a query there retrieves it perfectly."""
    items, labels = np.repeat([[1, 1, 1, 1], [-1, -1, -1, -1]], 5, 0), np.repeat([[1, 0], [0, 1]], 5, 0)
    database, attacked = pack(items, labels), np.full((1, 4), -1)
    assert score(pack(attacked, [[0, 1]]), database).map == 1
    assert score(pack(attacked, [[1, 0]]), database).map == pytest.approx(
        np.mean([i / (5 + i) for i in range(1, 6)])
    )


@pytest.mark.parametrize("top", [None, 1, 2, 3, 4, 5, 6, 9])
def test_the_expectation_is_the_mean_over_all_orders_of_the_database(top):
    rng = np.random.default_rng(4)
    codes, labels = signs(rng, 3, 2), rng.integers(0, 2, (3, 2))
    items, item_labels = signs(rng, 6, 2), rng.integers(0, 2, (6, 2))
    queries = pack(codes, labels)
    orders = [
        score(queries, pack(items[list(order)], item_labels[list(order)]), top).stable
        for order in permutations(range(6))
    ]
    found = score(queries, pack(items, item_labels), top).expected
    np.testing.assert_allclose(found, np.mean(orders, 0), rtol=0, atol=1e-12)


def test_the_order_of_the_database_moves_the_stable_number_and_not_the_expected_one():
    rng = np.random.default_rng(5)
    items, labels = signs(rng, 200, 6), rng.integers(0, 2, (200, 3))
    queries = pack(signs(rng, 5, 6), rng.integers(0, 2, (5, 3)))
    order = rng.permutation(200)
    first, second = score(queries, pack(items, labels)), score(queries, pack(items[order], labels[order]))
    assert abs(first.map - second.map) > 1e-4
    assert first.map_expected == pytest.approx(second.map_expected, abs=1e-14)


def test_without_ties_the_expectation_is_the_number():
    items = np.ones((9, 8)) - 2 * np.tri(9, 8, -1)  # at distances 0 ... 8 from a code of ones
    labels = np.array([[1, 0, 0, 1, 1, 0, 1, 0, 1]]).T
    for top in (None, 3, 5):
        scores = score(pack(np.ones((1, 8)), [[1]]), pack(items, labels), top)
        assert scores.map == pytest.approx(scores.map_expected, abs=1e-14)


def test_the_expectation_keeps_its_digits_in_a_large_database():
    """Against the sum over all places of a tie, in the exact arithmetic of Python's sums."""
    from math import fsum

    items, relevant = np.array([[3, 150_000, 40_000]]), np.array([[1, 20_000, 2]])
    total = []
    before = hits = 0
    for n, r in zip(items[0].tolist(), relevant[0].tolist(), strict=True):
        total += [r / n * (hits + 1 + (p - 1) * (r - 1) / (n - 1)) / (before + p) for p in range(1, n + 1)]
        before, hits = before + n, hits + r
    found = expected_average_precision(items, relevant)
    assert found[0] == pytest.approx(fsum(total) / hits, abs=1e-12)


def test_precision_at_k_is_averaged_over_ties():
    rng = np.random.default_rng(6)
    items, labels = signs(rng, 5, 1), np.array([[1], [0], [1], [1], [0]])
    query = pack([[1]], [[1]])
    ranks, orders = np.arange(1, 6), list(permutations(range(5)))
    expected = np.zeros(5)
    for order in map(list, orders):
        hits = labels[order][rank(query, pack(items[order], labels[order])).items[0], 0]
        expected += hits.cumsum() / ranks / len(orders)
    found = score(query, pack(items, labels)).precision_at(ranks)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_precision_within_a_radius_counts_empty_balls_as_0():
    items, labels = np.array([[1, 1, 1], [1, 1, -1], [1, -1, -1]]), np.array([[1], [0], [1]])
    scores = score(pack([[1, 1, 1], [-1, 1, 1]], [[1], [1]]), pack(items, labels))
    assert scores.precision_within(0) == 0.5 * (1 + 0)
    assert scores.precision_within(1) == 0.5 * (1 / 2 + 1)


def test_numpy_alone_is_enough(monkeypatch):
    monkeypatch.setattr(retrieval, "_compiled", lambda: None)
    monkeypatch.setattr(retrieval, "_is_large", lambda *_: True)
    queries, database = random_case(7, 3, 40, 12)
    assert 0 < score(queries, database, 10).map < 1
    assert rank(queries, database, 10).items.shape == (3, 10)


@pytest.mark.parametrize(
    ("codes", "labels", "message"),
    [
        (np.ones(8), np.ones((1, 2)), r"shape \(8,\) and the labels \(1, 2\); expected \(N, K\)"),
        (np.ones((2, 8)), np.ones((3, 2)), "with the same N"),
        (np.ones((2, 0)), np.ones((2, 2)), "0 bits; expected 1 to"),
        (np.ones((2, 8), np.uint8), np.ones((2, 2)), r"\(uint8\) look like bits of 0 and 1"),
        (np.ones((2, 8), bool), np.ones((2, 2)), r"\(bool\) look like bits"),
        (np.eye(8), np.ones((8, 2)), r"look like bits of 0 and 1; give signs, which are 2 \* bits - 1"),
        (np.full((1, 8), np.nan), np.ones((1, 2)), "NaN: the network that made them has diverged"),
        (np.ones((1, 8)), np.full((1, 2), 0.5), "other values than 0 and 1"),
        (np.ones((1, 8)), np.full((1, 2), -1), "other values than 0 and 1"),
    ],
)
def test_what_cannot_be_packed_is_refused(codes, labels, message):
    with pytest.raises(InputError, match=message):
        pack(codes, labels)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (pack(np.ones((1, 12)), np.ones((1, 3))), "12 bits and the database 16"),
        (pack(np.ones((1, 16)), np.ones((1, 4))), "labels of 4 classes and the database of 3"),
        (pack(np.ones((0, 16)), np.ones((0, 3))), "nothing in the queries"),
    ],
)
def test_queries_and_database_of_different_kinds_are_refused(queries, message):
    database = pack(np.ones((2, 16)), np.ones((2, 3)))
    for judge in (score, rank):
        with pytest.raises(InputError, match=message):
            judge(queries, database)


def test_an_empty_database_and_an_empty_top_are_refused():
    one, none = pack(np.ones((1, 16)), np.ones((1, 3))), pack(np.ones((0, 16)), np.ones((0, 3)))
    with pytest.raises(InputError, match="nothing in the database"):
        score(one, none)
    with pytest.raises(InputError, match="top is 0; it must be at least 1"):
        score(one, one, 0)
    with pytest.raises(InputError, match="the ranks span 1 to 2; expected 1 to 1"):
        score(one, one).precision_at([1, 2])
