"""Both stages run on miniatures of the official layouts, resume, and keep the best model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import load_file

from cvpr21lib import record, runs, scalars
from cvpr21lib.ctrl_uda import isl, weights
from cvpr21lib.ctrl_uda import recipe as ctrl
from cvpr21lib.ctrl_uda.recipe import EXPERIMENTS, Best, Experiment, Knobs
from cvpr21lib.ctrl_uda.step import METHODS
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.sampling import Draw
from cvpr21lib.segmentation import metrics

torch.set_num_threads(1)

SMALL = {"experiment": 3, "init_weights": "random", "width_div": 32, "lr": 1e-2}


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The experiments as they are, but for images of 64 x 48 and 64 x 32 pixels."""
    small = {n: replace(e, source_size=(64, 48), target_size=(64, 32)) for n, e in EXPERIMENTS.items()}
    monkeypatch.setattr(ctrl, "EXPERIMENTS", small)


def options(folder: Path, data_root: Path | None, **changes: object) -> Options:
    return Options(
        output_dir=folder,
        data_root=data_root,
        **({"profile": "full", "workers": 0, "max_steps": 2, "accelerator": "cpu", "progress": False,
            "log_every": 1} | changes),
    )  # fmt: skip


def run(options: Options, **knobs: object) -> record.Record:
    return runs.run(ctrl.recipe(options, Knobs(**(SMALL | knobs))), options)


def self_learn(options: Options, **knobs: object) -> record.Record:
    return runs.run(isl.recipe(options, isl.Knobs(**({"experiment": 3, "lr": 1e-2} | knobs))), options)


@pytest.mark.parametrize("method", METHODS)
def test_two_steps_of_each_method_end_in_a_record(tmp_path, miniature_streets, method):
    made = run(options(tmp_path / "run", miniature_streets(), workers=1), method=method)
    assert (made.name, made.steps) == (f"{method}-cityscapes7-low", 2)
    assert 0 <= made.numbers["miou"] <= made.numbers["best_miou"] <= 100
    assert made.settings["recipe"]["model_selection"].startswith("by mIoU on the target's validation images")
    losses = {"seg"}
    losses |= {"depth"} if METHODS[method].depth else set()
    losses |= {"srh"} if METHODS[method].refined else set()
    losses |= {"adv", "d_source", "d_target"} if METHODS[method].space != "none" else set()
    names = {line.split(",")[1] for line in (tmp_path / "run/scalars.csv").read_text().splitlines()[1:]}
    assert names & {"seg", "depth", "srh", "adv", "d_source", "d_target"} == losses
    first = scalars.read(tmp_path / "run", "seg")[1][0]
    assert first == pytest.approx(np.log(7), abs=0.1)  # knows nothing yet


def test_depth_is_read_where_the_method_learns_it(tmp_path, miniature_streets):
    root = miniature_streets()
    for method, (depth, _, _) in METHODS.items():
        made = ctrl.recipe(options(tmp_path, root), Knobs(**(SMALL | {"method": method})))
        assert ("depth" in made.training[Draw(0, 0)]) == depth


@pytest.mark.parametrize("number", EXPERIMENTS)
def test_every_experiment_runs(tmp_path, miniature_streets, number):
    made = run(options(tmp_path / "run", miniature_streets(), max_steps=1), experiment=number)
    assert ("miou13" in made.numbers) == (number == 1)
    assert made.name.removeprefix("ctrl-") == (
        "cityscapes16-full", "cityscapes7-full", "cityscapes7-low", "mapillary7-full", "mapillary7-low",
    )[number - 1]  # fmt: skip


def test_the_experiments_are_the_official_ones():
    low, full = (640, 320), (1280, 760)
    assert {
        1: Experiment("cityscapes", 16, "full", full, (1024, 512), 55_000, 20_000),
        2: Experiment("cityscapes", 7, "full", full, (1024, 512), 45_000, 5_000),
        3: Experiment("cityscapes", 7, "low", low, low, 45_000, 5_000),
        4: Experiment("mapillary", 7, "full", full, (1024, 768), 20_000, 10_000),
        5: Experiment("mapillary", 7, "low", low, low, 20_000, 10_000),
    } == EXPERIMENTS


def test_a_run_that_was_stopped_resumes_to_the_same_numbers(tmp_path, miniature_streets):
    """With the best model so far, which is from before the interruption or after it."""
    root = miniature_streets()
    knobs = {"evaluate_every": 1, "bins": "SID2"}
    whole = run(options(tmp_path / "whole", root, max_steps=4), **knobs)
    run(options(tmp_path / "parts", root, max_steps=2), **knobs)
    assert run(options(tmp_path / "parts", root, max_steps=4), **knobs).numbers == whole.numbers
    for name in ("net", "best", "discriminator"):
        one, two = (load_file(tmp_path / folder / f"{name}.safetensors") for folder in ("whole", "parts"))
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def test_the_best_model_of_all_evaluations_is_kept(tmp_path, miniature_streets):
    made = run(options(tmp_path / "run", miniature_streets(), max_steps=6), evaluate_every=1)
    _, values = scalars.read(tmp_path / "run", "miou")
    assert len(values) == 6
    assert made.numbers["best_miou"] == pytest.approx(max(values))
    recipe = ctrl.recipe(options(tmp_path / "run", tmp_path / "data"), Knobs(**SMALL))
    best = weights.open_network(tmp_path / "run/best.safetensors")
    fresh = Best(7, 32, recipe.experiment.scores)
    fabric = Fabric(accelerator="cpu", devices=1)
    again = ctrl.evaluate({"net": best, "best": fresh}, recipe.validation, recipe.experiment, fabric)
    assert again["miou"] == pytest.approx(made.numbers["best_miou"])


def test_two_processes_are_two_accumulated_batches(tmp_path, miniature_streets):
    """Batch norm sees what is on one device at a time. So one batch of two is something else (below)."""
    root = miniature_streets()
    for name, how in {"two": {"devices": 2}, "parts": {"accumulate": 2}, "one": {}}.items():
        run(options(tmp_path / name, root, precision="64-true", **how), batch_size=2, method="mtl+advent")
    for loss in ("seg", "depth", "srh", "adv", "d_source", "d_target"):
        two, parts = (scalars.read(tmp_path / name, loss)[1] for name in ("two", "parts"))
        assert two == pytest.approx(parts, rel=1e-6), loss
    one = scalars.read(tmp_path / "one", "seg")[1]
    assert one != pytest.approx(parts, rel=1e-6)


def test_self_learning_moves_neither_depth_nor_refinement(tmp_path, miniature_streets):
    root = miniature_streets()
    run(options(tmp_path / "first", root))
    start = tmp_path / "first/best.safetensors"
    made = self_learn(options(tmp_path / "isl", root), start=start, isl_threshold=0.15)
    assert made.name == "isl-cityscapes7-low"
    before, after = load_file(start), load_file(tmp_path / "isl/net.safetensors")
    moved = {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"backbone", "decoder", "head_seg"}
    assert scalars.read(tmp_path / "isl", "labelled")[1][0] > 0


def test_the_teacher_changes_when_its_period_is_over_and_is_resumed(tmp_path, miniature_streets):
    root = miniature_streets()
    run(options(tmp_path / "first", root))
    knobs = {"start": tmp_path / "first/net.safetensors", "isl_threshold": 0.15, "isl_period": 2}
    whole = self_learn(options(tmp_path / "whole", root, max_steps=6), **knobs)
    folders = sorted((tmp_path / "whole/pseudo_labels").iterdir())
    assert len(folders) == 3  # of the start, and of the network before the steps 3 and 5
    for steps in (3, 4, 6):
        parts = self_learn(options(tmp_path / "parts", root, max_steps=steps), **knobs)
    assert parts.numbers == whole.numbers
    assert sorted(path.name for path in (tmp_path / "parts/pseudo_labels").iterdir()) == [
        folder.name for folder in folders
    ]
    label = Image.open(next(folders[0].glob("**/*.png")))
    assert (label.mode, label.size) == ("P", (64, 32))


@pytest.mark.parametrize(
    ("period", "number", "expected"),
    [(10_000, 0, False), (10_000, 1, False), (10_000, 10_000, False), (10_000, 10_001, True),
     (10_000, 20_001, True), (0, 10_001, False), (1, 1, False), (1, 2, True), (2, 3, True), (2, 4, False)],
)  # fmt: skip
def test_labels_are_made_anew_at_the_official_steps(period, number, expected):
    assert isl.Teacher(Path(), 0.9, period, 7).is_replaced_before(number) == expected


def test_self_learning_needs_the_network_of_its_experiment(tmp_path, miniature_streets):
    root = miniature_streets()
    run(options(tmp_path / "first", root))
    with pytest.raises(InputError, match="for 7 classes, and experiment 1 has 16"):
        self_learn(options(tmp_path / "isl", root), start=tmp_path / "first/net.safetensors", experiment=1)
    with pytest.raises(InputError, match="start is not set"):
        self_learn(options(tmp_path / "isl", root))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"experiment": None}, r"experiment is None; it decides classes and resolution, and can be 1 \(city"),
        ({"experiment": 6}, "experiment is 6"),
        ({"method": "fda"}, "method is 'fda'; it can be source, mtl, advent"),
        ({"bins": "log"}, "bins is 'log'; it can be SID, SID2"),
        ({"backbone_repeat": "none"}, "backbone_repeat is 'none'; it can be official, once"),
        ({"num_depth_bins": 1}, "num_depth_bins is 1"),
        ({"lambda_adv": -1.0}, "lambda_adv is -1.0"),
        ({"early_stop": 90_001}, "beyond max_iters"),
        ({"early_stop": 0}, "early_stop is 0"),
        ({"init_weights": None}, "put DeepLab_resnet_pretrained_imagenet.pth there"),
        ({"init_weights": "nowhere.pth"}, "there are no weights at nowhere.pth"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(tmp_path, miniature_streets, knobs, message):
    with pytest.raises(InputError, match=message):
        ctrl.recipe(options(tmp_path, miniature_streets()), Knobs(**(SMALL | knobs)))


def test_in_the_demo_only_the_method_can_be_chosen():
    assert ctrl.recipe(Options(), Knobs(method="advent")).settings()["method"] == "advent"
    with pytest.raises(InputError, match=r'the demo has no experiment, lr; set profile to "full"'):
        ctrl.recipe(Options(), Knobs(experiment=1, lr=0.1))


@pytest.mark.parametrize("folder", ["Synthia", "Cityscapes"])
def test_a_domain_without_images_is_named(tmp_path, miniature_streets, folder):
    root = miniature_streets()
    for path in (root / folder).glob("**/*.png"):
        path.unlink()
    with pytest.raises(InputError, match=rf"image files of . train frames are missing: \S*/{folder}/"):
        ctrl.recipe(options(tmp_path / "run", root), Knobs(**SMALL))


class Share:
    """Of a fabric with two processes the one with this rank; it remembers what it was to sum."""

    device, world_size = torch.device("cpu"), 2

    def __init__(self, rank: int) -> None:
        self.global_rank, self.seen = rank, []

    def all_reduce(self, confusion: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        self.seen.append(confusion.numpy().copy())
        return confusion


def test_every_process_judges_its_share(tmp_path, miniature_streets):
    made = ctrl.recipe(options(tmp_path, miniature_streets(val=3)), Knobs(**(SMALL | {"experiment": 1})))
    nets = made.networks()
    nets["net"].eval()
    fabric = Fabric(accelerator="cpu", devices=1)
    numbers = ctrl.evaluate(nets, made.validation, made.experiment, fabric)
    shares = [Share(rank) for rank in range(2)]
    for share in shares:
        ctrl.evaluate(nets, made.validation, made.experiment, share)
    total = metrics.scores(sum(share.seen[0] for share in shares))
    assert numbers["miou"] == pytest.approx(100 * total.miou)
    thirteen = np.nanmean(np.delete(total.iou, (3, 4, 5)))
    assert numbers["miou13"] == numbers["best_miou13"] == pytest.approx(100 * thirteen)
