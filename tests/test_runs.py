"""Runs resume to the same numbers, on any number of devices, and never leave anything half done."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cvpr21lib import launch, record, runs, scalars
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from tests.toy import Toy

ROOT = Path(__file__).resolve().parents[1]


def options(folder: Path, **changes) -> Options:
    return Options(output_dir=folder, accelerator="cpu", progress=False, log_every=1, **changes)


def final(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value
        for name, network in runs.weights(Toy(), folder).items()
        for key, value in network.state_dict().items()
    }


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], **tolerance) -> None:
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], **(tolerance or {"rtol": 0, "atol": 0}))


def python(code: str, *words: str, **keywords) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words, "-c", code] if code else [sys.executable, *words],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords,
    )  # fmt: skip


RUN_TOY = """
from pathlib import Path
from cvpr21lib import runs
from cvpr21lib.options import Options
from tests.toy import Toy
common = dict(accelerator="cpu", progress=False, log_every=1)
runs.run(Toy({recipe}), Options(output_dir=Path({folder!r}), **common, {options}))
"""


def test_a_run_repeats_bit_for_bit_and_another_seed_differs(tmp_path):
    first = runs.run(Toy(), options(tmp_path / "a"))
    second = runs.run(Toy(), options(tmp_path / "b"))
    other = runs.run(Toy(), options(tmp_path / "c", seed=1))
    assert first.numbers == second.numbers != other.numbers
    assert_same(final(tmp_path / "a"), final(tmp_path / "b"))


def test_the_loops_numbers_are_those_of_its_version(tmp_path):
    """A change that is meant to change numbers raises `runs.LOOP`, and writes the new ones here."""
    assert runs.LOOP == 1
    made = runs.run(Toy(), options(tmp_path))
    assert made.numbers["error"] == pytest.approx(0.6166973, rel=1e-3)
    distance = [2.359929, 2.326651, 0.840022, 1.430174, 0.777298, 0.619238]
    assert scalars.read(tmp_path, "distance")[1][:6] == pytest.approx(distance, rel=1e-3)


def test_a_run_cut_by_max_steps_continues_to_the_numbers_of_an_unbroken_one(tmp_path):
    whole = runs.run(Toy(), options(tmp_path / "whole"))
    part = runs.run(Toy(), options(tmp_path / "parts", max_steps=7))
    assert part.steps == 7
    assert part.numbers != whole.numbers
    resumed = runs.run(Toy(), options(tmp_path / "parts"))
    assert resumed.steps == 12
    assert resumed.numbers == whole.numbers
    assert_same(final(tmp_path / "parts"), final(tmp_path / "whole"))
    for curve in ("distance", "penalty", "lr_g"):
        assert scalars.read(tmp_path / "parts", curve) == scalars.read(tmp_path / "whole", curve)


def test_a_run_killed_at_a_random_moment_resumes_to_the_same_numbers(tmp_path):
    whole = runs.run(Toy(steps=40), options(tmp_path / "whole"))
    folder = tmp_path / "killed"
    code = RUN_TOY.format(recipe="steps=40, slow=0.01", folder=str(folder), options="checkpoint_every=3")
    process = python(code)
    wanted = random.randint(1, 10)
    while len(scalars.read(folder, "distance")[0]) < 3 * wanted and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / record.FILE_NAME).exists()
    resumed = runs.run(Toy(steps=40), options(folder))
    assert resumed.numbers == whole.numbers
    assert scalars.read(folder, "distance") == scalars.read(tmp_path / "whole", "distance")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_leaves_cleanly(tmp_path, number):
    whole = runs.run(Toy(), options(tmp_path / "whole"))
    folder = tmp_path / "stopped"
    recipe = f"signal_at=6, signal_number={int(number)}"
    process = python(RUN_TOY.format(recipe=recipe, folder=str(folder), options=""))
    _, error = process.communicate(timeout=120)
    assert process.returncode == 143 if number == signal.SIGTERM else "KeyboardInterrupt: stopped" in error
    assert "resumes" in error
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())][-1] == "step_00000007.pt"
    assert runs.run(Toy(), options(folder)).numbers == whole.numbers


def test_a_finished_run_is_returned_not_repeated(tmp_path):
    first = runs.run(Toy(), options(tmp_path))
    before = (tmp_path / record.FILE_NAME).stat().st_mtime_ns
    assert runs.run(Toy(bad_at=0), options(tmp_path)) == first  # would stop at once if it trained
    assert (tmp_path / record.FILE_NAME).stat().st_mtime_ns == before


def test_resume_false_replaces_a_run(tmp_path):
    runs.run(Toy(), options(tmp_path, max_steps=6))
    again = runs.run(Toy(lr=0.01), options(tmp_path, resume=False))
    assert again.steps == 12
    assert again.settings["recipe"]["lr"] == 0.01
    assert scalars.read(tmp_path, "distance")[0] == list(range(1, 13))


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path):
    runs.run(Toy(), options(tmp_path, max_steps=2))
    with pytest.raises(InputError, match=r"recipe\.lr: 0\.05 there, 0\.1 asked for"):
        runs.run(Toy(lr=0.1), options(tmp_path))
    with pytest.raises(InputError, match="seed: 0 there, 3 asked for"):
        runs.run(Toy(), options(tmp_path, seed=3))


def test_accumulated_batches_give_the_whole_batchs_step(tmp_path):
    recipe = Toy(dropout=0.0)
    runs.run(recipe, options(tmp_path / "whole"))
    runs.run(recipe, options(tmp_path / "parts", accumulate=2))
    assert_same(final(tmp_path / "whole"), final(tmp_path / "parts"), rtol=1e-5, atol=1e-6)


def test_loader_processes_do_not_change_a_run(tmp_path):
    runs.run(Toy(), options(tmp_path / "none"))
    runs.run(Toy(), options(tmp_path / "two", workers=2))
    assert_same(final(tmp_path / "none"), final(tmp_path / "two"))


def test_two_processes_agree_with_one(tmp_path):
    recipe = Toy(dropout=0.0)
    one = runs.run(recipe, options(tmp_path / "one"))
    two = runs.run(recipe, options(tmp_path / "two", devices=2))
    assert two.numbers["error"] == pytest.approx(one.numbers["error"], rel=1e-5)
    assert_same(final(tmp_path / "one"), final(tmp_path / "two"), rtol=1e-4, atol=1e-6)
    for step, (a, b) in enumerate(
        zip(*(scalars.read(tmp_path / n, "critic")[1] for n in ("one", "two")), strict=True)
    ):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6), f"step {step + 1}"


def test_torchrun_reaches_the_same_record(tmp_path):
    recipe = Toy(dropout=0.0)
    one = runs.run(recipe, options(tmp_path / "one"))
    script = tmp_path / "script.py"
    script.write_text(RUN_TOY.format(recipe="dropout=0.0", folder=str(tmp_path / "two"), options=""))
    process = python("", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script))
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    two = record.read(tmp_path / "two" / record.FILE_NAME)
    assert two.numbers["error"] == pytest.approx(one.numbers["error"], rel=1e-5)
    differences = {d.entry for d in record.compare(one, two) if not d.entry.startswith("curves.")}
    ours = differences - {
        "wall_time_s",
        "finished",
        "hardware.threads",
        "git_commit",
    }
    assert ours <= {"numbers.error", "settings.run.output_dir"}


def test_a_run_continues_on_another_number_of_devices(tmp_path):
    recipe = Toy(dropout=0.0)
    one = runs.run(recipe, options(tmp_path / "one"))
    runs.run(recipe, options(tmp_path / "mixed", max_steps=5))
    mixed = runs.run(recipe, options(tmp_path / "mixed", devices=2))
    assert mixed.numbers["error"] == pytest.approx(one.numbers["error"], rel=1e-5)


def test_two_devices_work_inside_a_notebook_that_computed_before(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    before = "import torch; x = torch.randn(64, 3, 64, 64); torch.nn.Conv2d(3, 32, 3)(x).sum().item()"
    code = RUN_TOY.format(recipe="dropout=0.0", folder=str(tmp_path / "two"), options="devices=2")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in (before, code)]
    )
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(ROOT)}}).execute()
    one = runs.run(Toy(dropout=0.0), options(tmp_path / "one"))
    two = record.read(tmp_path / "two" / record.FILE_NAME)
    assert two.numbers["error"] == pytest.approx(one.numbers["error"], rel=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_non_finite_loss_stops_with_step_name_and_checkpoint(tmp_path, devices):
    recipe = Toy(bad_at=3)
    step = 1 + next(
        number
        for number, draws in enumerate(runs.Batches(12, 4, seed=0, last=12))
        if any(draw.index == 3 for draw in draws)
    )
    with pytest.raises(runs.NonFiniteLoss, match=rf"step {step} of toy: distance = nan.*none yet"):
        runs.run(recipe, options(tmp_path, devices=devices))


def test_a_non_finite_loss_names_the_last_good_checkpoint(tmp_path):
    runs.run(Toy(), options(tmp_path, max_steps=5))
    with pytest.raises(runs.NonFiniteLoss, match=r"Last good checkpoint: .*step_00000005\.pt"):
        runs.run(replace(Toy(), bad_at=3), options(tmp_path))


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path):
    whole = runs.run(Toy(), options(tmp_path / "whole"))
    folder = tmp_path / "damaged"
    runs.run(Toy(), options(folder, max_steps=10))
    (folder / record.FILE_NAME).unlink()
    newest = folder / "checkpoints" / "step_00000010.pt"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"step_00000010\.pt is damaged"):
        resumed = runs.run(Toy(), options(folder))
    assert resumed.numbers == whole.numbers


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    runs.run(Toy(), options(tmp_path, max_steps=10))
    (tmp_path / record.FILE_NAME).unlink()
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(InputError, match="resume=False"):
        runs.run(Toy(), options(tmp_path))


def test_a_full_disk_is_one_clear_error_and_leaves_the_last_checkpoint_whole(tmp_path):
    runs.run(Toy(), options(tmp_path, max_steps=5))
    (tmp_path / record.FILE_NAME).unlink()

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    process = python(RUN_TOY.format(recipe="", folder=str(tmp_path), options=""), preexec_fn=small_files_only)
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0
    last_line = error.strip().splitlines()[-1]
    assert "InputError: cannot write to" in last_line
    assert "step_00000005.pt" in last_line
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000005.pt"]
    whole = runs.run(Toy(), options(tmp_path / "whole"))
    assert runs.run(Toy(), options(tmp_path)).numbers == whole.numbers


def test_an_output_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write to .*choose another output_dir"):
        runs.run(Toy(), options(tmp_path / "file" / "run"))


def test_an_output_folder_that_vanishes_is_one_clear_error(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    save = runs._Running.save

    def vanish(self, seconds):
        shutil.rmtree(folder)
        save(self, seconds)

    monkeypatch.setattr(runs._Running, "save", vanish)
    with pytest.raises(InputError, match=r"cannot write to .*the folder is not there"):
        runs.run(Toy(), options(folder))


def test_more_devices_than_there_are_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"devices is 4096, but this machine has \d+ processor cores"):
        runs.run(Toy(), options(tmp_path, devices=4096))
    with pytest.raises(InputError, match="torchrun or srun"):
        runs.run(Toy(), options(tmp_path, num_nodes=2))


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(InputError, match="batch of 4 samples does not divide by 1 device"):
        runs.run(Toy(), options(tmp_path, accumulate=3))


def test_a_finished_run_made_by_other_code_is_pointed_out(tmp_path):
    class Sourced(Toy):
        sources = (launch,)

    runs.run(Toy(), options(tmp_path))
    with pytest.warns(UserWarning, match="other code than today's"):
        runs.run(Sourced(), options(tmp_path))


def test_the_record_says_what_one_must_know(tmp_path):
    made = runs.run(Toy(), options(tmp_path))
    assert made == record.read(tmp_path / record.FILE_NAME)
    assert made.fingerprints["data"] == "points"
    assert made.settings["run"]["max_steps"] is None
    assert made.settings["recipe"]["lr"] == 0.05
    assert made.versions["torch"] == torch.__version__.split("+")[0]
    assert made.curves["distance"] == [
        list(range(1, 13)),
        pytest.approx(scalars.read(tmp_path, "distance")[1], rel=1e-4),
    ]
    assert made.steps == 12
    assert made.wall_time_s > 0


def test_a_records_curves_are_thinned_and_keep_the_last_point(tmp_path):
    with scalars.Scalars(tmp_path) as writer:
        for step in range(1, 124):
            writer.write(step, {"loss": 1 / step})
    steps, values = scalars.curves(tmp_path, most=50)["loss"]
    assert len(steps) == len(values) <= 50
    assert steps[-1] == 123
    assert values[-1] == pytest.approx(1 / 123, rel=1e-4)


def test_curves_that_cannot_be_written_are_one_clear_error(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with scalars.Scalars(tmp_path) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(InputError, match=r"cannot write .*scalars\.csv: File too large.*resumes"):
                writer.write(1, {f"loss {number}": 0.5 for number in range(100)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
