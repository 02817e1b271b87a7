"""PPR10K's colour measures beside scikit-image's conversion, on one thread: same process, same photograph."""

from __future__ import annotations

import time

import pytest
from skimage.color import deltaE_cie76, rgb2lab

from cvpr21lib.ppr10k import metrics
from tests.conftest import photograph

SIZES = {"360p": (360, 540), "1080p": (1080, 1920)}
ROUNDS = {"360p": 9, "1080p": 3}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("size", SIZES)
def test_all_measures_of_a_photograph_beside_scikit_image_s_delta_e_alone(benchmark, capsys, size):
    pred, target = (photograph(seed, *SIZES[size]) for seed in (0, 1))
    theirs = []

    def scikit_image() -> float:
        return deltaE_cie76(rgb2lab(pred), rgb2lab(target)).mean()

    def theirs_first() -> None:
        start = time.process_time()
        scikit_image()
        theirs.append(time.process_time() - start)

    assert metrics.delta_e(pred, target) == pytest.approx(scikit_image(), abs=0.01)
    benchmark.pedantic(metrics.measure, (pred, target), setup=theirs_first, rounds=ROUNDS[size])
    ours = benchmark.stats.stats.min
    benchmark.extra_info.update(reference_s=round(min(theirs), 4), ratio=round(min(theirs) / ours, 2))
    with capsys.disabled():
        print(f"\n{size}: {ours:.4f} s against {min(theirs):.4f} s, {min(theirs) / ours:.1f} times faster")
