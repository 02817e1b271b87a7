"""A chapter's notebook takes parameters from papermill, and shows what other ways of running left behind."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from cvpr21lib import papers, record, runs
from cvpr21lib.options import Options
from tests.ctrl_uda.conftest import miniature_streets  # noqa: F401  (a fixture, as those below)
from tests.eopsn.conftest import _prepared, miniature_coco2017  # noqa: F401
from tests.eps.conftest import miniature_voc  # noqa: F401
from tests.ppr10k import miniature

ROOT = Path(__file__).parents[1]
LPTN = ROOT / "notebooks" / "01_lptn.ipynb"
SMALL = {"width": 4, "crop": 64, "batch_size": 2, "workers": 0, "max_steps": 2}


def execute(notebook: Path, out: Path, **parameters):
    return papermill.execute_notebook(
        notebook, out, parameters, cwd=notebook.parent, progress_bar=False, kernel_name="python3"
    )


def tables(notebook) -> str:
    """All tables that an executed notebook shows."""
    return "".join(
        output["data"].get("text/markdown", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    )


def test_the_notebook_at_full_scale_shows_what_torchrun_left_behind(tmp_path, miniature_fivek):
    data, run = miniature_fivek(), tmp_path / "run"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "cvpr21lib", "run", "lptn", "--profile=full", f"--data-root={data}"]
    done = subprocess.run(
        [*command, f"--output-dir={run}", "--accelerator=cpu", *flags],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = record.read(run / record.FILE_NAME)
    before = (run / record.FILE_NAME).stat().st_mtime_ns

    notebook = execute(
        LPTN, tmp_path / "out.ipynb", profile="full", data_root=str(data), output_dir=str(run), **SMALL
    )

    assert (run / record.FILE_NAME).stat().st_mtime_ns == before
    assert f"{made.numbers['psnr']:.3f}" in tables(notebook)


@pytest.mark.parametrize("chapter", ["ppr10k", "eps", "eopsn", "ctrl_uda"])
def test_a_chapter_at_full_scale_shows_the_run_that_was_made_elsewhere(tmp_path, request, chapter):
    if chapter == "ppr10k":
        data, number = miniature.prepared(tmp_path / "data"), "psnr"
        knobs = {"glc": False, "expert": "a", "backbone": "light", "pretrained": False, "lut_size": 5}
    elif chapter == "eps":
        data, number = request.getfixturevalue("miniature_voc")(), "miou"
        knobs = {"width_div": 64, "pretrained": False}
    elif chapter == "eopsn":
        data, number = request.getfixturevalue("miniature_coco2017")(), "known/pq"
        knobs = {"method": "suppression", "weights": "random", "width_div": 16, "side": 64}
    else:
        data, number = request.getfixturevalue("miniature_streets")(), "best_miou"
        knobs = {"experiment": 3, "method": "source", "init_weights": "random", "width_div": 64}
    knobs["batch_size"] = 2
    place = {
        "profile": "full",
        "data_root": data,
        "output_dir": tmp_path / "run",
        "workers": 0,
        "max_steps": 1,
    }
    options = Options(**place, accelerator="cpu", progress=False)
    recipe = importlib.import_module(f"cvpr21lib.{chapter}.recipe")
    made = runs.run(recipe.recipe(options, recipe.Knobs(**knobs)), options)
    before = (tmp_path / "run" / record.FILE_NAME).stat().st_mtime_ns

    given = {name: str(value) if isinstance(value, Path) else value for name, value in place.items()}
    path = ROOT / papers.get(chapter).notebook
    notebook = execute(path, tmp_path / "out.ipynb", **given, **knobs)

    assert (tmp_path / "run" / record.FILE_NAME).stat().st_mtime_ns == before
    assert f"{made.numbers[number]:.2f}" in tables(notebook)


def test_a_parameter_that_does_not_exist_stops_the_notebook_at_once(tmp_path):
    with pytest.raises(PapermillExecutionError, match=r"no parameter 'sede'; did you mean seed\?"):
        execute(LPTN, tmp_path / "out.ipynb", sede=3)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_every_chapter_has_the_contracts_parameters(path):
    parameters = papermill.inspect_notebook(path)
    wanted = "profile data_root output_dir seed devices num_nodes precision max_steps resume"
    assert set(wanted.split()) <= parameters.keys()
    assert parameters["profile"]["default"] == '"demo"'
