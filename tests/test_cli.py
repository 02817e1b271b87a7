"""The command line: what it prints, what it passes on, and how it refuses."""

import json
import os
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from cvpr21lib import cli, demos, papers, record, runs
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options

torch.set_num_threads(1)


@dataclass(frozen=True)
class Knobs:
    """The knobs of a paper made up for these tests."""

    arch: Literal["released", "paper"] = "released"
    """Which of the two architectures."""
    num_high: int = 3
    """Levels of the pyramid."""
    milestones: tuple[int, ...] = (5, 10)
    """Steps at which the learning rate halves."""


class Numbers(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, draw):
        return {"x": torch.tensor([float(draw.index)])}

    def fingerprint(self):
        return "eight numbers"


class Recipe(runs.Recipe):
    paper, steps, batch_size = "eps", 4, 2

    def __init__(self, knobs):
        self.knobs = knobs
        self.name = f"{knobs.arch}-L{knobs.num_high}"

    def settings(self):
        return record.plain(self.knobs)

    def networks(self):
        return {"model": nn.Linear(1, 1)}

    def optimizers(self, networks):
        return {"model": torch.optim.SGD(networks["model"].parameters(), lr=1e-3)}

    def data(self):
        return Numbers()

    def phases(self):
        return [runs.Phase("model", self.loss)]

    def loss(self, step):
        x = step.batch["x"]
        return runs.Loss({"mse": (step.networks["model"](x) - x).square().mean()})

    def evaluate(self, networks, fabric):
        return {"psnr": 21.5}


@pytest.fixture
def room(monkeypatch):
    """A room for the paper EPS, whose calls are noted in `room.seen`."""
    room = types.SimpleNamespace(Knobs=Knobs, seen=[])

    def recipe(options, knobs):
        room.seen.append((options, knobs))
        return Recipe(knobs)

    room.recipe = recipe
    monkeypatch.setitem(sys.modules, "cvpr21lib.eps.recipe", room)
    return room


@pytest.fixture
def refused(capsys):
    """Run a command line that must be refused: status 2, one message, no traceback. Returns the message."""

    def refused(*words):
        assert cli.main(words) == 2
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert not out
        return " ".join(err.replace("│", " ").split())

    return refused


# --- papers -----------------------------------------------------------------------------------------------


def test_papers_lists_all_eight_and_which_are_written(capsys):
    assert cli.main(["papers"]) == 0
    out = capsys.readouterr().out
    for paper in papers.all():
        assert paper.title in out
        assert (paper.notebook or "chapter not written yet") in out


def test_papers_prints_the_readmes_table(capsys):
    assert cli.main(["papers", "--markdown"]) == 0
    assert capsys.readouterr().out.strip() == papers.markdown_table().strip()


# --- run --------------------------------------------------------------------------------------------------


def test_run_passes_every_flag_on(room, tmp_path, capsys):
    words = "run eps --profile full --arch paper --num-high 4 --milestones 50 100 200 --seed 7 --max-steps 2"
    words += f" --data-root {tmp_path} --output-dir {tmp_path / 'out'} --workers 0 --no-progress"
    assert cli.main(words.split()) == 0
    [(options, knobs)] = room.seen
    assert knobs == Knobs("paper", 4, (50, 100, 200))
    assert options == Options(
        profile="full",
        seed=7,
        max_steps=2,
        data_root=tmp_path,
        output_dir=tmp_path / "out",
        workers=0,
        progress=False,
    )
    out = capsys.readouterr().out
    assert "eps paper-L4: full, seed 7, 2 steps" in out
    assert "21.5" in out
    assert str(tmp_path / "out" / "results.json") in out
    assert record.read(tmp_path / "out" / "results.json").numbers == {"psnr": 21.5}


def test_run_without_flags_uses_the_defaults(room, tmp_path, monkeypatch):
    monkeypatch.setenv("CVPR21_RUNS", str(tmp_path))
    assert cli.main(["run", "eps"]) == 0
    assert room.seen == [(Options(), Knobs())]
    assert (tmp_path / "eps" / "demo" / "released-L3-seed0" / "results.json").exists()


def test_names_may_be_spelt_as_in_the_notebook(room, tmp_path):
    assert cli.main(["run", "eps", "--output_dir", str(tmp_path), "--max_steps=1", "--num_high", "2"]) == 0
    assert room.seen == [(Options(output_dir=tmp_path, max_steps=1), Knobs(num_high=2))]


def test_run_help_explains_options_and_knobs(room, capsys):
    assert cli.main(["run", "eps", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--num-high INT Levels of the pyramid. [default: 3]" in out
    assert "Folder with the paper's data sets" in out
    assert "--resume --no-resume" in out


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID"])
def test_only_the_first_of_several_processes_prints_the_record(room, tmp_path, capsys, monkeypatch, variable):
    assert cli.main(["run", "eps", "--output-dir", str(tmp_path)]) == 0
    assert "21.5" in capsys.readouterr().out
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "1")
    assert cli.main(["run", "eps", "--output-dir", str(tmp_path)]) == 0  # finished: returned, not repeated
    assert capsys.readouterr().out == ""


def test_an_unwritten_chapter_says_so(refused):
    message = refused("run", "smurf")
    assert "the chapter on SMURF (smurf) is not written yet" in message
    assert "cvpr21 papers" in message


def test_a_room_whose_own_import_fails_is_not_called_unwritten(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'detectron'", name="detectron")

    monkeypatch.setattr(cli.importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError, match="detectron"):
        cli.main(["run", "eps"])


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("rum lptn", 'Did you mean "run"?'),
        ("run lptm", 'Did you mean "lptn"?'),
        ("run eps --devics 2", "Did you mean --devices?"),
        ("run eps --num-hihg 2", "Did you mean --num-high?"),
        ("run eps --arch newest", 'Choose from: "released", "paper"'),
        ("run eps --devices two", 'unable to convert "two" into int'),
        ("run eps --devices 0", "devices is 0; it must be a whole number of at least 1"),
        ("run eps --profile tiny", 'profile is \'tiny\'; it can be "demo" or "full"'),
        ("run eps --devices 4000", "devices is 4000, but this machine has"),
        ("run eps stray", "stray"),
        ("records lptm", "did you mean 'lptn'?"),
        ("records", "requires an argument"),
        ("translate a.png --weights b.pth", "--out"),
    ],
)
def test_what_is_misspelt_is_named_with_what_was_meant(room, refused, words, hint):
    assert hint in refused(*words.split())


def test_ctrl_c_leaves_with_130(room, monkeypatch, capsys):
    def interrupted(recipe, options):
        raise KeyboardInterrupt("stopped on request; the same call resumes from runs/eps")

    monkeypatch.setattr(runs, "run", interrupted)
    assert cli.main(["run", "eps"]) == 130
    assert "the same call resumes from runs/eps" in capsys.readouterr().err


def test_sigterm_leaves_with_143(room, monkeypatch):
    def terminated(recipe, options):
        raise SystemExit(143)

    monkeypatch.setattr(runs, "run", terminated)
    with pytest.raises(SystemExit) as leaving:
        cli.main(["run", "eps"])
    assert leaving.value.code == 143


def test_a_mistake_of_ours_is_not_dressed_up_as_bad_input(room, monkeypatch):
    monkeypatch.setattr(runs, "run", lambda recipe, options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "eps"])


# --- results and records ----------------------------------------------------------------------------------


def run_eps(folder, seed=0, arch="released"):
    assert cli.main(["run", "eps", "--output-dir", str(folder), "--seed", str(seed), "--arch", arch]) == 0


def test_results_shows_one_row_an_experiment(room, tmp_path, capsys):
    run_eps(tmp_path / "a", seed=0)
    run_eps(tmp_path / "b", seed=1)
    capsys.readouterr()
    assert cli.main(["results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert papers.get("eps").title in out
    [row] = [line for line in out.splitlines() if "released-L3" in line]
    assert "0 1" in row
    assert "21.5" in row


def test_results_looks_in_the_usual_places(room, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CVPR21_RUNS", raising=False)
    assert cli.main(["results"]) == 0
    assert "no finished run in runs, book/records" in capsys.readouterr().out
    run_eps(tmp_path / "runs" / "a")
    assert cli.main(["results"]) == 0
    assert "released-L3" in capsys.readouterr().out


def test_two_records_are_compared_entry_by_entry(room, tmp_path, capsys):
    run_eps(tmp_path / "a", seed=0)
    run_eps(tmp_path / "b", seed=1)
    capsys.readouterr()
    assert cli.main(["results", "--compare", str(tmp_path / "a"), str(tmp_path / "b" / "results.json")]) == 0
    assert "seed: 0 | 1" in capsys.readouterr().out.splitlines()
    assert cli.main(["results", "--compare", str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_results_of_a_missing_folder_or_damaged_record_are_refused(refused, tmp_path):
    assert "nowhere" in refused("results", str(tmp_path / "nowhere"))
    (tmp_path / "results.json").write_text("{")
    assert "damaged" in refused("results", "--compare", str(tmp_path), str(tmp_path))


def test_several_seeds_are_run_in_turn_and_their_mean_is_shown(room, tmp_path, capsys):
    words = ["run", "eps", "--seeds", "3", "5", "--output-dir", str(tmp_path), "--accelerator", "cpu"]
    assert cli.main([*words, "--no-progress"]) == 0
    assert [options.seed for options, _ in room.seen] == [3, 5]
    assert all((tmp_path / f"seed{seed}" / record.FILE_NAME).is_file() for seed in (3, 5))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "| 3 5 |" in line]
    assert "21.5 ± 0" in row


def test_records_are_made_again_over_the_seeds_asked_for(room, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CVPR21_RUNS", str(tmp_path / "runs"))
    room.ARMS = {"ours": Knobs(), "theirs": Knobs("paper")}
    # another process would not know this test's room
    monkeypatch.setattr(demos, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(1))
    assert cli.main(["records", "eps", "--folder", str(tmp_path), "--seeds", "0", "3"]) == 0
    made = record.read_many(tmp_path / "eps" / "demo.json")
    assert [(one.name, one.seed) for one in made] == [("ours", 0), ("theirs", 0), ("ours", 3), ("theirs", 3)]
    assert str(tmp_path / "eps" / "demo.json") in capsys.readouterr().out


def test_records_of_an_unwritten_chapter_are_refused(refused):
    assert "not written yet" in refused("records", "smurf")


# --- the process ------------------------------------------------------------------------------------------


def python(*words, **environment):
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        cwd=Path(__file__).parents[1],
        check=False,
    )


@pytest.mark.parametrize(
    "code",
    [
        "import cvpr21lib",
        "import cvpr21lib.cli",
        "from cvpr21lib import cli; cli.main(['--help'])",
        "from cvpr21lib import cli; cli.main(['run', '--help'])",
        "from cvpr21lib import cli; cli.main(['papers'])",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    heavy = ["torch", "numpy", "PIL", "cv2", "skimage", "lightning_fabric", "matplotlib"]
    done = python(
        "-c", f"{code}\nimport json, sys\nprint(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_module_is_the_command():
    assert "Eight CVPR 2021 papers" in python("-m", "cvpr21lib", "--help").stdout
    done = python("-m", "cvpr21lib", "translate", "gone.png", "--weights", "w.pth", "--out", "out.png")
    assert done.returncode == 2
    assert done.stderr == "cvpr21: gone.png does not exist; name an image file\n"


def test_an_input_error_of_any_room_ends_the_command(room, monkeypatch, refused):
    def recipe(options, knobs):
        raise InputError("no data set FiveK in data; run data_scripts")

    monkeypatch.setattr(room, "recipe", recipe)
    assert refused("run", "eps") == "cvpr21: no data set FiveK in data; run data_scripts"
