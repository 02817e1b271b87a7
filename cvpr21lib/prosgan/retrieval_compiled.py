"""The counting of `retrieval` in compiled loops, several times faster than NumPy with a sort.

`retrieval` goes this way by itself where numba is installed (`pip install "cvpr21lib[fast]"`). A query reads
the database three times: distances and relevance (vectorised, and small enough to stay in the processor's
cache), how many there are of each, and the ranks that follow from it.

Python threads share the queries, and each runs without the interpreter's lock; a query's result does not
depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch

from cvpr21lib.prosgan.retrieval import Array, Coded

#: Pairs of query and item in a piece of work, about ten milliseconds.
_PIECE = 2**22


def score(queries: Coded, database: Coded, top: int) -> tuple[Array, Array, Array]:
    """Average precisions (Q,), and items and relevant items at each distance (Q, K + 1)."""
    stable = np.empty(len(queries))
    items, relevant = (np.zeros((len(queries), queries.bits + 1), np.int64) for _ in range(2))
    _share(_score, queries, database, top, stable, items, relevant)
    return stable, items, relevant


def rank(queries: Coded, database: Coded, top: int) -> tuple[Array, Array]:
    """The first items and their distances (Q, top)."""
    items = np.empty((len(queries), top), np.int32)
    distances = np.empty((len(queries), top), np.uint16)
    _share(_rank, queries, database, top, items, distances)
    return items, distances


def _share(work: Callable[..., None], queries: Coded, database: Coded, top: int, *out: Array) -> None:
    """Call `work` on a few queries at a time, on all threads."""
    step = max(1, _PIECE // len(database))

    def piece(start: int) -> None:
        part = slice(start, start + step)
        codes, labels = (np.ascontiguousarray(words[:, part].T) for words in (queries.codes, queries.labels))
        work(codes, labels, database.codes, database.labels, top, *(array[part] for array in out))

    starts = range(0, len(queries), step)
    with ThreadPoolExecutor(min(torch.get_num_threads(), len(starts))) as pool:
        list(pool.map(piece, starts))


def _machine_code(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder can keep the code, neither beside this file nor the user's own
        return numba.njit(nogil=True)(function)


@_machine_code
def _ones(word: Any) -> Any:
    """How many bits are set; compilers know these lines and take the processor's instruction for them."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@_machine_code
def _compare(code: Array, label: Array, codes: Array, labels: Array, pairs: Array) -> None:
    """Into `pairs` (N,), uint16: twice the distance, plus 1 if a label is shared."""
    for i in range(pairs.shape[0]):
        pairs[i] = np.uint16((label[0] & labels[0, i]) != 0)
    for w in range(1, labels.shape[0]):
        for i in range(pairs.shape[0]):
            pairs[i] |= np.uint16((label[w] & labels[w, i]) != 0)
    for w in range(codes.shape[0]):
        for i in range(pairs.shape[0]):
            pairs[i] += np.uint16(_ones(code[w] ^ codes[w, i])) << np.uint16(1)


@_machine_code
def _count(pairs: Array, counts: Array) -> None:
    """Into `counts` (2 K + 2, 4): how often each value comes. Four columns, because to add to a number that
    has only just been written is to wait for it."""
    counts[:] = 0
    four = np.uintp(4)
    whole = np.uintp(pairs.shape[0]) // four * four
    for i in range(np.uintp(0), whole, four):
        for j in range(4):
            counts[pairs[i + np.uintp(j)], j] += 1
    for i in range(whole, np.uintp(pairs.shape[0])):
        counts[pairs[i], 0] += 1


@_machine_code
def _score(
    query_codes: Array,
    query_labels: Array,
    codes: Array,
    labels: Array,
    top: int,
    stable: Array,
    items: Array,
    relevant: Array,
) -> None:
    distances = items.shape[1]
    pairs = np.empty(codes.shape[1], np.uint16)
    counts = np.empty((2 * distances, 4), np.int64)
    state = np.empty((distances, 2))
    for q in range(query_codes.shape[0]):
        _compare(query_codes[q], query_labels[q], codes, labels, pairs)
        _count(pairs, counts)
        nearer, hits = 0, 0
        for d in range(distances):
            state[d] = nearer, hits
            relevant[q, d] = counts[2 * d + 1].sum()
            items[q, d] = counts[2 * d].sum() + relevant[q, d]
            nearer += items[q, d]
            hits += relevant[q, d]
        stable[q] = _average_precision(pairs, state, np.float64(top))


@_machine_code
def _average_precision(pairs: Array, state: Array, top: Any) -> Any:
    """`state` (K + 1, 2): at each distance the rank and the number of relevant items so far; it moves on.

    Without a branch for relevance, which no processor could foresee. Counts in float64 are exact.
    """
    total, number = 0.0, 0.0
    for i in range(np.uintp(pairs.shape[0])):
        d = pairs[i] >> np.uint16(1)
        hit = np.float64(pairs[i] & np.uint16(1))
        place, hits = state[d, 0] + 1.0, state[d, 1] + hit
        state[d, 0], state[d, 1] = place, hits
        if place <= top:
            total += hit * hits / place
            number += hit
    return total / max(number, 1.0)


@_machine_code
def _rank(
    query_codes: Array,
    query_labels: Array,
    codes: Array,
    labels: Array,
    top: int,
    items: Array,
    distances: Array,
) -> None:
    size = 64 * codes.shape[0] + 1
    pairs = np.empty(codes.shape[1], np.uint16)
    counts = np.empty((2 * size, 4), np.int64)
    places = np.empty(size, np.int64)
    for q in range(query_codes.shape[0]):
        _compare(query_codes[q], query_labels[q], codes, labels, pairs)
        _count(pairs, counts)
        nearer, farthest = 0, 0
        for d in range(size):
            places[d] = nearer
            if nearer < top:
                farthest = d
            nearer += counts[2 * d].sum() + counts[2 * d + 1].sum()
        for i in range(pairs.shape[0]):
            d = pairs[i] >> np.uint16(1)
            if d <= farthest:
                place = places[d]
                if place < top:
                    items[q, place], distances[q, place] = i, d
                    places[d] = place + 1
