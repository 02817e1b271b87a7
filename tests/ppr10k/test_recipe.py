"""The recipe runs on a miniature of the official data, and trains with just the losses it was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cvpr21lib import demos, record, runs, scalars
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.ppr10k import losses, metrics, weights
from cvpr21lib.ppr10k import recipe as ppr10k
from cvpr21lib.ppr10k.recipe import ARMS, DEMO, OFFICIAL, Knobs

SMALL = {"backbone": "light", "pretrained": False, "lut_size": 5, "batch_size": 2, "lr": 1e-3}


def options(folder: Path, data_root: Path | None = None, **changes) -> Options:
    changes = {"profile": "full" if data_root else "demo", "workers": 0, "max_steps": 2} | changes
    return Options(
        output_dir=folder, data_root=data_root, accelerator="cpu", progress=False, log_every=1, **changes
    )


def run(options: Options, **knobs) -> record.Record:
    return runs.run(ppr10k.recipe(options, Knobs(**(SMALL | knobs))), options)


def step(recipe: ppr10k.Retouching, size: int = 2) -> runs.Step:
    """The first step, as the loop would give it."""
    torch.manual_seed(0)
    draws = next(iter(runs.Batches(len(recipe.data()), size, seed=0, last=1)))
    batch = torch.utils.data.default_collate([recipe.data()[draw] for draw in draws])
    networks = recipe.networks()
    networks["retoucher"].eval()  # without dropout
    return runs.Step(0, networks, batch)


@pytest.mark.parametrize("expert", ["a", "c"])
@pytest.mark.parametrize("glc", [False, True], ids=["no-glc", "glc"])
@pytest.mark.parametrize("hrp", [False, True], ids=["no-hrp", "hrp"])
def test_two_full_steps_on_a_miniature_end_in_the_papers_columns(
    tmp_path, miniature_ppr10k, hrp, glc, expert
):
    made = run(options(tmp_path / "run", miniature_ppr10k()), hrp=hrp, glc=glc, expert=expert)
    assert made.steps == 2
    paper = {"psnr", "delta_e", "psnr_hc", "delta_e_hc", "mglc", "target_mglc", "mglc_gap"}
    assert paper <= made.numbers.keys()
    assert made.numbers["psnr"] <= made.numbers["psnr_hc"] <= made.numbers["psnr"] + 6.03
    assert made.settings["recipe"]["size"] == OFFICIAL.size
    curves = {"pixel", "regulariser"} | ({"glc"} if glc else set())
    for curve in curves:
        assert scalars.read(tmp_path / "run", curve)[0] == [1, 2]
    assert not glc or scalars.read(tmp_path / "run", "glc")[1][0] > 0


def test_the_recorded_score_is_that_of_the_saved_weights(tmp_path, miniature_ppr10k):
    root = miniature_ppr10k()
    made = run(options(tmp_path / "run", root))
    network = weights.load(tmp_path / "run" / "retoucher.safetensors")
    test = ppr10k.recipe(options(tmp_path, root), Knobs(**SMALL)).test
    with torch.no_grad():
        scores = [
            metrics.psnr(
                metrics.quantise(network(photo["source"][None])[0].permute(1, 2, 0).numpy()),
                metrics.quantise(photo["target"].permute(1, 2, 0).numpy()),
            )
            for photo in (test[i] for i in range(len(test)))
        ]
    assert made.numbers["psnr"] == pytest.approx(np.mean(scores), abs=1e-4)


def test_two_processes_agree_with_one(tmp_path, miniature_ppr10k):
    root = miniature_ppr10k()
    # the predictor without dropout, which every process draws for itself
    common = {"precision": "64-true", "data_root": root}
    one = run(options(tmp_path / "one", **common), backbone="light_unpaired")
    two = run(options(tmp_path / "two", **common, devices=2), backbone="light_unpaired")
    for curve in ("pixel", "glc", "regulariser"):
        alone, together = (scalars.read(tmp_path / name, curve)[1] for name in ("one", "two"))
        assert together == pytest.approx(alone, rel=1e-6), curve
    assert two.numbers == pytest.approx(one.numbers, rel=1e-6)


def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path, miniature_ppr10k):
    root = miniature_ppr10k()
    whole = run(options(tmp_path / "whole", root, max_steps=4))
    run(options(tmp_path / "parts", root, max_steps=2))
    parts = run(options(tmp_path / "parts", root, max_steps=4))
    assert parts.numbers == whole.numbers


@pytest.mark.parametrize("glc", [False, True], ids=["no-glc", "glc"])
def test_without_hrp_masks_do_not_matter_and_with_it_they_do(tmp_path, glc):
    for hrp in (False, True):
        recipe = ppr10k.recipe(options(tmp_path), Knobs(**(SMALL | {"hrp": hrp, "glc": glc})))
        (phase,) = recipe.phases()
        with_people = step(recipe)
        without = step(recipe)
        without.batch["mask"] = torch.zeros_like(without.batch["mask"])
        assert with_people.batch["mask"].any()
        one, other = (phase.loss(each).terms["pixel"].item() for each in (with_people, without))
        assert (one != other) == hrp


def test_a_step_has_the_losses_of_the_paper(tmp_path):
    recipe = ppr10k.recipe(options(tmp_path), Knobs(**SMALL))
    (phase,) = recipe.phases()
    first = step(recipe)
    network, batch = first.networks["retoucher"], first.batch
    terms = phase.loss(first).terms
    with torch.no_grad():
        own, own_weights = network(batch["source"], with_weights=True)
        other = network(batch["other"])
    expected = {
        "pixel": losses.hrp(own, batch["target"], batch["mask"], 5.0),
        "glc": losses.glc(own, other, batch["corners"]),
        "regulariser": losses.regulariser(own_weights, network.luts),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5), name


def test_each_view_has_its_own_batch_statistics():
    """As in the official code, which calls its ResNet-18 once for each view."""
    torch.manual_seed(0)
    network = ppr10k.retoucher(ppr10k.replace(OFFICIAL, pretrained=False, lut_size=2))
    views = [torch.rand(2, 3, 64, 64), 0.1 * torch.rand(2, 3, 64, 64)]
    with torch.no_grad():
        together = network(torch.cat(views), views=2)
        apart = torch.cat([network(view) for view in views])
        mixed = network(torch.cat(views))
    torch.testing.assert_close(together, apart)
    assert (mixed - apart).abs().max() > 1e-3


def test_the_recipe_is_that_of_the_sheet():
    assert (OFFICIAL.num_luts, OFFICIAL.lut_size, OFFICIAL.backbone) == (5, 33, "resnet18")
    assert (OFFICIAL.size, OFFICIAL.crop, OFFICIAL.batch_size) == (448, 336, 16)
    assert (OFFICIAL.lr, OFFICIAL.betas, OFFICIAL.decay) == (1e-4, (0.9, 0.999), False)
    assert (OFFICIAL.hrp_weight, OFFICIAL.glc_weight) == (5, 1)
    assert OFFICIAL.steps == 200 * 53_250 // 16
    assert ppr10k.recipe(Options(profile="full"), Knobs()).chosen == OFFICIAL


def test_a_missing_data_set_is_one_clear_error(tmp_path):
    for root in (None, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"PPR10K[\s\S]*python -m data_scripts\.ppr10k"):
            run(options(tmp_path / "run", root, profile="full"))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"expert": "d"}, "expert is 'd'; it can be a, b, c"),
        ({"backbone": "resnet"}, "backbone is 'resnet'; it can be resnet18, light, light_unpaired"),
        ({"resize": "cubic"}, "resize is 'cubic'; it can be official, bilinear"),
        ({"versions": 7}, "versions is 7"),
        ({"hrp_weight": 0}, "hrp_weight is 0; it must be above 0"),
        ({"batch_size": 0}, "batch_size is 0; it must be above 0"),
    ],
)
def test_knobs_out_of_range_are_refused_by_name(knobs, message):
    with pytest.raises(InputError, match=message):
        ppr10k.recipe(Options(), Knobs(**knobs))


def test_training_and_test_sessions_are_different_ones():
    assert not set(ppr10k.TRAIN) & set(ppr10k.TEST)
    recipe = ppr10k.recipe(Options(), ARMS["3dlut"])
    trained = {metrics.group_id(name) for name in recipe.data().photographs.names}
    judged = {metrics.group_id(name) for name in recipe.test.photographs.names}
    assert (len(trained), len(judged)) == (24, 16)
    assert not trained & judged


def test_all_arms_of_the_demo_share_data_steps_and_network():
    chosen = [ppr10k.recipe(Options(), knobs).chosen for knobs in ARMS.values()]
    same = ("steps", "batch_size", "lr", "num_luts", "lut_size", "thumbnail", "widths", "versions", "size")
    for name in same:
        assert {getattr(each, name) for each in chosen} == {getattr(DEMO, name)}, name


def test_the_recorded_demo_is_what_the_recipe_does_today():
    path = Path(__file__).parents[2] / "book" / "records" / "ppr10k" / demos.FILE_NAME
    experiment = demos.Experiment.read(path)
    assert experiment.stale(ppr10k) == [], "run `make records`"
    assert len(experiment.seeds) >= 5
