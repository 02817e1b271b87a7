"""How the cost of LPTN, and of the same CNN at full resolution, grows with the photograph (width 16)."""

from __future__ import annotations

import time

import pytest
import torch

from cvpr21lib.lptn.model import LPTN, FullResolution

SIZES = {"480p": (480, 720), "1080p": (1080, 1920)}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("size", SIZES)
def test_lptn_and_the_full_resolution_network(benchmark, capsys, size):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    networks = {
        "full resolution": FullResolution(nrb_low=3, width=16),
        **{f"LPTN L={levels}": LPTN(levels, nrb_low=3, nrb_high=2, width=16) for levels in (1, 2, 3, 4, 5)},
    }
    image, seconds = torch.rand(1, 3, *SIZES[size]), {}
    with torch.inference_mode():
        for name, network in networks.items():
            rounds = []
            for _ in range(2):
                start = time.process_time()
                network(image)
                rounds.append(time.process_time() - start)
            seconds[name] = min(rounds)
        benchmark.pedantic(networks["LPTN L=3"], args=(image,), rounds=2)
    torch.set_num_threads(threads)
    benchmark.extra_info.update({name: round(value, 3) for name, value in seconds.items()})
    with capsys.disabled():
        listed = ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
        ratio = seconds["full resolution"] / seconds["LPTN L=3"]
        print(f"\n{size}, width 16: {listed}; LPTN L=3 is {ratio:.1f} times faster")
