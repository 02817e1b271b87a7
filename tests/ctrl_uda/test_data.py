"""What a sample is, and what a user is told about data that does not fit."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cvpr21lib.ctrl_uda import data
from cvpr21lib.ctrl_uda.label_maps import VOID, label_map
from cvpr21lib.errors import InputError
from cvpr21lib.sampling import Batches, Draw
from cvpr21lib.segmentation.stored import DamagedFile
from cvpr21lib.segmentation.streets import INDEX
from tests.ctrl_uda import miniature

torch.set_num_threads(1)

SOURCE, TARGET = (48, 28), (40, 20)
"""Width and height; the domains differ on purpose."""


class Memory:
    """Frames in memory: anything with these methods will do."""

    def __init__(self, *frames: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        self.frames = frames
        self.names = [str(number) for number in range(len(frames))]

    def image(self, index: int) -> np.ndarray:
        return self.frames[index][0]

    def ids(self, index: int) -> np.ndarray:
        return self.frames[index][1]

    def depth(self, index: int) -> np.ndarray:
        return self.frames[index][2].astype(np.float32)

    def fingerprint(self) -> str:
        return str(len(self.frames))


def street(seed: int = 0, height: int = 38, width: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return miniature.street(seed, height, width, sky=1, road=3, shown=miniature.SYNTHIA_SHOWN)


def open_source(root, num_classes: int = 16, size=SOURCE, **options) -> data.Source:
    return data.open_training(root, "cityscapes", num_classes, size, TARGET, **options).source


@pytest.mark.parametrize(("target", "num_classes"), [("cityscapes", 16), ("cityscapes", 7), ("mapillary", 7)])
def test_a_batch_is_source_label_depth_and_target(miniature_streets, target, num_classes):
    training = data.open_training(miniature_streets(), target, num_classes, SOURCE, TARGET)
    loader = DataLoader(training, batch_sampler=Batches(len(training), 2, seed=1, last=2))
    batch = next(iter(loader))
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "source": ((2, 3, 28, 48), torch.float32),
        "label": ((2, 28, 48), torch.int64),
        "depth": ((2, 28, 48), torch.float32),
        "target": ((2, 3, 20, 40), torch.float32),
    }
    assert set(batch["label"].unique().tolist()) <= {*range(num_classes), VOID}
    assert len(batch["label"].unique()) > 3
    assert 1 <= batch["depth"].min() < batch["depth"].max() < 65536


def test_at_native_size_a_source_sample_is_the_file(miniature_streets):
    source = open_source(miniature_streets(), size=(64, 38))
    image, ids, depth = street(2)
    sample = source[2]
    mean = torch.tensor([104.00698793, 116.66876762, 122.67891434])[:, None, None]
    upright = torch.from_numpy(image.transpose(2, 0, 1).copy()).flip(0)
    torch.testing.assert_close(sample["source"] + mean, upright.float(), atol=1e-4, rtol=0)
    np.testing.assert_array_equal(sample["label"], label_map("synthia", 16)(ids))
    np.testing.assert_allclose(sample["depth"], 65536 / (depth.astype(np.float64) + 1), rtol=1e-6)


def test_depth_is_65536_by_centimetres_and_one():
    found = data.inverse(np.array([0, 99, 100, 65535], np.uint16))
    np.testing.assert_allclose(found, [65536, 655.36, 648.8713, 1], rtol=1e-6)
    assert found.dtype == np.float32


def test_labels_and_depth_keep_their_values_when_they_shrink():
    image, ids, depth = street()
    sample = data.Source(Memory((image, ids, depth)), label_map("synthia", 16), (17, 9))[0]
    assert set(sample["label"].unique().tolist()) <= set(label_map("synthia", 16)(ids).flatten().tolist())
    assert np.isin(sample["depth"].numpy(), data.inverse(depth)).all()


def test_depth_is_read_only_if_it_is_asked_for(miniature_streets):
    root = miniature_streets()
    for path in (root / "Synthia/RAND_CITYSCAPES/Depth/Depth").iterdir():
        path.unlink()
    assert set(open_source(root, depth=False)[0]) == {"source", "label"}
    with pytest.raises(InputError, match=r"4 depth files of 4 train frames are missing: .*0000000\.png"):
        open_source(root)


def test_training_on_the_target_never_opens_a_label(miniature_streets):
    root = miniature_streets()
    for folder in ("Cityscapes/gtFine/train", "Mapillary-Vista/training/labels"):
        (root / folder).rename(root / f"{folder}_away")
    for name in ("cityscapes", "mapillary"):
        assert len(data.open_target(root, name, TARGET)) == 3


def test_every_source_frame_comes_once_in_an_epoch_and_targets_come_alike():
    frames = [street(number) for number in range(5)]
    targets = [(np.full((8, 8, 3), 50 * number, np.uint8),) * 3 for number in range(3)]
    training = data.Training(
        data.Source(Memory(*frames), label_map("synthia", 16), SOURCE, depth=False),
        data.Target(Memory(*targets), (8, 8)),
    )
    assert len(training) == 5
    draws = [draw for (draw,) in Batches(5, 1, seed=3, last=600)]
    assert sorted(draw.index for draw in draws[:5]) == [0, 1, 2, 3, 4]
    counts = Counter(float(training[draw]["target"][0, 0, 0]) for draw in draws)
    assert len(counts) == 3
    assert all(150 < count < 250 for count in counts.values())


def test_the_same_draw_gives_the_same_sample(miniature_streets):
    training = data.open_training(miniature_streets(), "cityscapes", 16, SOURCE, TARGET)
    first, again = training[Draw(1, 99)], training[Draw(1, 99)]
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_the_corrected_map_teaches_more_pixels(miniature_streets):
    root = miniature_streets()
    official, corrected = (open_source(root, 7, corrected=choice)[2]["label"] for choice in (False, True))
    void = official == VOID
    assert torch.equal(official[~void], corrected[~void])
    assert (corrected == VOID).sum() < void.sum()


def test_cityscapes_is_judged_at_native_size(miniature_streets):
    validation = data.open_validation(miniature_streets(), "cityscapes", 16, TARGET)
    assert len(validation) == 2
    sample = validation[1]
    assert sample["name"] == "munster_000001_000019"
    assert sample["image"].shape == (3, 20, 40)
    assert (sample["label"].shape, sample["label"].dtype) == ((32, 64), np.uint8)
    assert "depth" not in sample
    ids = miniature.street(101, 32, 64, sky=23, road=7, shown=miniature.CITYSCAPES_SHOWN)[1]
    np.testing.assert_array_equal(sample["label"], label_map("cityscapes", 16)(ids))


def test_metric_depth_of_cityscapes_comes_back(miniature_streets):
    sample = data.open_validation(miniature_streets(depth=True), "cityscapes", 7, TARGET, depth=True)[0]
    truth = miniature.street(100, 32, 64, sky=23, road=7, shown=miniature.CITYSCAPES_SHOWN)[2] / 100
    depth = sample["depth"]
    assert (depth.shape, depth.dtype) == ((32, 64), np.float32)
    assert np.isnan(depth[:, :4]).all(), "not known"
    known, sky = ~np.isnan(depth), truth > 600
    np.testing.assert_allclose(depth[known & ~sky], truth[known & ~sky], rtol=0.03)
    assert (depth[known & sky] == depth[known].max()).all(), "what does not move is the farthest"


def test_depth_that_was_not_prepared_is_named_with_its_remedy(miniature_streets):
    root = miniature_streets()
    with pytest.raises(InputError, match=r"without disparity and camera.*data_scripts\.cityscapes .*--depth"):
        data.open_validation(root, "cityscapes", 16, TARGET, depth=True)
    with pytest.raises(InputError, match="Mapillary-Vista has no depth"):
        data.open_validation(root, "mapillary", 7, TARGET, depth=True)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (32, 24)])
def test_mapillary_keeps_its_shape_and_void_fills_the_rest(miniature_streets, size):
    validation = data.open_validation(miniature_streets(), "mapillary", 7, size)
    black = torch.from_numpy(-data.MEAN)
    for sample, (height, width) in zip(validation, ((48, 64), (67, 49)), strict=True):
        assert sample["image"].shape == (3, size[1], size[0])
        label = sample["label"]
        assert (label[height:] == VOID).all()
        assert (label[:, width:] == VOID).all()
        assert (label[: height - 2, :width] != VOID).any()
        assert label.shape[1] / label.shape[0] == pytest.approx(size[0] / size[1], rel=0.05)
        # Image and label end at the same share of the frame.
        filled = (sample["image"] != black[:, None, None]).any(0)
        rows, columns = filled.any(1).sum() / size[1], filled.any(0).sum() / size[0]
        assert rows == pytest.approx(height / label.shape[0], abs=1.5 / size[1])
        assert columns == pytest.approx(width / label.shape[1], abs=1.5 / size[0])


def test_a_very_long_image_still_has_a_row():
    assert data.resize_with_pad(np.full((1, 300, 3), 9, np.uint8), (30, 30))[0].min() == 9


@pytest.mark.parametrize("victim", ["image", "label", "depth"])
def test_pictures_of_one_frame_must_agree_in_size(victim):
    frame = dict(zip(("image", "label", "depth"), street(), strict=True))
    frame[victim] = frame[victim][:-1]
    source = data.Source(Memory(tuple(frame.values())), label_map("synthia", 16), SOURCE)
    with pytest.raises(InputError, match=rf"the {victim} of 0 has 64 x 37"):
        source[0]
    if victim != "depth":
        validation = data.Validation(Memory(tuple(frame.values())), label_map("synthia", 16), SOURCE)
        with pytest.raises(InputError, match=rf"the {victim} of 0 has 64 x 37"):
            validation[0]


def test_an_8_bit_depth_png_is_refused(miniature_streets):
    root = miniature_streets()
    path = root / "Synthia/RAND_CITYSCAPES/Depth/Depth/0000001.png"
    Image.fromarray(np.full((38, 64), 200, np.uint8)).save(path)
    with pytest.raises(InputError, match=r"0000001\.png is a PNG of 8 bits; expected 16 bits"):
        open_source(root)[1]


def test_an_id_outside_of_the_table_is_named_with_its_file(miniature_streets):
    root = miniature_streets()
    ids = np.full((38, 64), 3, np.uint8)
    ids[0, :2] = 23, 255
    Image.fromarray(ids).save(root / "Synthia/RAND_CITYSCAPES/parsed_LABELS/0000001.png")
    with pytest.raises(
        InputError, match=r"parsed_LABELS/0000001\.png holds the ids 23, 255; expected 0 to 22"
    ):
        open_source(root)[1]


def test_coloured_labels_are_refused(miniature_streets):
    root = miniature_streets()
    path = root / "Cityscapes/gtFine/val/frankfurt/frankfurt_000000_000019_gtFine"
    path.with_name(f"{path.name}_color.png").rename(path.with_name(f"{path.name}_labelIds.png"))
    with pytest.raises(InputError, match="mode 'RGB'; expected one 8-bit id"):
        data.open_validation(root, "cityscapes", 16, TARGET)[0]


@pytest.mark.parametrize("which", ["RGB", "parsed_LABELS", "Depth/Depth"])
def test_a_damaged_file_is_named(miniature_streets, which):
    root = miniature_streets()
    path = root / "Synthia/RAND_CITYSCAPES" / which / "0000003.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DamagedFile, match=r"0000003\.png is damaged or cut short"):
        open_source(root)[3]


def test_missing_files_are_named_one_by_one_at_the_start(miniature_streets):
    root = miniature_streets(source=9)
    for number in range(7):
        (root / f"Synthia/RAND_CITYSCAPES/RGB/{number:07d}.png").unlink()
    with pytest.raises(InputError) as error:
        open_source(root)
    message = str(error.value)
    assert "7 image files of 9 train frames are missing" in message
    assert all(f"{number:07d}.png" in message for number in range(5))
    assert "0000005.png" not in message
    assert "python -m data_scripts.synthia" in message


@pytest.mark.parametrize(
    ("folder", "split", "opened"),
    [
        ("Synthia/RAND_CITYSCAPES", "train", lambda root: open_source(root)),
        ("Cityscapes", "train", lambda root: data.open_target(root, "cityscapes", TARGET)),
        ("Mapillary-Vista", "val", lambda root: data.open_validation(root, "mapillary", 7, TARGET)),
    ],
)
def test_an_empty_list_is_refused(miniature_streets, folder, split, opened):
    root = miniature_streets()
    path = root / folder / INDEX
    contents = json.loads(path.read_text())
    contents["splits"][split] = []
    path.write_text(json.dumps(contents))
    with pytest.raises(InputError, match=rf"The list of {split} frames in .*frames\.json is empty"):
        opened(root)


def test_empty_domains_in_memory_are_refused():
    for make in (
        lambda: data.Source(Memory(), label_map("synthia", 16), SOURCE),
        lambda: data.Target(Memory(), TARGET),
        lambda: data.Validation(Memory(), label_map("synthia", 16), TARGET),
    ):
        with pytest.raises(InputError, match=r"There are no (source|target|validation) frames"):
            make()


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (10,)])
def test_a_size_must_be_one(size):
    with pytest.raises(InputError, match="expected width and height"):
        data.Target(Memory(street()), size)


def test_depth_of_padded_images_is_not_evaluated():
    with pytest.raises(InputError, match="one of pad and depth"):
        data.Validation(Memory(street()), label_map("synthia", 16), TARGET, pad=True, depth=True)


def test_the_fingerprint_knows_the_data_but_not_where_it_lies(miniature_streets, tmp_path):
    here, there = miniature_streets(), miniature_streets(root=tmp_path / "elsewhere")
    prints = [
        data.open_training(root, "cityscapes", 16, SOURCE, TARGET).fingerprint() for root in (here, there)
    ]
    assert prints[0] == prints[1]
    other = miniature_streets(train=4, root=tmp_path / "more")
    assert data.open_training(other, "cityscapes", 16, SOURCE, TARGET).fingerprint() != prints[0]


@pytest.mark.parametrize("name", ["synthia", "cityscapes", "mapillary"])
def test_each_data_set_is_found_below_and_at_the_root(miniature_streets, name):
    root = miniature_streets()
    layout = data.find(root, name)
    assert data.find(layout.root, name) == layout
    layout.root.rename(root / layout.ELSEWHERE[-1])
    assert data.find(root, name).splits == layout.splits


def test_one_data_set_is_not_taken_for_another(miniature_streets):
    root = miniature_streets()
    with pytest.raises(InputError, match="Synthia/RAND_CITYSCAPES was not found"):
        data.find(root / "Cityscapes", "synthia")
    with pytest.raises(InputError, match="Mapillary-Vista was not found"):
        data.find(root / "Synthia/RAND_CITYSCAPES", "mapillary")


@pytest.mark.parametrize("name", ["synthia", "cityscapes", "mapillary"])
def test_a_data_set_that_is_not_there_is_one_clear_error(tmp_path, name):
    with pytest.raises(InputError, match=rf"not found; looked in .*{tmp_path}.*data_scripts\.{name} "):
        data.find(tmp_path, name)
    with pytest.raises(InputError, match=rf"data_root is not set.*data_scripts\.{name} --root data"):
        data.find(None, name)
    (tmp_path / data.LAYOUTS[name].FOLDER).mkdir(parents=True)
    with pytest.raises(InputError, match=r"is there but not prepared: frames\.json is missing"):
        data.find(tmp_path, name)


def test_a_damaged_index_and_unknown_names_are_refused(miniature_streets):
    root = miniature_streets()
    with pytest.raises(InputError, match="dataset is 'kitti'; it can be synthia, cityscapes, mapillary"):
        data.find(root, "kitti")
    with pytest.raises(InputError, match="no split 'test'; it has train, val"):
        data.Folders(data.find(root, "cityscapes"), "test")
    (root / "Cityscapes" / INDEX).write_text('{"splits": {"train": [1]}}')
    with pytest.raises(InputError, match=r"frames\.json is damaged"):
        data.find(root, "cityscapes")
