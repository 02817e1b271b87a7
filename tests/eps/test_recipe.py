"""Stage 1 runs on miniatures of VOC and COCO, on one device and two, and judges its own masks rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import default_collate

from cvpr21lib import demos, record, runs, scalars
from cvpr21lib.eps import data, evaluation, model, pseudo_masks, saved_maps
from cvpr21lib.eps import recipe as eps
from cvpr21lib.eps.mask_folder import read_fingerprint
from cvpr21lib.eps.recipe import COCO, DEMO, VOC, Knobs
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.sampling import Draw, mix
from cvpr21lib.scenes import cooccurrence
from cvpr21lib.segmentation import masks, metrics

SMALL = {"width_div": 64, "pretrained": False, "batch_size": 2}


@pytest.fixture(autouse=True)
def small_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official recipes as they are, but for crops of 48 pixels and two scales."""
    for name, base in (("VOC", VOC), ("COCO", COCO)):
        crops = data.Augmentation(long_side=(40, 64), crop=48)
        small = eps.replace(base, augmentation=crops, scales=(0.5, 1.0))
        monkeypatch.setattr(eps, name, small)


def options(folder: Path, data_root: Path | None = None, **changes) -> Options:
    changes = {"profile": "full" if data_root else "demo", "workers": 0, "max_steps": 2} | changes
    return Options(
        output_dir=folder, data_root=data_root, accelerator="cpu", progress=False, log_every=1, **changes
    )


def run(options: Options, **knobs) -> record.Record:
    return runs.run(eps.recipe(options, Knobs(**(SMALL | knobs))), options)


def weights(folder: Path, **knobs) -> dict[str, torch.Tensor]:
    recipe = eps.recipe(Options(profile="full"), Knobs(**(SMALL | knobs)))
    return runs.weights(recipe, folder)["classifier"].state_dict()


@pytest.mark.parametrize("method", ["eps", "naive", "predefined", "cam"])
def test_two_full_steps_on_voc_end_in_a_record(tmp_path, miniature_voc, method):
    root = miniature_voc()
    made = run(options(tmp_path / "run", root, workers=1), method=method)
    assert (made.name, made.steps) == (f"{method}-voc12", 2)
    assert {"miou", "miou_best", "threshold_best", "miou/0.20", "iou/background", "own/train"} <= set(
        made.numbers
    )
    assert ("rejected/train" in made.numbers) == ("cut_out" in made.numbers) == (method != "cam")
    assert "iou/cow" not in made.numbers, "a class that is in no image has no IoU"
    assert made.numbers["miou"] == made.numbers["miou/0.20"] <= made.numbers["miou_best"]
    for curve in ("classification", *(() if method == "cam" else ("saliency", "rejected"))):
        assert scalars.read(tmp_path / "run", curve)[0] == [1, 2]


def test_two_full_steps_on_coco_end_in_a_record_and_masks_of_all_training_images(tmp_path, miniature_coco):
    root = miniature_coco()
    made = run(options(tmp_path / "run", root), dataset="coco14", masks=str(tmp_path / "masks"))
    assert made.settings["recipe"]["lam"] == 0.9
    assert {"miou", "iou/boat", "rejected/couch"} <= set(made.numbers)
    names = data.find(root, "coco14").names("train")
    assert sorted(path.stem for path in (tmp_path / "masks").iterdir()) == sorted(names)


def test_the_recorded_miou_is_that_of_the_saved_weights(tmp_path, miniature_voc):
    root = miniature_voc()
    made = run(options(tmp_path / "run", root))
    network = model.load_official(tmp_path / "run" / "classifier.safetensors")
    table = np.zeros((21, 21), np.int64)
    for item in data.Validation(data.Folders(data.find(root, "voc12"), "train", masks=True)):
        found = pseudo_masks.class_maps(network, item["image"], item["label"], (0.5, 1.0))
        table += metrics.confusion(item["mask"], pseudo_masks.mask(found), 21)
    assert made.numbers["miou"] == pytest.approx(100 * metrics.scores(table).miou, abs=1e-3)


class WithoutDropout(eps.PseudoMasks):
    """Processes drop other channels than one alone would."""

    def networks(self) -> dict[str, nn.Module]:
        made = super().networks()
        for module in made["classifier"].modules():
            if isinstance(module, nn.Dropout2d):
                module.p = 0.0
        return made


def test_two_processes_agree_with_one(tmp_path, miniature_voc):
    root = miniature_voc()
    made = {}
    for devices in (1, 2):
        how = options(tmp_path / str(devices), root, precision="64-true", devices=devices)
        usual = eps.recipe(how, Knobs(**SMALL, masks=tmp_path / f"masks{devices}"))
        made[devices] = runs.run(WithoutDropout(**vars(usual)), how)
    for curve in ("classification", "saliency", "rejected"):
        alone, together = (scalars.read(tmp_path / str(devices), curve)[1] for devices in (1, 2))
        assert together == pytest.approx(alone, rel=1e-6), curve
    first, second = (weights(tmp_path / str(devices)) for devices in (1, 2))
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-5, atol=1e-7)
    assert made[2].numbers == pytest.approx(made[1].numbers, rel=1e-6)
    written = [sorted(path.name for path in (tmp_path / f"masks{devices}").iterdir()) for devices in (1, 2)]
    assert written[0] == written[1]
    assert len(written[0]) == 6


def test_an_interrupted_run_resumes_to_the_same_numbers_and_weights(tmp_path, miniature_voc):
    root = miniature_voc()
    whole = run(options(tmp_path / "whole", root, max_steps=4))
    run(options(tmp_path / "parts", root, max_steps=2))
    parts = run(options(tmp_path / "parts", root, max_steps=4))
    assert parts.numbers == whole.numbers
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_interrupted_demo_resumes_across_the_end_of_the_warm_up(tmp_path, monkeypatch):
    monkeypatch.setattr(eps.World.__init__, "__defaults__", (30,))
    knobs = {"steps": 8}
    whole = run(options(tmp_path / "whole", max_steps=4), **knobs)
    run(options(tmp_path / "parts", max_steps=1), **knobs)
    parts = run(options(tmp_path / "parts", max_steps=4), **knobs)
    assert parts.numbers == whole.numbers


def test_the_momentum_option_is_the_momentum_of_the_second_step(tmp_path, miniature_voc):
    """Up to it all is equal, and then the corrected one moves on by 0.9 - 0.0005 of the first step."""
    root = miniature_voc()

    def after(steps: int, momentum: str) -> torch.Tensor:
        how = options(tmp_path / f"{momentum}{steps}", root, max_steps=steps, precision="64-true")
        run(how, momentum=momentum, width_div=32)
        return load_file(how.output_dir / "classifier.safetensors")["fc8.weight"]

    torch.manual_seed(mix(0, "networks"))
    start = eps.recipe(options(tmp_path, root), Knobs(**SMALL | {"width_div": 32})).networks()["classifier"]
    first = after(1, "official")
    torch.testing.assert_close(after(1, "corrected"), first, rtol=0, atol=0)
    further = after(2, "corrected") - after(2, "official")
    expected = (0.9 - 0.0005) * (1 - 1 / 20_000) ** 0.9 * (first - start.fc8.weight.detach().double())
    assert expected.abs().max() > 0
    torch.testing.assert_close(further, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("knobs", "steps", "end"),
    [
        ({}, 256_500, 76_950),
        ({"schedule": "corrected"}, 76_950, 76_950),
        ({"steps": 256_500}, 256_500, 256_500),
        ({"steps": 10, "schedule_steps": 5}, 10, 5),
    ],
)
def test_on_coco_the_schedule_may_end_before_the_training(knobs, steps, end):
    recipe = eps.recipe(Options(profile="full"), Knobs(**(SMALL | knobs), dataset="coco14"))
    assert (recipe.steps, recipe.chosen.schedule_steps) == (steps, end)
    optimizer = recipe.optimizers(recipe.networks())["classifier"]
    schedule = recipe.schedulers({"classifier": optimizer})["classifier"].lr_lambdas[0]
    assert schedule(0) == 1
    assert schedule(end // 2) == pytest.approx(0.5**0.9, rel=0.2)
    assert schedule(steps) == schedule(end) == pytest.approx(end**-0.9)


def test_the_schedule_steps_reach_the_optimiser(tmp_path, miniature_voc):
    run(options(tmp_path / "run", miniature_voc(), max_steps=None), steps=4, schedule_steps=2)
    rates = scalars.read(tmp_path / "run", "lr_classifier")[1]
    assert rates == pytest.approx([0.01 * 0.5**0.9] * 4)


def test_the_recipes_are_those_of_the_sheet():
    assert (VOC.batch_size, VOC.steps, VOC.schedule_steps, VOC.tau, VOC.lam) == (8, 20_000, 20_000, 0.4, 0.5)
    assert (VOC.lr, VOC.weight_decay, VOC.momentum, VOC.warmup) == (0.01, 5e-4, "official", 0)
    assert (COCO.batch_size, COCO.steps, COCO.schedule_steps, COCO.lam) == (16, 256_500, 76_950, 0.9)
    assert (VOC.augmentation.long_side, VOC.augmentation.crop) == ((256, 512), 448)
    assert (COCO.augmentation.long_side, COCO.augmentation.crop) == ((256, 448), 321)
    assert VOC.scales == COCO.scales == (0.5, 1.0, 1.5, 2.0)
    assert (DEMO.batch_size, DEMO.steps, DEMO.lr, DEMO.warmup, DEMO.lam) == (16, 400, 2e-3, 0.25, 0.5)
    demo = eps.recipe(Options(), Knobs())
    network = demo.networks()["classifier"]
    assert sum(parameter.numel() for parameter in network.parameters()) == 42_664
    assert [group["lr"] for group in demo.optimizers({"classifier": network})["classifier"].param_groups] == (
        pytest.approx([2e-3, 4e-3, 2e-2, 4e-2])
    )


def maps(seed: int, rows: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps of four classes that lie off the salient pixels, those, and labels of all classes."""
    saliency = torch.zeros(rows, 1, 8, 8)
    saliency[..., :2] = 1
    cam = torch.randn(rows, 5, 8, 8, generator=torch.Generator().manual_seed(seed))
    cam[:, :4, :, 4:] += 20 * torch.eye(4)[:, :, None].repeat_interleave(2, 1)
    return cam, saliency, torch.ones(rows, 4)


def test_the_rule_of_selection_acts_after_the_warm_up_only():
    cam, saliency, label = maps(0)
    demo = eps.recipe(Options(), Knobs())
    assert not demo.estimate(cam, saliency, label, step=99).rejected.any()
    assert demo.estimate(cam, saliency, label, step=100).rejected.all()
    assert not eps.recipe(Options(), Knobs(method="naive")).estimate(cam, saliency, label, 399).rejected.any()
    by_hand = eps.recipe(Options(), Knobs(method="predefined")).estimate(cam, saliency, label, 0)
    assert by_hand.rejected.tolist() == [[False, False, False, True]]
    assert eps.recipe(Options(profile="full"), Knobs()).estimate(cam, saliency, label, 0).rejected.all(), (
        "the official recipe has no warm-up"
    )


def test_a_warm_up_by_labels_has_no_gradient_of_saliency():
    recipe = eps.recipe(Options(), Knobs(warmup=0.5, warmup_by="labels"))
    network = recipe.networks()["classifier"]
    draws = [Draw(index, index) for index in range(4)]
    batch = default_collate([recipe.training[draw] for draw in draws])
    of_saliency = {}
    for number in (199, 200):
        terms = recipe._loss(runs.Step(number, {"classifier": network}, batch)).terms
        of_saliency[number] = torch.autograd.grad(terms["saliency"], network.fc8.weight)[0].abs().max()
    assert of_saliency[199] == 0 < of_saliency[200]


@pytest.mark.parametrize(("dataset", "names"), [("voc12", 3), ("coco14", 3)])
def test_predefined_classes_are_classes_of_their_data_set(dataset, names):
    assert len(set(eps.PREDEFINED[dataset]) & set(data.LAYOUTS[dataset].classes)) == names


def test_written_masks_are_kept_until_the_weights_or_the_threshold_change(tmp_path, miniature_voc):
    root = miniature_voc()
    how = options(tmp_path / "run", root)
    run(how, masks=tmp_path / "masks")
    recipe = eps.recipe(how, Knobs(**SMALL))
    network = runs.weights(recipe, how.output_dir)["classifier"]
    assert eps.write_masks(recipe, network, tmp_path / "masks", progress=False) == (0, 6, {})
    item = data.Inference(recipe.training_source)[1]
    found = pseudo_masks.class_maps(network, item["image"], item["label"], recipe.chosen.scales)
    path = tmp_path / "masks" / f"{item['name']}.png"
    assert np.mean(masks.read(path, 21) == pseudo_masks.mask(found)) > 0.999
    before = read_fingerprint(path)
    assert eps.write_masks(recipe, network, tmp_path / "masks", 0.3, progress=False).made == 6
    assert read_fingerprint(path) != before
    with torch.no_grad():
        network.fc8.weight += 1
    assert eps.write_masks(recipe, network, tmp_path / "masks", 0.3, progress=False).made == 6


def test_class_maps_are_written_for_the_crf(tmp_path, miniature_voc):
    recipe = eps.recipe(options(tmp_path, miniature_voc()), Knobs(**SMALL))
    network = recipe.networks()["classifier"].eval()
    assert eps.write_masks(recipe, network, tmp_path / "maps", threshold=None, progress=False).made == 6
    item = data.Inference(recipe.training_source)[0]
    found = saved_maps.read(tmp_path / "maps" / f"{item['name']}.npz")
    expected = pseudo_masks.class_maps(network, item["image"], item["label"], recipe.chosen.scales)
    assert found.classes == expected.classes
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-3)


def test_a_truncated_image_stops_the_training_or_is_skipped_and_counted(tmp_path, miniature_voc):
    root = miniature_voc()
    broken = data.find(root, "voc12").image("2008_000001")  # not among the images that are judged
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(InputError, match=r"2008_000001\.jpg is damaged"):
        run(options(tmp_path / "stop", root, max_steps=4))
    with pytest.warns(UserWarning, match="skipped"):
        made = run(options(tmp_path / "skip", root, max_steps=4), on_damage="skip", masks=tmp_path / "masks")
    assert made.numbers["damaged"] == 1
    assert len(list((tmp_path / "masks").iterdir())) == 5


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"method": "epps"}, "method is 'epps'; it can be eps, naive, predefined, cam"),
        ({"dataset": "voc"}, "dataset is 'voc'; it can be voc12, coco14"),
        ({"momentum": 0.9}, "momentum is 0.9; it can be official, corrected"),
        ({"warmup_by": "label"}, "warmup_by is 'label'; it can be naive, labels"),
        ({"schedule": "short"}, "schedule is 'short'; it can be official, corrected"),
        ({"lam": 1.5}, r"lam is 1.5; it must be in \[0, 1\]"),
        ({"steps": 0}, "steps is 0; it must be above 0"),
    ],
)
def test_knobs_out_of_range_are_refused_by_name(knobs, message):
    with pytest.raises(InputError, match=message):
        eps.recipe(Options(), Knobs(**knobs))


def test_missing_data_saliency_and_weights_are_one_clear_error_each(tmp_path, miniature_voc):
    with pytest.raises(InputError, match=r"VOC2012[\s\S]*python -m data_scripts\.voc2012"):
        run(options(tmp_path / "run", profile="full"))
    root = miniature_voc(saliency=False)
    with pytest.raises(InputError, match=r"VOC2012_saliency does not exist[\s\S]*data_scripts\.saliency"):
        run(options(tmp_path / "run", root))
    assert run(options(tmp_path / "cam", root), method="cam").steps == 2, "the baseline needs none"
    with pytest.raises(InputError, match=r"ilsvrc-cls_rna-a1_cls1000_ep-0001\.params"):
        run(options(tmp_path / "run", root), method="cam", pretrained=True)


@pytest.fixture(scope="module")
def barely_trained() -> tuple[eps.PseudoMasks, model.EPS]:
    recipe = eps.recipe(Options(seed=100), Knobs())
    torch.manual_seed(0)
    network = recipe.networks()["classifier"]
    with torch.no_grad():  # statistics of the normalisations
        images = [pseudo_masks.normalise(recipe.judged.image(index)) for index in range(64)]
        network.train()(torch.stack(images))
    return recipe, network.eval()


def test_confused_context_and_scores_are_those_of_each_mask_counted_alone(barely_trained):
    """The scan has rails and water as further rows; `metrics` counts them image by image."""
    recipe, network = barely_trained
    world, judge = recipe.judged, recipe.judge
    counts = evaluation.Counts.none(judge)
    table, rails = np.zeros((5, 5), np.int64), np.zeros(3, np.int64)
    rejected = np.zeros(4, np.int64)
    for index in range(40):
        counts.add(network, world, index, world.regions(index), judge)
        found = pseudo_masks.class_maps(network, world.image(index), world.label(index), judge.scales)
        mask = pseudo_masks.mask(found)
        table += metrics.confusion(world.mask(index), mask, 5)
        rail = world.regions(index) == cooccurrence.RAIL
        rails += metrics.context_counts(world.mask(index), mask, rail, cooccurrence.TRAIN)
        steps = evaluation.estimate_of(
            network, world.image(index), world.saliency(index), world.label(index), lam=0.9
        )
        rejected += steps.rejected[0].numpy()
    numbers = evaluation.numbers(counts, judge)
    assert numbers["miou"] == pytest.approx(100 * metrics.scores(table).miou)
    expected = metrics.context_scores(rails)
    assert rails[0] > 0
    assert numbers["share_fixed/rail"] == pytest.approx(expected.share)
    if np.isfinite(expected.ratio):
        assert numbers["ratio_fixed/rail"] == pytest.approx(expected.ratio)
    np.testing.assert_array_equal(counts.rejected[1], rejected)
    np.testing.assert_array_equal(
        counts.rejected[0], sum(world.label(index) for index in range(40)).astype(int)
    )


def test_cut_out_takes_the_strongest_class_where_something_is_salient(barely_trained):
    recipe, network = barely_trained
    world = recipe.judged
    index = next(i for i in range(40) if world.label(i).sum() == 2 and world.saliency(i).max() > 127)
    found = pseudo_masks.class_maps(network, world.image(index), world.label(index))
    mask = evaluation.cut_out(found, world.saliency(index))
    salient = world.saliency(index) > 127
    assert not mask[~salient].any()
    strongest = np.array(found.classes)[found.maps.argmax(0).numpy()] + 1
    np.testing.assert_array_equal(mask[salient], strongest[salient])


def test_scenes_depend_on_the_seed_and_the_fingerprint_does_not():
    first, second = (eps.World(seed, count=5) for seed in (0, 100))
    assert not np.array_equal(first.image(0), second.image(0))
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != eps.World(0, count=6).fingerprint()


def test_the_recorded_demo_is_what_the_recipe_does_today():
    path = Path(__file__).parents[2] / "book" / "records" / "eps" / demos.FILE_NAME
    experiment = demos.Experiment.read(path)
    assert experiment.stale(eps) == [], "run `make records`"
    assert len(experiment.seeds) >= 5
