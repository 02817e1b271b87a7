"""Stage 2 trains on pseudo-masks in the published way, and is judged on val."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from PIL import Image
from torch import nn
from torch.optim import SGD

from cvpr21lib import record, runs, scalars
from cvpr21lib.eps import data, stage2
from cvpr21lib.eps.mask_folder import MASKS
from cvpr21lib.eps.pseudo_masked import PseudoMasked, sample
from cvpr21lib.eps.stage2 import Knobs, Settings, cross_entropy, poly, probabilities
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.sampling import Draw
from cvpr21lib.segmentation import crf, masks, metrics
from cvpr21lib.segmentation.stored import DamagedFile

SMALL = {"width_div": 16, "init": "random", "crop": 33, "batch_size": 2, "lr": 1e-3}


def options(folder: Path, data_root: Path, **changes: object) -> Options:
    return Options(
        output_dir=folder,
        data_root=data_root,
        **({"profile": "full", "workers": 0, "max_steps": 2, "accelerator": "cpu", "progress": False,
            "log_every": 1} | changes),
    )  # fmt: skip


def run(options: Options, folder: Path, **knobs: object) -> record.Record:
    return runs.run(stage2.recipe(options, Knobs(masks=folder, **(SMALL | knobs))), options)


@pytest.fixture
def voc(miniature_voc: Callable[..., Path]) -> tuple[Path, Path]:
    """The data_root of a miniature VOC, and a folder of pseudo-masks: ground truth without its void."""
    return pseudo_masks(miniature_voc(saliency=False), "voc12", "train_aug")


def pseudo_masks(root: Path, dataset: data.DatasetName, split: str) -> tuple[Path, Path]:
    layout, folder = data.find(root, dataset), root / "masks"
    folder.mkdir()
    for name in layout.names(split):
        mask = masks.read(layout.mask(name), len(layout.classes) + 1)
        MASKS.write(folder / f"{name}.png", np.where(mask == 255, np.uint8(0), mask), "made by a test")
    return root, folder


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("backbone", ["vgg16", "resnet101"])
def test_two_steps_on_a_miniature_end_in_a_record(tmp_path, voc, version, backbone):
    root, folder = voc
    made = run(options(tmp_path / "run", root), folder, version=version, backbone=backbone)
    assert made.steps == 2
    assert {"miou", "miou_crf", "iou/background"} <= made.numbers.keys()
    assert 0 <= made.numbers["miou"] <= 100
    assert made.settings["recipe"]["init"] == "random"
    assert made.settings["recipe"]["batch_size"] == 2
    losses = {"ce_1"} if backbone == "vgg16" else {"ce_1", "ce_0.5", "ce_0.75", "ce_max"}
    for name in losses:
        steps, values = scalars.read(tmp_path / "run", name)
        assert steps == [1, 2]
        assert values[0] == pytest.approx(np.log(21), abs=0.3)  # knows nothing yet
    weights = runs.weights(
        stage2.recipe(
            options(tmp_path, root), Knobs(masks=folder, version=version, backbone=backbone, **SMALL)
        ),
        tmp_path / "run",
    )
    assert not weights["deeplab"].training


def test_coco_has_81_classes_and_no_crf_unless_asked_for(tmp_path, miniature_coco):
    root, folder = pseudo_masks(miniature_coco(saliency=False), "coco14", "train")
    made = run(options(tmp_path / "run", root), folder, dataset="coco14", backbone="vgg16")
    assert "miou_crf" not in made.numbers
    assert made.settings["recipe"]["steps"] == 100_000
    network = runs.weights(
        stage2.recipe(
            options(tmp_path, root), Knobs(masks=folder, dataset="coco14", backbone="vgg16", **SMALL)
        ),
        tmp_path / "run",
    )
    assert network["deeplab"].fc8[0].out_channels == 81


def test_two_processes_agree_with_one(tmp_path, voc):
    """Without void in the crops: each process takes the mean over the pixels that it sees."""
    root, folder = voc
    for name, devices in (("one", 1), ("two", 2)):
        here = options(tmp_path / name, root, precision="64-true", devices=devices)
        recipe = stage2.recipe(here, Knobs(masks=folder, version="v1", crf="none", **SMALL))
        runs.run(replace(recipe, chosen=replace(recipe.chosen, zoom=(1.0, 1.25))), here)
    for name in ("ce_1", "ce_0.5", "ce_max"):
        alone, together = (scalars.read(tmp_path / each, name)[1] for each in ("one", "two"))
        assert together == pytest.approx(alone, rel=1e-6), name
    one, two = (record.read(tmp_path / each / record.FILE_NAME).numbers for each in ("one", "two"))
    assert two == pytest.approx(one)


def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path, voc):
    root, folder = voc
    whole = run(options(tmp_path / "whole", root, max_steps=4), folder, backbone="vgg16")
    run(options(tmp_path / "parts", root, max_steps=2), folder, backbone="vgg16")
    assert (
        run(options(tmp_path / "parts", root, max_steps=4), folder, backbone="vgg16").numbers == whole.numbers
    )


def test_other_masks_in_the_same_folder_are_another_run(tmp_path, voc):
    root, folder = voc
    run(options(tmp_path / "run", root), folder)
    path = next(folder.glob("*.png"))
    MASKS.write(path, masks.read(path, 21), "made by something else")
    with pytest.raises(InputError, match="masks"):
        run(options(tmp_path / "run", root), folder)


def test_the_recipes_are_those_of_the_repository_and_the_paper():
    net = stage2.VOC_RESNET101
    assert (net.lr, net.batch_size, net.steps, net.momentum, net.weight_decay, net.power) == (
        2.5e-4, 10, 20_000, 0.9, 5e-4, 0.9,
    )  # fmt: skip
    assert (net.crop, net.zoom, net.loss_scales) == (321, (0.5, 0.75, 1.0, 1.25, 1.5), (0.5, 0.75))
    assert replace(net, backbone="vgg16", lr=1e-3, loss_scales=()) == stage2.VOC_VGG16


def test_the_rate_falls_every_tenth_step_to_the_power_of_0_9():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = SGD([{"params": [parameter], "lr": 0.1}, {"params": [], "lr": 1.0}], lr=0.1)
    scheduler, rates = poly(optimizer, steps=40), []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:10] == [0.1] * 10
    assert rates[10:20] == pytest.approx([0.1 * 0.75**0.9] * 10)
    assert rates[39] == pytest.approx(0.1 * 0.25**0.9)
    assert optimizer.param_groups[0]["lr"] == 0


def test_void_has_no_loss_and_no_gradient():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 4, 4, requires_grad=True)
    mask = torch.randint(0, 5, (2, 4, 4))
    mask[:, 1:3] = 255
    loss = cross_entropy(logits, mask)
    loss.backward()
    torch.testing.assert_close(loss, F.cross_entropy(logits, mask, ignore_index=255))
    assert not logits.grad[:, :, 1:3].any()
    assert logits.grad[:, :, 0].any()


def test_void_everywhere_is_a_loss_of_zero():
    logits = torch.randn(2, 5, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 32, 32), 255))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize(("size", "small"), [(321, 41), (33, 5), (65, 9), (30, 4)])
def test_labels_are_made_small_as_pillow_does_it(size, small):
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (1, size, size)))
    nearest = Image.fromarray(mask[0].numpy().astype(np.float32)).resize(
        (small, small), Image.Resampling.NEAREST
    )
    logits = torch.randn(1, 5, small, small)
    expected = F.cross_entropy(logits, torch.from_numpy(np.asarray(nearest).copy()).long()[None])
    torch.testing.assert_close(cross_entropy(logits, mask), expected)


def gradient(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture whose red is its mask's class / 20, class = column // 4 + 1."""
    mask = (torch.arange(width) // 4 + 1).expand(height, width).to(torch.uint8)
    return torch.stack([mask / 20, torch.rand(height, width), torch.ones(height, width)]), mask.contiguous()


@pytest.mark.parametrize("zoom", [0.5, 1.0, 1.5])
def test_image_and_mask_are_cut_alike(zoom):
    image, mask = gradient(48, 64)
    for seed in range(10):
        made = sample(random.Random(seed), image, mask, 33, (zoom,))
        assert made["image"].shape == (3, 33, 33)
        assert made["mask"].dtype == torch.int64
        shown = made["mask"] != 255
        difference = made["image"][0] - made["mask"] / 20
        assert (difference[shown].abs() < 0.051).all()  # half a class at most, where zooming blends two
        assert not made["image"][:, ~shown].any()


def test_mirrored_crops_occur_as_often_as_others():
    image, mask = gradient(33, 33)
    first = [int(sample(random.Random(seed), image, mask, 33, (1.0,))["mask"][0, 0]) for seed in range(200)]
    assert set(first) == {1, 9}
    assert 70 < first.count(1) < 130


def test_a_crop_larger_than_the_image_is_filled_with_void():
    image, mask = gradient(10, 12)
    made = sample(random.Random(1), image, mask, 33, (1.0,))
    assert int((made["mask"] != 255).sum()) == 120
    assert not made["image"][:, made["mask"] == 255].any()


def test_the_same_draw_gives_the_same_sample(voc):
    root, folder = voc
    dataset = PseudoMasked(data.find(root, "voc12"), "train_aug", folder, 33, (0.5, 1.0, 1.5))
    first, again = dataset[Draw(1, 7)], dataset[Draw(1, 7)]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["image"], dataset[Draw(1, 8)]["image"])


def test_masks_saved_as_rgb_are_refused(voc):
    root, folder = voc
    path = sorted(folder.glob("*.png"))[0]
    Image.open(path).convert("RGB").save(path)
    dataset = PseudoMasked(data.find(root, "voc12"), "train_aug", folder, 33)
    with pytest.raises(InputError, match=rf"{path.name} has pixels of mode 'RGB'"):
        dataset[Draw(dataset.names.index(path.stem), 0)]


def test_masks_with_numbers_that_are_no_class_are_refused(voc):
    root, folder = voc
    path = sorted(folder.glob("*.png"))[0]
    MASKS.write(path, np.full_like(np.asarray(Image.open(path)), 77), "x")
    dataset = PseudoMasked(data.find(root, "voc12"), "train_aug", folder, 33)
    with pytest.raises(InputError, match="holds 77"):
        dataset[Draw(dataset.names.index(path.stem), 0)]


def test_missing_masks_are_named_at_once(tmp_path, voc):
    root, folder = voc
    first, second, *_ = sorted(folder.glob("*.png"))
    first.unlink()
    second.unlink()
    with pytest.raises(
        InputError, match=rf"2 of 6 training images have no pseudo-mask .*: {first.stem}, {second.stem}"
    ):
        run(options(tmp_path / "run", root), folder)


def test_masks_of_another_size_are_named_at_once(tmp_path, voc):
    root, folder = voc
    path = sorted(folder.glob("*.png"))[0]
    MASKS.write(path, np.zeros((5, 7), np.uint8), "x")
    with pytest.raises(InputError, match=rf"differ in size .*: {path.stem} \(5 x 7 instead of"):
        run(options(tmp_path / "run", root), folder)


def test_a_damaged_mask_is_named(tmp_path, voc):
    root, folder = voc
    path = sorted(folder.glob("*.png"))[0]
    path.write_bytes(b"<html>")
    with pytest.raises(DamagedFile, match=path.name):
        run(options(tmp_path / "run", root), folder)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"crf": "dense"}, "crf is 'dense'; it can be none, psa, deeplab"),
        ({"dataset": "voc07"}, "dataset is 'voc07'"),
        ({"version": "v3"}, "version is 'v3'"),
        ({"backbone": "vgg"}, "backbone is 'vgg'"),
        ({"crop": 0}, "crop is 0; it must be above 0"),
        ({"init": "nowhere.pth"}, "nowhere.pth"),
        ({"masks": None}, "masks is not set"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(tmp_path, knobs, message):
    with pytest.raises(InputError, match=message):
        stage2.recipe(options(tmp_path, tmp_path), Knobs(**({"masks": tmp_path} | knobs)))


def test_there_is_no_demo(tmp_path):
    with pytest.raises(InputError, match='set profile to "full"'):
        stage2.recipe(Options(), Knobs(masks=tmp_path))


class Colours(nn.Module):
    """Stands for a trained network: class 1 where the image is red, else background; unsure in places."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        red = F.avg_pool2d(image[:, :1] - image[:, 2:], 8, ceil_mode=True)
        return torch.cat([-red, red], 1) * self.scale


class TwoScenes:
    """A source of two images with a red box each, and some void."""

    names, num_classes, has_saliency, has_masks = ("a", "b"), 1, False, True

    def image(self, index: int) -> np.ndarray:
        image = np.full((40, 48 + index, 3), (40, 70, 200), np.uint8)
        image[8:33, 11:38] = (210, 50, 30)
        return image

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((40, 48 + index), np.uint8)
        mask[8:33, 11:38] = 1
        mask[:, :4] = 255
        return mask


@pytest.mark.parametrize("name", ["none", "deeplab"])
def test_scores_are_those_of_all_images_together_with_and_without_crf(name):
    net, source, settings = Colours().eval(), TwoScenes(), Settings(crf=name, workers=2)
    numbers = stage2.evaluate(net, source, ("background", "box"), Fabric(accelerator="cpu"), settings, False)
    plain, refined = np.zeros((2, 2), int), np.zeros((2, 2), int)
    for index in range(2):
        p = probabilities(net, source.image(index), settings.test_scales)
        assert p.shape == (2, 40, 48 + index)
        np.testing.assert_allclose(p.sum(0), 1, atol=1e-6)
        plain += metrics.confusion(source.mask(index), p.argmax(0), 2)
        refined += metrics.confusion(source.mask(index), crf.DEEPLAB(source.image(index), p).argmax(0), 2)
    assert numbers["miou"] == pytest.approx(100 * metrics.scores(plain).miou)
    final = metrics.scores(plain if name == "none" else refined)
    assert [numbers["iou/background"], numbers["iou/box"]] == pytest.approx((100 * final.iou).tolist())
    assert ("miou_crf" in numbers) == (name == "deeplab")
    if name == "deeplab":
        assert numbers["miou_crf"] == pytest.approx(100 * final.miou)
        assert numbers["miou_crf"] > numbers["miou"]


def test_the_record_can_be_written_as_json(tmp_path, voc):
    root, folder = voc
    made = run(options(tmp_path / "run", root), folder, backbone="vgg16")
    assert json.loads(json.dumps(made.numbers)) == made.numbers
