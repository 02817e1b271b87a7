"""The full recipe runs on a miniature of the official data, paired and unpaired, on one device and two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cvpr21lib import demos, metrics, record, runs, scalars
from cvpr21lib.errors import InputError
from cvpr21lib.lptn import expert, model
from cvpr21lib.lptn import recipe as lptn
from cvpr21lib.lptn.recipe import PAPER, RELEASED, Knobs
from cvpr21lib.options import Options

SMALL = {"width": 4, "crop": 64, "batch_size": 2, "lr": 1e-3}


def options(folder: Path, data_root: Path | None = None, **changes) -> Options:
    changes = {"profile": "full" if data_root else "demo", "workers": 0, "max_steps": 2} | changes
    return Options(
        output_dir=folder, data_root=data_root, accelerator="cpu", progress=False, log_every=1, **changes
    )


def run(options: Options, **knobs) -> record.Record:
    return runs.run(lptn.recipe(options, Knobs(**(SMALL | knobs))), options)


def weights(folder: Path, **knobs) -> dict[str, torch.Tensor]:
    recipe = lptn.recipe(Options(profile="full"), Knobs(**(SMALL | knobs)))
    networks = runs.weights(recipe, folder)
    return {f"{n}.{key}": v for n, network in networks.items() for key, v in network.state_dict().items()}


@pytest.mark.parametrize("mode", ["unpaired", "paired"])
@pytest.mark.parametrize("arch", ["released", "paper"])
def test_two_full_steps_on_a_miniature_end_in_a_record(tmp_path, miniature_fivek, mode, arch):
    root = miniature_fivek(paired=mode == "paired")
    made = run(options(tmp_path / "run", root, workers=1), mode=mode, arch=arch)
    assert made.steps == 2
    assert set(made.numbers) == {"psnr", "ssim", "psnr/4501", "psnr/4502", "ssim/4501", "ssim/4502"}
    assert made.numbers["psnr"] == pytest.approx(
        np.mean([made.numbers["psnr/4501"], made.numbers["psnr/4502"]])
    )
    assert made.settings["recipe"]["lambda_gan"] == (1.0 if mode == "unpaired" else 0.0)
    assert made.settings["recipe"]["nrb_low"] == 5
    assert len(made.fingerprints["data"]) == 64
    curves = (
        {"reconstruction", "gradient_penalty", "wasserstein"} if mode == "unpaired" else {"reconstruction"}
    )
    for curve in curves:
        assert scalars.read(tmp_path / "run", curve)[0] == [1, 2]


def test_the_recorded_score_is_that_of_the_saved_weights(tmp_path, miniature_fivek):
    root = miniature_fivek()
    made = run(options(tmp_path / "run", root))
    network = model.load_official(tmp_path / "run" / "g.safetensors")
    recipe = lptn.recipe(options(tmp_path, root), Knobs(**SMALL))
    with torch.no_grad():
        scores = [metrics.psnr(network(pair["source"][None]), pair["target"]) for pair in recipe.test]
    assert made.numbers["psnr"] == pytest.approx(np.mean(scores), abs=1e-6)


def test_two_processes_agree_with_one_on_adversarial_steps(tmp_path, miniature_fivek):
    root = miniature_fivek()
    one = run(options(tmp_path / "one", root, precision="64-true"))
    two = run(options(tmp_path / "two", root, precision="64-true", devices=2))
    for curve in ("reconstruction", "adversarial", "critic_real", "critic_fake", "gradient_penalty"):
        alone, together = (scalars.read(tmp_path / name, curve)[1] for name in ("one", "two"))
        assert together == pytest.approx(alone, rel=1e-6), curve
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    # a bias before an instance norm has no gradient but rounding, which Adam turns into full steps
    for key in first.keys() - {"g.trans_low.model.0.bias"}:
        torch.testing.assert_close(first[key], second[key], rtol=1e-5, atol=1e-6)
    assert two.numbers == pytest.approx(one.numbers, rel=1e-6)


def test_an_interrupted_adversarial_run_resumes_to_the_same_numbers(tmp_path, miniature_fivek):
    root = miniature_fivek()
    whole = run(options(tmp_path / "whole", root, max_steps=4))
    run(options(tmp_path / "parts", root, max_steps=2))
    parts = run(options(tmp_path / "parts", root, max_steps=4))
    assert parts.numbers == whole.numbers


def test_a_fixed_generator_step_has_the_losses_of_the_released_code(tmp_path, miniature_fivek):
    root = miniature_fivek()
    recipe = lptn.recipe(options(tmp_path, root), Knobs(**SMALL))
    torch.manual_seed(0)
    networks = recipe.networks()
    draws = next(iter(runs.Batches(len(recipe.data()), 2, seed=0, last=1)))
    batch = torch.utils.data.default_collate([recipe.data()[draw] for draw in draws])
    generator, critic = recipe.phases()
    loss = generator.loss(runs.Step(0, networks, batch))
    fake = networks["g"](batch["source"])
    assert loss.terms["reconstruction"].item() == pytest.approx(
        1000 * (fake - batch["source"]).square().mean().item(), rel=1e-5
    )
    assert loss.terms["adversarial"].item() == pytest.approx(-networks["d"](fake).mean().item(), rel=1e-4)
    terms = critic.loss(runs.Step(0, networks, batch)).terms
    assert terms["critic_real"].item() == pytest.approx(
        -networks["d"](batch["target"]).mean().item(), rel=1e-4
    )
    assert terms["critic_fake"].item() == pytest.approx(networks["d"](fake).mean().item(), rel=1e-4)
    sum(terms.values()).backward()
    assert all(parameter.grad is None for parameter in networks["g"].parameters())


def test_two_folders_without_ground_truth_are_judged_by_how_far_they_moved(tmp_path, miniature_fivek):
    root = miniature_fivek()
    for path in (root / "test" / "B").iterdir():
        path.unlink()
    (root / "test" / "B").rmdir()
    assert set(run(options(tmp_path / "run", root)).numbers) >= {"psnr_to_input"}


def test_the_official_schedule_halves_the_rate_from_the_milestone_on():
    fixture = np.load(Path(__file__).parents[1] / "parity" / "lptn" / "lr_schedule.npz")
    chosen = replace(RELEASED, milestones=(5, 10, 20), lr=1e-4)
    translation = lptn.Translation(chosen)
    optimizers = translation.optimizers({"g": torch.nn.Linear(1, 1)})
    scheduler = translation.schedulers(optimizers)["g"]
    rates = []
    for _ in range(25):
        rates.append(optimizers["g"].param_groups[0]["lr"])
        optimizers["g"].step()
        scheduler.step()
    np.testing.assert_array_equal(rates, fixture["out/lr"])


def test_the_recipes_are_those_of_the_sheet():
    assert (RELEASED.batch_size, RELEASED.crop, RELEASED.lr, RELEASED.betas) == (64, 256, 1e-4, (0.9, 0.99))
    assert (RELEASED.lambda_rec, RELEASED.lambda_gan, RELEASED.lambda_gp) == (1000, 1, 100)
    assert (PAPER.arch, PAPER.batch_size, PAPER.steps) == ("paper", 16, 300_000)
    assert lptn.recipe(Options(profile="full"), Knobs(arch="paper")).chosen == PAPER
    assert lptn.recipe(Options(profile="full"), Knobs()).chosen == RELEASED
    assert lptn.recipe(Options(profile="full"), Knobs(mode="paired")).chosen.lambda_gan == 0


def test_a_missing_data_set_is_one_clear_error(tmp_path):
    for root in (None, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"FiveK_480p[\s\S]*python -m data_scripts\.fivek"):
            run(options(tmp_path / "run", root, profile="full"))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"arch": "relesed"}, "arch is 'relesed'; it can be released, paper"),
        ({"num_high": 6}, "num_high is 6; it can be 1, 2, 3, 4, 5"),
        ({"mode": "pair"}, "mode is 'pair'"),
        ({"crop": 0}, "crop is 0; it must be above 0"),
    ],
)
def test_knobs_out_of_range_are_refused_by_name(knobs, message):
    with pytest.raises(InputError, match=message):
        lptn.recipe(Options(), Knobs(**knobs))


def test_a_nan_in_a_batch_stops_the_run_with_the_losses_name(tmp_path, monkeypatch):
    broken = expert.pair("coffee")[0] * np.float32("nan")
    monkeypatch.setattr(expert, "pair", lambda name: (broken, broken))
    with pytest.raises(runs.NonFiniteLoss, match="step 1 of released-L3-paired: reconstruction = nan"):
        run(options(tmp_path))


def test_the_expert_is_the_one_that_was_measured():
    """Identity against the expert on the two test photographs: the sheet's 13.77/.845 and 16.16/.706."""
    scores = {name: expert.pair(name) for name in expert.TEST}
    found = {name: (metrics.psnr(*pair), metrics.ssim(*pair)) for name, pair in scores.items()}
    assert found["chelsea"] == pytest.approx((13.77, 0.845), abs=0.006)
    assert found["flower"] == pytest.approx((16.16, 0.706), abs=0.006)


def test_the_recorded_demo_is_what_the_recipe_does_today():
    path = Path(__file__).parents[2] / "book" / "records" / "lptn" / demos.FILE_NAME
    experiment = demos.Experiment.read(path)
    assert experiment.stale(lptn) == [], "run `make records`"
    assert len(experiment.seeds) >= 5
