"""What a draw decides, what a source gives, and what a user is told about data that does not fit."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch.utils.data import DataLoader

from cvpr21lib.eps import data
from cvpr21lib.eps.data import Augmentation, Folders, Inference, Scenes, Training, Validation
from cvpr21lib.eps.resnet38 import normalise
from cvpr21lib.eps.sources import FALLBACK
from cvpr21lib.errors import InputError
from cvpr21lib.sampling import Batches, Draw
from cvpr21lib.segmentation import image_labels, masks
from cvpr21lib.segmentation.stored import DamagedFile
from cvpr21lib.segmentation.voc import CLASSES
from tests.conftest import photograph

torch.set_num_threads(1)

SMALL = Augmentation(long_side=(40, 60), crop=32)
PLAIN = Augmentation(long_side=None, crop=None, flip=False, jitter=None)


def open_voc(root: Path, split: str = "train_aug", **options: object) -> Folders:
    layout = data.find(root, "voc12")
    return Folders(layout, split, data.find_saliency(layout), **options)


def alike(height: int = 24, width: int = 32, number: int = 3) -> Scenes:
    """Scenes whose red channel is their saliency, so that one can be compared with the other."""
    images = [photograph(seed, height, width) for seed in range(number)]
    return Scenes(images, [(0,), (1, 2), ()][:number], 3, saliency=[image[..., 0].copy() for image in images])


def red(sample: dict[str, torch.Tensor]) -> torch.Tensor:
    """The red channel as it was before normalisation, in [0, 1]; 0 around the image."""
    around = (sample["image"] == 0).all(0)
    return (sample["image"][0] * 0.229 + 0.485).masked_fill(around, 0)


def test_the_augmentations_are_the_official_ones():
    for ours, long_side, crop in ((data.VOC_CROPS, (256, 512), 448), (data.COCO_CROPS, (256, 448), 321)):
        assert (ours.long_side, ours.crop) == (long_side, crop)
        assert ours.flip
        assert ours.jitter == (0.3, 0.3, 0.3, 0.1)


@pytest.mark.parametrize("dataset", ["voc12", "coco14"])
def test_a_sample_is_a_crop_its_saliency_and_its_labels(dataset, request):
    root = request.getfixturevalue("miniature_voc" if dataset == "voc12" else "miniature_coco")()
    layout = data.find(root, dataset)
    source = Folders(layout, data.TRAINING_SPLIT[dataset], data.find_saliency(layout))
    sample = Training(source, SMALL)[Draw(0, 7)]
    assert {name: tuple(value.shape) for name, value in sample.items()} == {
        "image": (3, 32, 32),
        "saliency": (1, 32, 32),
        "label": (len(layout.classes),),
    }
    assert all(value.dtype == torch.float32 for value in sample.values())
    assert 0 <= sample["saliency"].min() < sample["saliency"].max() <= 1
    shown = [layout.classes[number] for number in sample["label"].nonzero().flatten().tolist()]
    assert shown == ({"voc12": ["boat", "train"], "coco14": ["person", "train"]}[dataset])


def test_saliency_is_resized_mirrored_and_cut_like_its_image():
    crops = Training(alike(), Augmentation(long_side=(20, 48), crop=24, jitter=None))
    for seed in range(40):
        sample = crops[Draw(seed % 3, seed)]
        torch.testing.assert_close(red(sample), sample["saliency"][0], atol=1e-6, rtol=0)


def test_colours_change_in_the_image_alone():
    plain = Training(alike(), Augmentation(long_side=(20, 48), crop=24, jitter=None))
    changed = Training(alike(), Augmentation(long_side=(20, 48), crop=24))
    for sample in (changed[Draw(0, 1)], plain[Draw(0, 1)]):
        assert 0 <= sample["saliency"].min() <= sample["saliency"].max() <= 1
    assert not torch.equal(changed[Draw(0, 1)]["image"], plain[Draw(0, 1)]["image"])


def test_the_whole_image_unchanged_is_the_normalised_file(miniature_voc):
    source = open_voc(miniature_voc())
    sample = Training(source, PLAIN)[Draw(2, 0)]
    torch.testing.assert_close(sample["image"], normalise(source.image(2)), rtol=0, atol=0)
    np.testing.assert_allclose(sample["saliency"][0] * 255, source.saliency(2), atol=1e-4)


def test_half_of_the_crops_are_mirrored():
    scenes = alike(number=1)
    crops = Training(scenes, Augmentation(long_side=None, crop=None, jitter=None))
    upright = normalise(scenes.image(0))
    mirrored = sum(not torch.equal(crops[Draw(0, seed)]["image"], upright) for seed in range(400))
    assert 150 < mirrored < 250
    other = next(
        s for s in (crops[Draw(0, seed)]["image"] for seed in range(99)) if not torch.equal(s, upright)
    )
    assert torch.equal(other.flip(2), upright)


def test_the_longer_side_takes_every_length_of_its_range_equally():
    crops = Training(alike(number=1), Augmentation(long_side=(20, 29), crop=None))
    seen = Counter(crops[Draw(0, seed)]["image"].shape[2] for seed in range(500))
    assert set(seen) == set(range(20, 30))
    assert all(25 < count < 80 for count in seen.values())


def test_a_crop_larger_than_the_image_shows_all_of_it_and_zeros_around():
    scenes = alike(height=12, width=20, number=1)
    crops = Training(scenes, Augmentation(long_side=None, crop=32, flip=False, jitter=None))
    wanted, places = normalise(scenes.image(0)), set()
    for seed in range(30):
        sample = crops[Draw(0, seed)]
        rows, columns = (sample["image"] != 0).any(0).nonzero().unbind(1)
        inside = np.s_[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        torch.testing.assert_close(sample["image"][inside], wanted, rtol=0, atol=0)
        outside = torch.ones(32, 32, dtype=torch.bool)
        outside[inside[1:]] = False
        assert (sample["image"][:, outside] == 0).all(), "the mean colour"
        assert (sample["saliency"][:, outside] == 0).all(), "not salient"
        places.add((int(rows.min()), int(columns.min())))
    assert len(places) > 15


def test_the_same_draw_gives_the_same_sample_whatever_the_global_random_state(miniature_voc):
    crops = Training(open_voc(miniature_voc()), SMALL)
    random.seed(1), torch.manual_seed(1), np.random.seed(1)  # noqa: NPY002
    first = crops[Draw(2, 99)]
    random.seed(2), torch.manual_seed(2), np.random.seed(2)  # noqa: NPY002
    again = crops[Draw(2, 99)]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["image"], crops[Draw(2, 100)]["image"])


def test_the_baseline_sees_the_same_crops_and_no_saliency(miniature_voc):
    root = miniature_voc()
    layout = data.find(root, "voc12")
    with_saliency = Training(open_voc(root), SMALL)
    without = Training(Folders(layout, "train_aug"), SMALL, saliency=False)
    for draw in (Draw(0, 3), Draw(5, 4)):
        assert set(without[draw]) == {"image", "label"}
        assert torch.equal(without[draw]["image"], with_saliency[draw]["image"])


def test_eps_without_saliency_is_refused():
    with pytest.raises(InputError, match="EPS learns from saliency, but the source has none"):
        Training(Scenes([photograph(0, 8, 8)], [(0,)], 1))


def test_workers_do_not_change_the_samples():
    crops = Training(alike(), Augmentation(long_side=(20, 48), crop=16))

    def batches(workers: int) -> list[dict[str, torch.Tensor]]:
        sampler = Batches(len(crops), 2, seed=10, last=3)
        return list(DataLoader(crops, batch_sampler=sampler, num_workers=workers))

    alone, shared = batches(0), batches(2)
    assert len(alone) == len(shared) == 3
    for ours, theirs in zip(alone, shared, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_inference_gives_whole_images_in_the_order_of_the_list(miniature_voc):
    root = miniature_voc()
    images = Inference(Folders(data.find(root, "voc12"), "train"))
    assert [images[i]["name"] for i in range(len(images))] == ["2007_000000", "2007_000001", "2007_000002"]
    stored = np.asarray(Image.open(root / "VOC2012/JPEGImages/2007_000001.jpg"))
    np.testing.assert_array_equal(images[1]["image"], stored)
    assert images[1]["image"].dtype == np.uint8
    assert images[1]["label"].nonzero()[0].tolist() == [CLASSES.index("boat")]
    assert set(images[0]) == {"name", "image", "label"}


def test_validation_adds_the_ground_truth(miniature_voc):
    judged = Validation(Folders(data.find(miniature_voc(), "voc12"), "val", masks=True))
    for i in range(len(judged)):
        item = judged[i]
        assert item["mask"].shape == item["image"].shape[:2]
        assert set(masks.classes(item["mask"])) == set(item["label"].nonzero()[0].tolist())
        assert (item["mask"] == masks.VOID).any(), "VOC's own masks have void contours"
    with pytest.raises(InputError, match="Masks are judged by ground truth, but the source has none"):
        Validation(Folders(judged.source.layout, "val"))


def test_scenes_go_through_the_same_classes():
    truth = np.zeros((12, 16), np.uint8)
    truth[2:5] = 2
    scenes = Scenes([photograph(0, 12, 16)], [(1,)], 2, saliency=[truth * 127], masks=[truth])
    item = Validation(scenes)[0]
    np.testing.assert_array_equal(item["mask"], truth)
    np.testing.assert_array_equal(item["label"], np.float32([0, 1]))
    assert Training(scenes, PLAIN)[Draw(0, 0)]["saliency"].max() == pytest.approx(254 / 255)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [np.zeros((4, 4, 3), np.float32)]}, "expected uint8"),
        ({"labels": [(3,)]}, "has the label 3; expected 0 to 2"),
        ({"labels": [(-1,)]}, "has the label -1; expected 0 to 2"),
        ({"labels": []}, "There are 1 scenes, but 0 labels"),
        ({"saliency": [np.zeros((4, 5), np.uint8)]}, "saliency of scene 00000"),
        ({"masks": [np.zeros((4, 4), np.int64)]}, "mask of scene 00000"),
    ],
)
def test_scenes_that_do_not_fit_are_refused(changes, message):
    given = {"images": [np.zeros((4, 4, 3), np.uint8)], "labels": [(0,)], "num_classes": 3, **changes}
    with pytest.raises(InputError, match=message):
        Scenes(**given)


def edit_labels(root: Path, name: str, numbers: tuple[int, ...] | None) -> None:
    path = root / "VOC2012/image_labels.json"
    labels = image_labels.read(path, CLASSES)
    labels = {each: found for each, found in labels.items() if each != name}
    image_labels.write(path, labels if numbers is None else {**labels, name: numbers}, CLASSES)


def test_an_image_without_any_label_is_a_sample_of_zeros(miniature_voc):
    root = miniature_voc()
    edit_labels(root, "2007_000000", ())
    source = open_voc(root)
    assert not Training(source, SMALL)[Draw(0, 1)]["label"].any()
    assert not Inference(source)[0]["label"].any()


def test_an_image_that_the_labels_do_not_know_is_named(miniature_voc):
    root = miniature_voc()
    edit_labels(root, "2007_000000", None)
    with pytest.raises(
        InputError, match=rf"1 of 6 images have no image labels: 2007_000000\. Run .*voc2012 --root {root}"
    ):
        open_voc(root)


def test_a_label_outside_of_the_classes_is_named(miniature_voc):
    root = miniature_voc()
    path = root / "VOC2012/image_labels.json"
    path.write_text(path.read_text().replace('"2007_000001": ["boat"]', '"2007_000001": ["barque"]'))
    with pytest.raises(InputError, match="labels 2007_000001 with 'barque'"):
        open_voc(root)


def test_missing_images_and_masks_are_named(miniature_voc):
    root = miniature_voc()
    layout = data.find(root, "voc12")
    layout.mask("2008_000001").unlink()
    with pytest.raises(InputError, match=r"1 of 6 images have no mask in .*: 2008_000001"):
        Folders(layout, "train_aug", masks=True)
    layout.image("2008_000002").unlink()
    with pytest.raises(InputError, match=r"1 of 6 images are missing in .*: 2008_000002"):
        Folders(layout, "train_aug")


def test_missing_saliency_maps_are_named(miniature_voc):
    root = miniature_voc()
    for number in (0, 2):
        (root / f"VOC2012_saliency/2008_{number:06d}.png").unlink()
    with pytest.raises(
        InputError,
        match=r"2 of 6 images have no saliency map in .*: 2008_000000, 2008_000002.*scripts\.saliency",
    ):
        open_voc(root)


def test_saliency_of_another_size_is_named_with_both_sizes(miniature_voc):
    root = miniature_voc()
    Image.new("L", (20, 10)).save(root / "VOC2012_saliency/2007_000001.png")
    with pytest.raises(
        InputError, match=r"of another size in .*: 2007_000001 \(map 20 x 10, image 65 x 49\)"
    ):
        open_voc(root)


def test_coloured_saliency_is_refused_and_not_skipped_as_damage(miniature_voc):
    root = miniature_voc()
    Image.fromarray(photograph(0, 49, 65)).save(root / "VOC2012_saliency/2007_000001.png")
    with pytest.raises(InputError, match=r"2007_000001\.png is a coloured picture"):
        Training(open_voc(root), SMALL, on_damage="skip")[Draw(1, 0)]


def test_grey_saliency_stored_as_rgb_is_the_same_as_grey(miniature_voc):
    root = miniature_voc()
    path = root / "VOC2012_saliency/2007_000001.png"
    before = Training(open_voc(root), SMALL)[Draw(1, 5)]
    Image.open(path).convert("RGB").save(path)
    after = Training(open_voc(root), SMALL)[Draw(1, 5)]
    assert torch.equal(before["saliency"], after["saliency"])


def test_all_black_saliency_says_that_nothing_is_salient(miniature_voc):
    root = miniature_voc()
    Image.new("L", (65, 49)).save(root / "VOC2012_saliency/2007_000001.png")
    assert (Training(open_voc(root), SMALL)[Draw(1, 0)]["saliency"] == 0).all()


def test_a_mask_saved_as_rgb_is_refused(miniature_voc):
    layout = data.find(miniature_voc(), "voc12")
    path = layout.mask("2009_000000")
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(InputError, match=r"2009_000000\.png has pixels of mode 'RGB'"):
        Validation(Folders(layout, "val", masks=True))[0]


def test_void_everywhere_is_a_valid_ground_truth(miniature_voc):
    layout = data.find(miniature_voc(), "voc12")
    path = layout.mask("2009_000000")
    masks.write(path, np.full_like(masks.read(path, 21), masks.VOID))
    assert (Validation(Folders(layout, "val", masks=True))[0]["mask"] == masks.VOID).all()


def truncate(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("victim", ["VOC2012/JPEGImages/2007_000002.jpg", "VOC2012_saliency/2007_000002.png"])
def test_a_truncated_file_stops_the_epoch_with_its_name(miniature_voc, victim):
    root = miniature_voc()
    truncate(root / victim)
    crops = Training(open_voc(root), SMALL)
    assert crops[Draw(1, 0)]["image"].shape == (3, 32, 32)
    with pytest.raises(DamagedFile, match=rf"{victim} is damaged or cut short .*fetch it again"):
        crops[Draw(2, 0)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_jpeg_is_skipped_named_and_counted_if_so_told(miniature_voc, workers):
    root = miniature_voc()
    truncate(root / "VOC2012/JPEGImages/2007_000002.jpg")
    (root / "VOC2012/JPEGImages/2008_000000.jpg").write_bytes(b"")
    crops = Training(open_voc(root), SMALL, on_damage="skip")
    assert crops.damaged == []
    loader = DataLoader(crops, batch_sampler=Batches(len(crops), 3, seed=0, last=4), num_workers=workers)
    with pytest.warns(UserWarning, match=r"skipped: .*2007_000002\.jpg") if workers == 0 else nullcontext():
        batches = list(loader)
    assert [len(batch["image"]) for batch in batches] == [3, 3, 3, 3]
    assert crops.damaged == ["2007_000002", "2008_000000"], "whichever process met them"


@pytest.mark.filterwarnings("ignore:skipped")
def test_what_takes_the_place_of_a_damaged_image_follows_from_the_draw(miniature_voc):
    root = miniature_voc()
    truncate(root / "VOC2012/JPEGImages/2007_000002.jpg")
    crops, again = (Training(open_voc(root), SMALL, on_damage="skip") for _ in range(2))
    for seed in range(10):
        first, second = crops[Draw(2, seed)], again[Draw(2, seed)]
        assert all(torch.equal(first[name], second[name]) for name in first)
    labels = {tuple(crops[Draw(2, seed)]["label"].nonzero().flatten().tolist()) for seed in range(30)}
    assert len(labels) > 2, "not always the same image"


@pytest.mark.filterwarnings("ignore:skipped")
def test_nothing_but_damage_ends_even_a_run_that_skips(miniature_voc):
    root = miniature_voc()
    for path in (root / "VOC2012/JPEGImages").iterdir():
        truncate(path)
    with pytest.raises(InputError, match=r"20 images in a row are damaged, the last one: .*\.jpg is damaged"):
        Training(open_voc(root), SMALL, on_damage="skip")[Draw(0, 0)]


def test_damage_in_inference_is_an_error_with_a_name(miniature_voc):
    root = miniature_voc()
    truncate(root / "VOC2012/JPEGImages/2007_000002.jpg")
    with pytest.raises(DamagedFile, match=r"2007_000002\.jpg"):
        Inference(Folders(data.find(root, "voc12"), "train"))[2]


def test_other_policies_do_not_exist():
    with pytest.raises(InputError, match="on_damage is 'ignore'; it can be stop, skip"):
        Training(alike(), on_damage="ignore")


def test_a_data_set_is_found_by_its_short_name(miniature_voc, miniature_coco):
    root = miniature_voc(saliency=False)
    miniature_coco(saliency=False, root=root)
    assert data.find(root, "voc12").root == root / "VOC2012"
    assert data.find(root, "coco14").root == root / "COCO2014"
    with pytest.raises(InputError, match="dataset is 'voc07'; it can be voc12, coco14"):
        data.find(root, "voc07")


def test_missing_saliency_is_one_clear_error_and_a_fallback_is_never_taken_silently(miniature_voc):
    root = miniature_voc(saliency=False)
    layout = data.find(root, "voc12")
    with pytest.raises(InputError) as error:
        data.find_saliency(layout)
    for part in (
        str(root / "VOC2012_saliency"),
        f"data_scripts.saliency --root {root / 'VOC2012'} --dataset voc12 --source DIR",
        "--fallback",
    ):
        assert part in str(error.value)
    (root / "VOC2012_saliency_fallback").mkdir()
    with pytest.raises(InputError, match=r"set saliency_root to .*VOC2012_saliency_fallback"):
        data.find_saliency(layout)
    fallback = data.saliency_folder(layout, fallback=True)
    assert data.find_saliency(layout, fallback) == fallback
    with pytest.raises(InputError, match="nowhere does not exist"):
        data.find_saliency(layout, root / "nowhere")


def test_a_fallback_is_known_by_its_files_wherever_they_lie(miniature_voc, tmp_path):
    root = miniature_voc()
    assert open_voc(root).saliency_kind == "given"
    assert Folders(data.find(root, "voc12"), "val").saliency_kind == "none"
    elsewhere = shutil.copytree(root / "VOC2012_saliency", tmp_path / "best_saliency_ever")
    about = PngImagePlugin.PngInfo()
    about.add_text("Description", FALLBACK)
    path = elsewhere / "2008_000001.png"
    Image.open(path).save(path, pnginfo=about)
    source = Folders(data.find(root, "voc12"), "train_aug", elsewhere)
    assert source.saliency_kind == "fallback"
    assert source.fingerprint().startswith("fallback-")
    assert Training(source, SMALL).fingerprint() == source.fingerprint()


def test_the_fingerprint_follows_the_data(miniature_voc, tmp_path):
    root, twin = miniature_voc(), miniature_voc(root=tmp_path / "elsewhere")
    assert open_voc(root).fingerprint() == open_voc(twin).fingerprint(), "the same data at another place"
    assert open_voc(root).fingerprint() != open_voc(root, "val").fingerprint()
    edit_labels(twin, "2008_000001", (0,))
    assert open_voc(root).fingerprint() != open_voc(twin).fingerprint()
    one = Image.open(root / "VOC2012/JPEGImages/2007_000001.jpg").copy()
    one.save(root / "VOC2012/JPEGImages/2007_000001.jpg", quality=50)
    assert open_voc(root).fingerprint() != open_voc(miniature_voc(root=tmp_path / "third")).fingerprint()


def test_the_fingerprint_of_scenes_follows_them_but_not_their_last_bits():
    one = alike()
    assert one.fingerprint() == alike().fingerprint()
    nudged = [scene.copy() for scene in one._images]
    nudged[0][0, 0, 0] ^= 1
    assert Scenes(nudged, one._labels, 3, one._saliency).fingerprint() == one.fingerprint()
    assert Scenes(one._images, [(2,), (1, 2), ()], 3, one._saliency).fingerprint() != one.fingerprint()
    assert Scenes(one._images, one._labels, 3).fingerprint() != one.fingerprint()
    assert Scenes(one._images[::-1], one._labels, 3, one._saliency).fingerprint() != one.fingerprint()
