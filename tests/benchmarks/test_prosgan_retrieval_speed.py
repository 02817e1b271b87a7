"""Ranking 50,000 codes for 5,000 queries, beside the official loop and faiss, on one thread.

    python -m pytest tests/benchmarks/test_prosgan_retrieval_speed.py --benchmark-only

Random codes of 64 bits with 21 labels. The official loop runs on 50 of the queries, faiss on 500, and their
times are scaled up (each query costs the same); ours runs on all of them. CPU seconds.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from cvpr21lib.prosgan import retrieval, retrieval_compiled
from cvpr21lib.prosgan.retrieval import pack, rank, score

QUERIES, ITEMS, BITS, CLASSES = 5000, 50_000, 64, 21
SLICE = {"official": 50, "faiss": 500}

pytestmark = pytest.mark.benchmark(timer=time.process_time)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, ...]:
    """Codes of -1 and +1 and labels, float64 as the official code has them: of the queries, of the items."""
    rng = np.random.default_rng(0)
    codes = (2.0 * rng.integers(0, 2, (count, BITS)) - 1 for count in (QUERIES, ITEMS))
    labels = ((rng.random((count, CLASSES)) < 3 / CLASSES) * 1.0 for count in (QUERIES, ITEMS))
    return (*codes, *labels)


@pytest.fixture(scope="module")
def packed(data):
    codes, item_codes, labels, item_labels = data
    return pack(codes, labels), pack(item_codes, item_labels)


def official(
    codes: np.ndarray, item_codes: np.ndarray, labels: np.ndarray, item_labels: np.ndarray, kind: str | None
) -> float:
    """The official evaluation, operation by operation: products of floats, and a sort, for each query."""
    total = 0.0
    for code, label in zip(codes, labels, strict=True):
        relevant = (label @ item_labels.T > 0).astype(np.float32)
        number = int(relevant.sum())
        if number == 0:
            continue
        distances = 0.5 * (item_codes.shape[1] - code @ item_codes.T)
        relevant = relevant[np.argsort(distances, kind=kind)]
        places = np.asarray(np.where(relevant == 1)) + 1.0
        total += np.mean(np.linspace(1, number, number) / places)
    return total / len(codes)


@pytest.mark.parametrize("kind", [None, "stable"], ids=["as it is", "with a stable sort"])
def test_full_map_beside_the_official_loop(against, data, packed, kind):
    count = SLICE["official"]
    part = data[0][:count], data[1], data[2][:count], data[3]
    assert score(pack(part[0], part[2]), packed[1]).map == pytest.approx(official(*part, "stable"), abs=1e-12)
    run_scaled(
        against,
        f"full MAP, the official loop {kind or 'as it is'}",
        lambda: retrieval_compiled.score(*packed, ITEMS),
        lambda: official(*part, kind),
        QUERIES // count,
        rounds=3,
    )


def test_full_map_without_numba_beside_the_official_loop(against, data, packed):
    count = SLICE["official"]
    part = data[0][:count], data[1], data[2][:count], data[3]
    few = pack(data[0][:500], data[2][:500])
    run_scaled(
        against,
        "full MAP of 500 queries in NumPy, the official loop as it is",
        lambda: retrieval._score(few, packed[1], ITEMS),
        lambda: official(*part, None),
        500 // count,
        rounds=3,
    )


@pytest.mark.parametrize("top", [100, 1000, 5000])
def test_nearest_items_beside_faiss(against, packed, top):
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    queries, database = packed
    index = faiss.IndexBinaryFlat(BITS)
    index.add(np.ascontiguousarray(database.codes.T).view(np.uint8))
    asked = np.ascontiguousarray(queries.codes.T).view(np.uint8)[: SLICE["faiss"]]
    theirs, _ = index.search(asked, top)
    ours = rank(queries, database, top).distances[: len(asked)]
    np.testing.assert_array_equal(ours, theirs)
    run_scaled(
        against,
        f"the nearest {top}, faiss",
        lambda: retrieval_compiled.rank(queries, database, top),
        lambda: index.search(asked, top),
        QUERIES // len(asked),
        rounds=3,
    )


def run_scaled(against, label, ours, reference, factor, rounds):
    """`against`, with a clock that counts the reference's time `factor` times: it ran on a part."""
    inside = [0.0]

    def scaled_reference() -> None:
        start = time.process_time()
        reference()
        inside[0] += (factor - 1) * (time.process_time() - start)

    against(label, ours, scaled_reference, rounds, lambda: time.process_time() + inside[0])
