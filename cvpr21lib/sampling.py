"""Where in the data a run is.

A run of S steps with a total batch of B samples uses the positions 0 .. S·B - 1, once each. A position alone
says which item is drawn and with which random choices. So a run is the same for any number of devices and
workers, and one that continues at step s simply starts at position s·B.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """What a training data set is indexed with."""

    index: int  # type: ignore[assignment]  # a tuple has a method of this name
    """Which item of the data set."""
    seed: int
    """63-bit seed of every random choice that is made for this one sample."""


def mix(seed: int, *place: object) -> int:
    """A 63-bit seed for one place (an epoch, a position, a step) of the run with this seed.

    Different places give unrelated seeds; the same place gives the same seed in every process and version.
    """
    return random.Random("/".join(map(str, (seed, *place)))).getrandbits(63)


def order(length: int, *, repeat: int = 1, seed: int) -> torch.Tensor:
    """The items of one epoch: a permutation of `length * repeat` positions modulo `length`, int64.

    `repeat` > 1 shuffles several rounds over the data together. The official LPTN code uses `repeat=100` and
    the epoch's number as the seed.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(length * repeat, generator=generator) % length


class Batches(Sampler[list[Draw]]):
    """Batches number `first` to `last - 1` of an endless stream, seen by one of `world` equal processes.

    Batch b covers the positions b·size·world to (b + 1)·size·world - 1; the process `rank` takes every
    `world`-th of them.
    """

    def __init__(
        self,
        length: int,
        size: int,
        *,
        seed: int,
        first: int = 0,
        last: int,
        rank: int = 0,
        world: int = 1,
        repeat: int = 1,
    ) -> None:
        self.length, self.size, self.seed = length, size, seed
        self.first, self.last = first, last
        self.rank, self.world, self.repeat = rank, world, repeat

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch_length = self.length * self.repeat
        epoch, items = -1, torch.empty(0)
        for batch in range(self.first, self.last):
            start = batch * self.size * self.world + self.rank
            draws = []
            for position in range(start, start + self.size * self.world, self.world):
                if position // epoch_length != epoch:
                    epoch = position // epoch_length
                    items = order(self.length, repeat=self.repeat, seed=mix(self.seed, "epoch", epoch))
                draws.append(Draw(int(items[position % epoch_length]), mix(self.seed, "sample", position)))
            yield draws
