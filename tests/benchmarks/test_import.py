"""How long one waits before anything happens; each number is the best of a few fresh interpreters."""

import subprocess
import sys

import pytest


def seconds(code: str) -> float:
    """Wall time of `code` inside a fresh interpreter, without the interpreter's own start."""
    timed = f"import time\nstart = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("code", "limit"),
    [("import cvpr21lib", 0.1), ("import cvpr21lib.cli", 0.5)],
    ids=["library", "command line"],
)
def test_importing_is_quick(benchmark, code, limit):
    best = min(seconds(code) for _ in range(3))  # the first may compile bytecode
    benchmark.extra_info["import_seconds"] = best
    benchmark.pedantic(seconds, args=(code,), rounds=1)
    assert best < limit
