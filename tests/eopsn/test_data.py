"""What a draw decides, what the network is told of an image, and users of data that do not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cvpr21lib.eopsn import classes, data, model
from cvpr21lib.eopsn.config import UNKNOWN, Config
from cvpr21lib.eopsn.data import Augmentation, Training
from cvpr21lib.eopsn.pseudo_truth import PseudoTruth, absolute, relative
from cvpr21lib.errors import InputError
from cvpr21lib.sampling import Batches, Draw
from cvpr21lib.segmentation import coco2017, stored
from cvpr21lib.segmentation.coco2017 import COCO2017
from cvpr21lib.segmentation.stored import DamagedFile
from tests.eopsn import miniature

torch.set_num_threads(1)

SMALL = Augmentation(sides=(40, 56), longest=80)
AS_STORED = Augmentation(sides=(48,), longest=100, flip=False)
"""Image 0 of the miniature has 48 by 64 pixels."""
PERSON, DOG = 0, 11
"""Labels for K = 20. Dog is COCO's 18; before it, five things are unknown, and there is no number 12."""


@pytest.fixture
def root(miniature_coco2017) -> Path:
    return miniature_coco2017()


def edit(path: Path, change) -> None:
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


def edit_instances(root: Path, change, k: int = 20) -> None:
    edit(COCO2017(root / "COCO2017").known_instances(k), change)


def label_all(root: Path, place: int, value: int, k: int = 20) -> None:
    """Make one image's semantic labels all the same."""
    opened = Training(root, k)
    path = opened.layout.semantic(k) / opened.instances.images[place].png
    Image.fromarray(np.full_like(stored.read_grey(path), value)).save(path)


def mirrored(dataset: Training, place: int, flipped: bool) -> data.Example:
    """The image, drawn with the wanted flip."""
    return next(example for seed in range(50) if (example := dataset[Draw(place, seed)]).flipped == flipped)


# --- labels -------------------------------------------------------------------------------------------------


def test_unknown_classes_are_nested_and_as_many_as_k_says():
    five, ten, twenty = (set(classes.UNKNOWN_THINGS[k]) for k in (5, 10, 20))
    assert five < ten < twenty
    assert five == {"car", "cow", "pizza", "toilet"}
    assert ten - five == {"boat", "tie", "zebra", "stop sign"}
    assert twenty - ten == {*("dining table", "banana", "bicycle", "cake", "sink", "cat", "keyboard", "bear")}
    for k, those in ((5, five), (10, ten), (20, twenty)):
        assert len(those) == 80 * k / 100


@pytest.mark.parametrize(("k", "known"), [(5, 76), (10, 72), (20, 64)])
def test_labels_are_contiguous_and_lead_back_to_cocos_numbers(k, known):
    of_coco = classes.of_coco(k)
    assert len(of_coco.known) == known
    assert list(of_coco.stuff) == list(range(1, 54))
    assert list(of_coco.stuff.values()) == sorted(coco2017.STUFF)
    assert [of_coco.label[of_coco.category(label)] for label in range(known)] == list(range(known))
    assert of_coco.category(UNKNOWN) == UNKNOWN
    assert not set(of_coco.known) & set(of_coco.unknown)


def test_the_networks_defaults_are_those_of_k_20():
    of_coco = classes.of_coco(20)
    assert (Config().known, Config().stuff) == (len(of_coco.known), len(of_coco.stuff))


def test_another_k_is_refused():
    with pytest.raises(InputError, match="k is 15; there are splits for 5, 10, 20"):
        classes.of_coco(15)


# --- geometry -----------------------------------------------------------------------------------------------


def test_the_augmentation_is_the_official_one():
    official = data.OFFICIAL
    assert official == Augmentation((640, 672, 704, 736, 768, 800), 1333, True)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((500, 500), (800, 800)),
        ((200, 1000), (267, 1333)),  # the longer side decides
        ((1, 4000), (1, 1333)),  # no side vanishes
    ],
)
def test_sizes_are_rounded_as_in_detectron2(size, expected):
    assert data.resized(size, 800, 1333) == expected


def test_an_image_is_blue_green_red_less_the_mean_and_not_resized_needlessly(root):
    example = Training(root, 20, AS_STORED)[Draw(0, 0)]
    pixels = np.asarray(Image.open(root / "COCO2017/train2017/000000000001.jpg"))
    mean = np.array([103.53, 116.28, 123.675])
    np.testing.assert_allclose(example.image.permute(1, 2, 0), pixels[..., ::-1] - mean, atol=1e-5)


def test_images_are_mirrored_then_resized_bilinearly_in_eight_bits(root):
    dataset = Training(root, 20, Augmentation((56,), 80))
    pixels = Image.open(root / "COCO2017/train2017/000000000001.jpg")
    pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((75, 56), Image.Resampling.BILINEAR)
    expected = model.bgr(torch.from_numpy(np.array(pixels)).permute(2, 0, 1))
    torch.testing.assert_close(mirrored(dataset, 0, True).image, expected, rtol=0, atol=0)


def test_shorter_sides_and_mirroring_are_drawn_evenly(root):
    dataset = Training(root, 20, Augmentation((20, 30, 40), 80))
    drawn = [dataset[Draw(4, seed)] for seed in range(120)]
    sides = [min(example.image.shape[1:]) for example in drawn]
    assert {side: 25 < sides.count(side) < 55 for side in sides} == {20: True, 30: True, 40: True}
    assert 40 < sum(example.flipped for example in drawn) < 80


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("place", range(4))
def test_boxes_polygons_labels_and_pixels_stay_together(root, place, flipped):
    dataset = Training(root, 20, Augmentation((96,), 200))
    example = mirrored(dataset, place, flipped)
    objects, semantic = example.truth.objects, example.truth.semantic
    assert semantic.shape == example.image.shape[1:]
    assert objects.labels.tolist() == [PERSON, DOG]
    height, width = semantic.shape
    whole = torch.tensor([[0.0, 0, width, height]])
    for number, corners in enumerate(objects.boxes):
        x1, y1, x2, y2 = corners.round().long().tolist()
        inside = semantic[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
        assert inside.unique().tolist() == [0], "the box lies on its thing"
        drawn = example.truth.masks.inside(whole, torch.tensor([number]), 100)[0]
        rows, columns = drawn.nonzero().T
        found = [columns.min() * width, rows.min() * height, columns.max() * width, rows.max() * height]
        torch.testing.assert_close(torch.stack(found).float() / 100, corners, rtol=0, atol=0.02 * width)


def test_void_is_a_class_after_stuff_and_holds_what_is_unknown_or_unlabelled(root):
    for k, hidden in ((5, 2), (20, 3)):  # image 0 shows a car, unknown from K = 5 on, and a banana
        label = Training(root, k, AS_STORED)[Draw(0, 0)].truth.semantic
        assert set(label.unique().tolist()) == {0, 40, 46, 54}
        assert int((label == 54).sum()) == hidden * 9 * 18


def test_boxes_come_back_from_the_mirrored_image(root):
    dataset = Training(root, 20, SMALL)
    found = []
    for flipped in (False, True):
        example = mirrored(dataset, 1, flipped)
        size = tuple(example.image.shape[1:])
        found.append(relative(example.truth.objects.boxes, size, flipped))
        torch.testing.assert_close(absolute(found[-1], size, flipped), example.truth.objects.boxes)
    torch.testing.assert_close(*found)


# --- draws and batches --------------------------------------------------------------------------------------


def test_a_draw_decides_everything_and_another_seed_something_else(root):
    dataset, again = Training(root, 20, SMALL), Training(root, 20, SMALL)
    for seed in range(4):
        first, second = dataset[Draw(0, seed)], again[Draw(0, seed)]
        assert torch.equal(first.image, second.image)
        assert torch.equal(first.truth.semantic, second.truth.semantic)
        assert torch.equal(first.truth.objects.boxes, second.truth.objects.boxes)
    shapes = {(dataset[Draw(0, seed)].image.shape, dataset[Draw(0, seed)].flipped) for seed in range(20)}
    assert len(shapes) == 4


def test_worker_processes_give_the_same_batches(root):
    dataset = Training(root, 20, SMALL)
    batches = Batches(len(dataset), 2, seed=3, last=3)
    alone, worked = (
        list(DataLoader(dataset, batch_sampler=batches, num_workers=workers, collate_fn=data.collate))
        for workers in (0, 1)
    )
    for first, second in zip(alone, worked, strict=True):
        assert (first.places, first.flipped) == (second.places, second.flipped)
        assert torch.equal(first.batch.images, second.batch.images)
        for one, other in zip(first.truths, second.truths, strict=True):
            assert torch.equal(one.semantic, other.semantic)


def test_batches_are_padded_with_zeros_to_multiples_of_32(root):
    dataset = Training(root, 20, SMALL)
    examples = [dataset[Draw(place, place)] for place in range(3)]
    batch = data.collate(examples).batch
    assert all(side % 32 == 0 for side in batch.images.shape[2:])
    for image, example, (height, width) in zip(batch.images, examples, batch.sizes, strict=True):
        assert torch.equal(image[:, :height, :width], example.image)
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()


def test_an_exemplar_image_is_appended_as_if_it_had_been_in_the_batch(root):
    dataset = Training(root, 20, SMALL)
    first, second, third = (dataset[Draw(place, 7)] for place in (0, 4, 3))
    appended = data.collate([first, second]).plus(third).to("cpu")
    together = data.collate([first, second, third])
    assert torch.equal(appended.batch.images, together.batch.images)
    assert appended.batch.sizes == together.batch.sizes
    assert (appended.places, appended.flipped) == (together.places, together.flipped)
    assert torch.equal(appended.truths[2].semantic, third.truth.semantic)


def test_images_are_known_by_number_or_by_name(root):
    dataset = Training(root, 20, SMALL)
    assert dataset.images == [1, miniature.NAMED, 15, 22, 29]
    assert PseudoTruth(dataset.images).images == dataset.images


def test_the_fingerprint_tells_the_splits_and_any_change_of_an_object(root):
    before = Training(root, 20).fingerprint()
    assert Training(root, 20).fingerprint() == before
    assert Training(root, 5).fingerprint() != before
    edit_instances(root, lambda contents: contents["annotations"][0]["bbox"].__setitem__(0, 1.5))
    assert Training(root, 20).fingerprint() != before


def test_test_images_come_in_order_with_the_name_of_their_prediction(root):
    dataset = data.Test(COCO2017.find(root, 20), side=96)
    assert [(picture.file.id, picture.file.png) for picture in (dataset[i] for i in range(3))] == [
        (2, "000000000002.png"),
        (9, "000000000009.png"),
        (16, "000000000016.png"),
    ]
    assert dataset[0].file.size == (48, 64)
    assert dataset[0].image.shape == (3, 96, 128)


def test_test_images_have_800_pixels_on_the_shorter_side(root):
    assert data.Test(COCO2017.find(root, 20))[0].image.shape == (3, 800, 1067)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["no void", "void everywhere", "no annotation"])
def test_an_image_without_void_with_nothing_else_or_without_annotation_can_be_learnt_from(root, what):
    place = 4 if what == "no annotation" else 0
    if what == "no void":
        label_all(root, place, 46)
    if what == "void everywhere":
        label_all(root, place, classes.VOID)
        edit_instances(root, lambda contents: contents["annotations"].clear())
    example = Training(root, 20, SMALL)[Draw(place, 0)]
    assert len(example.truth.objects.boxes) == (2 if what == "no void" else 0)
    assert example.truth.objects.boxes.shape[1] == 4
    torch.manual_seed(0)
    net = model.panoptic_fpn(
        Config(box_fc=(8, 8), mask_convs=(8,)), model.Widths(8, 16, 8, pyramid=16, semantic=32)
    ).train()
    examples = data.collate([example])
    step = net(examples.batch, examples.truths)
    assert all(math.isfinite(loss.detach()) for loss in step.losses.values())
    if what == "void everywhere":
        assert float(step.losses["loss_void_neg"].detach()) > 0
    else:
        assert float(step.losses["loss_void_neg"].detach()) == 0
    assert float(step.losses["loss_sem_seg"].detach()) > 0


def test_boxes_are_cut_at_the_image_and_dropped_if_nothing_is_left(root):
    triangle = [[5, 5, 30, 5, 30, 30]]
    boxes = {
        "reaches out": [50, 30, 100, 100],
        "outside": [64, 0, 10, 10],
        "far outside": [-30, 0, 20, 20],
        "flat": [5, 5, 0, 20],
        "inside out": [30, 5, -20, 20],
        "barely": [5, 5, 1e-6, 20],
        "fine": [5, 5, 10, 20],
    }

    def change(contents):
        contents["annotations"] = [
            {"id": name, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": triangle, "iscrowd": 0}
            for name, box in boxes.items()
        ]

    edit_instances(root, change)
    truth = Training(root, 20, AS_STORED)[Draw(0, 0)].truth
    assert truth.objects.boxes.tolist() == [[50, 30, 64, 48], [5, 5, 15, 25]]
    assert len(truth.objects.labels) == len(truth.masks) == 2


def test_polygons_of_less_than_three_points_are_left_out_with_objects_that_have_no_other(root):
    def change(contents):
        first, second = contents["annotations"][:2]
        first["segmentation"] = [[1, 2, 3, 4]]
        second["segmentation"].insert(0, [1, 2, 3, 4])

    edit_instances(root, change)
    truth = Training(root, 20, AS_STORED)[Draw(0, 0)].truth
    assert truth.objects.labels.tolist() == [DOG]
    assert [len(rings) for rings in truth.masks.rings] == [1]


def test_two_images_with_the_same_id_are_named(root):
    edit_instances(root, lambda contents: contents["images"][2].update(id=1))
    with pytest.raises(InputError, match=r"instances\.json has two images with the same id: 1; remove"):
        Training(root, 20)


def test_two_images_whose_labels_would_be_the_same_file_are_named(root):
    edit_instances(root, lambda contents: contents["images"][2].update(file_name="000000000001.png"))
    with pytest.raises(InputError, match=r"two images with the same PNG: 000000000001\.png"):
        Training(root, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 3}, "it is of image 3, which is not listed"),
        (
            {"category_id": miniature.CAR},
            "it is of category 3, which is not a known thing; expected the inst",
        ),
        ({"bbox": [0, 0, float("nan"), 2]}, "its box or a polygon is not finite"),
        ({"bbox": [0, 0, 2]}, "it is not in COCO's format"),
        ({"segmentation": {"size": [48, 64], "counts": [9]}}, "it is drawn as run lengths"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "it is not in COCO's format"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named(root, change, message):
    edit_instances(root, lambda contents: contents["annotations"][1].update(change))
    with pytest.raises(InputError, match=rf"instances\.json, annotation 3: {message}"):
        Training(root, 20)


def test_instances_of_another_k_are_refused(root):
    layout = COCO2017.find(root, 20)
    layout.known_instances(20).write_bytes(layout.known_instances(5).read_bytes())
    with pytest.raises(InputError, match="it is of category 52, which is not a known thing"):
        Training(root, 20)


def test_missing_files_are_named_with_the_command_that_brings_them(root):
    layout = COCO2017.find(root, 20)
    (layout.images("train") / "000000000015.jpg").rename(root / "moved.jpg")
    with pytest.raises(
        InputError, match=r"1 of 5 images are missing in .*: 000000000015\.jpg.*coco_panoptic"
    ):
        Training(root, 20)
    (root / "moved.jpg").rename(layout.images("train") / "000000000015.jpg")
    (layout.semantic(20) / f"{miniature.NAMED}.png").unlink()
    with pytest.raises(InputError, match=rf"1 of 5 semantic labels are missing .*: {miniature.NAMED}\.png"):
        Training(root, 20)
    (layout.images("val") / "000000000002.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images are missing in .*val2017: 000000000002\.jpg"):
        data.Test(layout)


def test_a_data_set_that_is_not_there_is_named_with_the_command_that_brings_it(tmp_path):
    command = "python -m data_scripts.coco_panoptic --root"
    with pytest.raises(InputError, match=f"data_root is not set.*{command}"):
        COCO2017.find(None, 20)
    with pytest.raises(InputError, match=f"COCO2017 was not found; looked in .*{command}"):
        COCO2017.find(tmp_path, 20)


def test_damaged_and_resized_files_are_named(root):
    layout = COCO2017.find(root, 20)
    dataset = Training(root, 20, SMALL)
    path = layout.images("train") / "000000000001.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DamagedFile, match=r"000000000001\.jpg is damaged"):
        dataset[Draw(0, 0)]
    Image.new("RGB", (32, 24)).save(layout.images("train") / "000000000015.jpg")
    with pytest.raises(InputError, match=r"000000000015\.jpg has 24×32 pixels and its JSON says 50×66"):
        dataset[Draw(2, 0)]
    label_all(root, 3, 54)
    with pytest.raises(InputError, match=r"000000000022\.png has the label 54; expected 0 to 53, or 255"):
        dataset[Draw(3, 0)]
