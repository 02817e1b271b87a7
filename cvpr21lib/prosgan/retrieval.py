"""How well codes retrieve: ranking by Hamming distance, MAP and t-MAP, with ties under control.

    database = pack(database_codes, database_labels)
    score(pack(query_codes, query_labels), database).map       # MAP
    score(pack(query_codes, target_labels), database).map      # t-MAP: the same, by the labels aimed at

All items of the database are ranked by their distance to the query. An item is relevant if it shares at least
one label with the query, and AP = (1/R) sum_i i/t_i over the ranks t_1 < ... < t_R of the relevant ones. MAP
is the mean over all queries; one without any relevant item counts as 0 (official code).

K bits give K + 1 distances, so most items are tied and their order decides the number. `stable` ranks them by
their place in the database, the reproducible form of the official code, whose own order depends on the
machine. `expected` is the mean over all orders.

Codes are packed, 64 bits to a word, and distances counted rather than sorted: an item's rank is the number of
items that are nearer, plus those before it that are as near. Memory grows with the database, and with the
number of queries times K, never with queries times items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln
from torch import Tensor

from cvpr21lib.errors import InputError

Array = np.ndarray[Any, Any]

MOST_BITS = 2**15 - 1
"""A distance and one bit of relevance fit into 16 bits."""


def score(queries: Coded, database: Coded, top: int | None = None) -> Scores:
    """Judge `queries` on `database`; large ones go through compiled code where numba is installed.

    Args:
        queries: their labels say what is relevant: the queries' own for MAP, the targets for t-MAP.
        top: cut the ranking after so many items, and count in R only the relevant ones among them; None ranks
            all, as the official tables do.

    Raises:
        InputError: other bits or classes in the one than in the other, nothing in one of them, `top` below 1.
    """
    _check(queries, database)
    top = _cut(top, database)
    compiled = _compiled() if _is_large(queries, database) else None
    stable, items, relevant = (compiled.score if compiled else _score)(queries, database, top)
    return Scores(stable, items, relevant, top)


def rank(queries: Coded, database: Coded, top: int | None = None) -> Ranking:
    """The `top` nearest items (None: all) of each query, ties by their place in the database.

    Raises:
        InputError: as `score`.
    """
    _check(queries, database)
    top = _cut(top, database)
    compiled = _compiled() if _is_large(queries, database) else None
    return Ranking(*(compiled.rank if compiled else _rank)(queries, database, top))


def pack(codes: Tensor | Array, labels: Tensor | Array) -> Coded:
    """Codes `(N, K)` and labels `(N, C)`, packed.

    Args:
        codes: signs, or outputs u in (-1, 1) whose signs are the bits. A zero counts as +1 (torch's sign(0)
            is 0, which is no bit). Bits written as 0 and 1 are refused.
        labels: 0 or 1 for each class. A vector of zeros is allowed; nothing is relevant to it.

    Raises:
        InputError: other shapes or values.
    """
    codes, labels = _array(codes), _array(labels)
    if codes.ndim != 2 or labels.ndim != 2 or len(codes) != len(labels):
        raise InputError(
            f"the codes have shape {codes.shape} and the labels {labels.shape}; expected (N, K) and (N, C) "
            "with the same N."
        )
    if not 1 <= codes.shape[1] <= MOST_BITS:
        raise InputError(f"the codes have {codes.shape[1]} bits; expected 1 to {MOST_BITS}.")
    if codes.dtype.kind not in "if" or _are_bits(codes):
        raise InputError(
            f"the codes ({codes.dtype}) look like bits of 0 and 1; give signs, which are 2 * bits - 1, or "
            "outputs of the hash network."
        )
    if np.isnan(codes).any():
        raise InputError("the codes hold NaN: the network that made them has diverged.")
    if not ((labels == 0) | (labels == 1)).all():
        raise InputError("the labels hold other values than 0 and 1; give one 0 or 1 for each class.")
    return Coded(_words(codes >= 0), codes.shape[1], _words(labels == 1), labels.shape[1])


@dataclass(frozen=True, eq=False)
class Coded:
    """N images as a retrieval system knows them; `pack` makes it."""

    codes: Array
    """`(ceil(K / 64), N)` uint64, bit k of word w being bit 64 w + k of the code; the rest is 0."""
    bits: int
    """K."""
    labels: Array
    """`(ceil(C / 64), N)` uint64, laid out in the same way."""
    classes: int
    """C."""

    def __len__(self) -> int:
        return int(self.codes.shape[1])


class Ranking(NamedTuple):
    """The nearest items of Q queries, nearest first."""

    items: Array
    """`(Q, top)` int32, places in the database."""
    distances: Array
    """`(Q, top)` uint16, Hamming distances."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What Q queries retrieved."""

    stable: Array
    """`(Q,)` average precisions, ties by their place in the database."""
    items: Array
    """`(Q, K + 1)` int64: items of the database at each distance."""
    relevant: Array
    """`(Q, K + 1)` int64: those that are relevant."""
    top: int
    """Length of the rankings."""

    @property
    def map(self) -> float:
        """Mean of `stable`, in [0, 1]."""
        return float(self.stable.mean())

    @property
    def map_expected(self) -> float:
        """Mean of `expected`, in [0, 1]."""
        return float(self.expected.mean())

    @cached_property
    def expected(self) -> Array:
        """`(Q,)` average precisions, averaged over all orders of the ties."""
        return expected_average_precision(self.items, self.relevant, self.top)

    @property
    def without_relevant(self) -> int:
        """How many queries have nothing relevant in the whole database: their AP is 0 whatever the codes."""
        return int((self.relevant.sum(1) == 0).sum())

    def precision_at(self, ranks: Array | list[int]) -> Array:
        """Mean share of relevant items among the first 1 <= k <= N of each ranking, for each k of `ranks`,
        averaged over all orders of the ties."""
        k = np.asarray(ranks)
        if k.size and not 1 <= k.min() <= k.max() <= (size := self.items[0].sum()):
            raise InputError(f"the ranks span {k.min()} to {k.max()}; expected 1 to {size}, all items.")
        last = self.items.cumsum(1)
        total = np.zeros(len(k))
        for relevant, end in zip(self.relevant, last, strict=True):
            # Between two distances the expected number of relevant items grows evenly.
            total += np.interp(k, np.r_[0, end], np.r_[0, relevant.cumsum()])
        return total / k / len(self.items)

    def precision_within(self, radius: int) -> float:
        """Mean share of relevant items within Hamming distance `radius`, 0 where there are none (the usual
        measure of a lookup in a hash table, with radius 2)."""
        found, hits = (counts[:, : radius + 1].sum(1) for counts in (self.items, self.relevant))
        return float((hits / np.maximum(found, 1)).mean())


def expected_average_precision(items: Array, relevant: Array, top: int | None = None) -> Array:
    """AP averaged over all orders of the ties, `(Q,)`, from the numbers at each distance, `(Q, K + 1)`.

    With n items, r of them relevant, at a distance, and a items, b of them relevant, nearer, the relevant
    ones are a random r of the places p = 1 ... n: sum_p (r/n) (b + 1 + (p-1)(r-1)/(n-1)) / (a + p), over R.
    """
    before, hits = (counts.cumsum(1) - counts for counts in (items, relevant))
    size = int(items.sum(1).max())
    top = size if top is None else min(top, size)
    harmonic = np.r_[0.0, (1 / np.arange(1, size + 1)).cumsum()]
    whole = before + items <= top
    sums = np.where(whole, _tied(items, relevant, before, hits, harmonic), 0).sum(1)
    number = np.where(whole, relevant, 0).sum(1)
    expected = sums / np.maximum(number, 1)
    for q in np.flatnonzero(~whole.all(1)):
        d = int(np.argmin(whole[q]))  # the distance that is cut: `slots` of its items are within the top
        slots, r = top - before[q, d], relevant[q, d]
        drawn, chances = _hypergeometric(items[q, d], r, slots)
        more = _tied(slots, drawn, before[q, d], hits[q, d], harmonic)
        expected[q] = chances @ ((sums[q] + more) / np.maximum(number[q] + drawn, 1))
    return expected


def _tied(n: Array, r: Array, before: Array, hits: Array, harmonic: Array) -> Array:
    """The sum of `expected_average_precision` for one distance, without the loop over p."""
    # sum_p 1/(a + p), and sum_p (p - 1)/(a + p)
    one = harmonic[before + n] - harmonic[before]
    other = n - (before + 1) * one
    return r / np.maximum(n, 1) * ((hits + 1) * one + (r - 1) / np.maximum(n - 1, 1) * other)


def _hypergeometric(n: int, r: int, slots: int) -> tuple[Array, Array]:
    """How many of r relevant items can be among `slots` of n, and with which chances."""
    drawn = np.arange(max(0, slots - (n - r)), min(slots, r) + 1)
    log = -sum(gammaln(1 + count) for count in (drawn, r - drawn, slots - drawn, n - r - slots + drawn))
    chances = np.exp(log - log.max())
    return drawn, chances / chances.sum()


def distances(queries: Coded, database: Coded) -> Array:
    """Hamming distances `(Q, N)`, uint8 up to 255 bits, else uint16. `rank` and `score` never hold all."""
    kind = np.uint8 if queries.bits < 256 else np.uint16
    out = np.zeros((len(queries), len(database)), kind)
    for query, item in zip(queries.codes, database.codes, strict=True):
        out += np.bitwise_count(query[:, None] ^ item)
    return out


def relevance(queries: Coded, database: Coded) -> Array:
    """Which items share a label with which query, `(Q, N)` bool."""
    out = np.zeros((len(queries), len(database)), bool)
    for query, item in zip(queries.labels, database.labels, strict=True):
        out |= (query[:, None] & item) != 0
    return out


def _score(queries: Coded, database: Coded, top: int) -> tuple[Array, Array, Array]:
    """`score` in NumPy: average precisions, items and relevant items at each distance."""
    stable = np.zeros(len(queries))
    items, relevant = (np.zeros((len(queries), queries.bits + 1), np.int64) for _ in range(2))
    place = np.arange(1.0, top + 1)
    for start, block in _blocks(queries, database):
        shares = relevance(block, database)
        apart = distances(block, database)
        for q, order in enumerate(apart.argsort(1, kind="stable")[:, :top], start):
            hits, near = shares[q - start], apart[q - start]
            items[q] = np.bincount(near, minlength=queries.bits + 1)
            relevant[q] = np.bincount(near[hits], minlength=queries.bits + 1)
            ranks = place[hits[order]]
            if ranks.size:
                stable[q] = (place[: ranks.size] / ranks).mean()
    return stable, items, relevant


def _rank(queries: Coded, database: Coded, top: int) -> tuple[Array, Array]:
    """`rank` in NumPy."""
    items = np.empty((len(queries), top), np.int32)
    apart = np.empty((len(queries), top), np.uint16)
    for start, block in _blocks(queries, database):
        near = distances(block, database)
        order = near.argsort(1, kind="stable")[:, :top]
        items[start : start + len(block)] = order
        apart[start : start + len(block)] = np.take_along_axis(near, order, 1)
    return items, apart


def _blocks(queries: Coded, database: Coded, pairs: int = 2**20) -> Iterator[tuple[int, Coded]]:
    """The queries in blocks of about so many `pairs` with items, each with its first place."""
    step = max(1, pairs // len(database))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        yield (
            start,
            Coded(queries.codes[:, part], queries.bits, queries.labels[:, part], queries.classes),
        )


@cache
def _compiled() -> ModuleType | None:
    try:
        from cvpr21lib.prosgan import retrieval_compiled
    except ImportError:  # numba is not installed, or does not fit this numpy
        return None
    return retrieval_compiled


def _is_large(queries: Coded, database: Coded) -> bool:
    # To load numba takes as long as about so many pairs.
    return len(queries) * len(database) >= 2**25


def _are_bits(codes: Array) -> bool:
    """0 and 1 and nothing else: taken for signs, every bit would be +1."""
    return bool((codes == 0).any() and (codes == 1).any() and ((codes == 0) | (codes == 1)).all())


def _words(bits: Array) -> Array:
    """(N, K) bool as (ceil(K / 64), N) uint64."""
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 64)))
    packed = np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)
    return np.ascontiguousarray(packed.T)


def _array(values: Tensor | Array) -> Array:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _cut(top: int | None, database: Coded) -> int:
    if top is not None and top < 1:
        raise InputError(f"top is {top}; it must be at least 1, or None for the whole database.")
    return len(database) if top is None else min(top, len(database))


def _check(queries: Coded, database: Coded) -> None:
    for name, part in {"queries": queries, "database": database}.items():
        if not len(part):
            raise InputError(f"there is nothing in the {name}.")
    if queries.bits != database.bits:
        raise InputError(
            f"the queries have {queries.bits} bits and the database {database.bits}; both must come from the "
            "same hash network."
        )
    if queries.classes != database.classes:
        raise InputError(
            f"the queries have labels of {queries.classes} classes and the database of {database.classes}; "
            "both must be of the same data set."
        )
