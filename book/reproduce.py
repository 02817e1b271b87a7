"""`make reproduce`: run every chapter at the demo profile, and build the book from what was just computed.

A copy of the book's sources is laid out in `_build/reproduce`, with executed notebooks in place of the
stored ones and the records of their runs in `runs`; the notebooks in `notebooks` stay as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import papermill

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "_build" / "reproduce"
PAGES = ROOT / "_build" / "html"


def main() -> int:
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.rmtree(PAGES, ignore_errors=True)
    os.environ["CVPR21_RUNS"] = str(SOURCE / "runs")
    lay_out()
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for number, notebook in enumerate(notebooks, 1):
        print(f"[{number}/{len(notebooks)}] {notebook.name}", flush=True)
        started = time.monotonic()
        try:
            execute(notebook)
        except papermill.exceptions.PapermillExecutionError as error:
            print(
                f"{error}\n{notebook.name} stopped; its copy so far: {SOURCE / 'notebooks' / notebook.name}"
            )
            return 1
        print(f"      done in {time.monotonic() - started:.0f} s", flush=True)
    if build() != 0:
        return 1
    print(
        f"\nThe records of the runs are in {SOURCE.relative_to(ROOT) / 'runs'}. To read the book, type\n\n"
        f"    python3 -m http.server --bind 127.0.0.1 --directory {PAGES.relative_to(ROOT)} 8000\n\n"
        "and open http://127.0.0.1:8000 in a browser."
    )
    return 0


def lay_out() -> None:
    """Copy the book's sources, without the notebooks, to where the executed notebooks will join them."""
    (SOURCE / "notebooks").mkdir(parents=True)
    (SOURCE / "runs").mkdir()
    for name in ("_config.yml", "_toc.yml", "README.md"):
        shutil.copy(ROOT / name, SOURCE)
    shutil.copytree(ROOT / "book", SOURCE / "book", ignore=shutil.ignore_patterns("__pycache__"))


def execute(notebook: Path) -> None:
    """Run one notebook with its own parameters, which are the demo's, where Jupyter would run it."""
    papermill.execute_notebook(
        notebook, SOURCE / "notebooks" / notebook.name, cwd=notebook.parent, progress_bar=True
    )


def build() -> int:
    program = Path(sys.executable).with_name("jupyter-book")
    command = [
        program,
        "build",
        SOURCE,
        "--path-output",
        ROOT,
        "--all",
        "--quiet",
        "--warningiserror",
        "--keep-going",
    ]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
