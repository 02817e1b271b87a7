"""`make outputs`: run the notebooks as they stand, and keep in them what came out (`make book` shows that).

Without times and without this machine's paths, so that only what a chapter says makes a difference.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def main(names: list[str]) -> None:
    """Run the named notebooks, or all of them."""
    for path in sorted(map(Path, names) if names else NOTEBOOKS.glob("*.ipynb")):
        print(path.name, flush=True)
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as runs:
            os.environ["CVPR21_RUNS"] = runs
            client = NotebookClient(
                notebook,
                kernel_name="python3",
                record_timing=False,
                resources={"metadata": {"path": path.parent}},
            )
            client.execute()
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
