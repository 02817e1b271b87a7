"""What the comparisons of speed share."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def against(benchmark, capsys) -> Callable[..., None]:
    """Time `ours` and `reference` in turns; print and keep how many times faster ours is."""

    def run(label: str, ours: Callable, reference: Callable, rounds: int, timer: Callable[[], float]) -> None:
        taken = []

        def reference_first() -> None:
            start = timer()
            reference()
            taken.append(timer() - start)

        benchmark.pedantic(ours, setup=reference_first, rounds=rounds)
        seconds, ratio = benchmark.stats.stats.min, min(taken) / benchmark.stats.stats.min
        benchmark.extra_info.update(reference_s=round(min(taken), 4), ratio=round(ratio, 2))
        with capsys.disabled():
            print(f"\n{label}: {seconds:.4f} s against {min(taken):.4f} s, {ratio:.2f} times faster")

    return run
