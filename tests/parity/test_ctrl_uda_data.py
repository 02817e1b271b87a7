"""Resizing, label maps and depth against the official code of CTRL-UDA (fixture `data_ops`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvpr21lib.ctrl_uda import data
from cvpr21lib.ctrl_uda.label_maps import label_map
from cvpr21lib.sampling import Draw
from cvpr21lib.segmentation import cityscapes, mapillary
from cvpr21lib.segmentation.cityscapes import Camera

FIXTURE = Path(__file__).parent / "ctrl_uda" / "data_ops.npz"
SIZE = 32, 16


class OneFrame:
    """SYNTHIA's frame of the fixture."""

    names = ("0",)

    def __init__(self, image: np.ndarray, ids: np.ndarray, centimetres: np.ndarray) -> None:
        self.pictures = image, ids, centimetres

    def image(self, index: int) -> np.ndarray:
        return self.pictures[0]

    def ids(self, index: int) -> np.ndarray:
        return self.pictures[1]

    def depth(self, index: int) -> np.ndarray:
        return self.pictures[2].astype(np.float32)

    def fingerprint(self) -> str:
        return "one"


@pytest.fixture(scope="module")
def official() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("num_classes", [16, 7])
def test_a_source_sample_is_the_official_one(official, num_classes):
    frames = OneFrame(*(official[f"in/{key}"] for key in ("rgb", "synthia_label", "synthia_depth_png")))
    source = data.Source(frames, label_map("synthia", num_classes), SIZE)
    sample = data.Training(source, data.Target(frames, SIZE))[Draw(0, 0)]
    np.testing.assert_allclose(sample["source"], official["out/image"], atol=1e-3)
    np.testing.assert_allclose(sample["target"], official["out/image"], atol=1e-3)
    np.testing.assert_array_equal(sample["label"], official[f"out/synthia_train_label_{num_classes}"])
    np.testing.assert_allclose(sample["depth"], official["out/synthia_inv_depth"], rtol=1e-6)


@pytest.mark.parametrize("num_classes", [16, 7])
def test_the_map_of_cityscapes_is_the_official_one(official, num_classes):
    ids = np.arange(34, dtype=np.uint8)
    wanted = official[f"out/cityscapes_map_{num_classes}"]
    np.testing.assert_array_equal(label_map("cityscapes", num_classes)(ids), wanted[:34])
    assert wanted[34] == 255, "the id -1, of which no file of ids has any"


def test_the_map_of_mapillary_is_the_official_one(official):
    ids = np.arange(66, dtype=np.uint8)
    np.testing.assert_array_equal(label_map("mapillary", 7)(ids), official["out/mapillary_map"])


def test_depth_from_disparity_is_the_official_one(official):
    calibration = json.loads(str(official["meta"]))["calib"]
    disparity = data.nearest(official["in/cityscapes_disparity_png"].astype(np.int32), SIZE)
    metres = cityscapes.metres(disparity, Camera(**calibration))
    np.testing.assert_allclose(metres, official["out/cityscapes_depth_val"], rtol=1e-5)
    np.testing.assert_allclose(
        data.inverse(metres * 100), official["out/cityscapes_depth_train"], rtol=1e-5, equal_nan=True
    )


@pytest.mark.parametrize("number", [0, 1])
def test_padded_images_and_labels_are_the_official_ones(official, number):
    size = tuple(json.loads(str(official["meta"]))["mapillary_sizes_wh"][number])
    padded = data.resize_with_pad(official["in/rgb"], size)
    np.testing.assert_array_equal(padded, official[f"out/map_img_{number}"])
    ids = official["in/synthia_label"] * 2
    label = data.pad_to_shape(ids, size, mapillary.VOID)
    np.testing.assert_array_equal(label, official[f"out/map_lab_padded_{number}"])
    classes = label_map("mapillary", 7)
    np.testing.assert_array_equal(classes(label), data.pad_to_shape(classes(ids), size, 255))


def test_labels_scaled_with_the_image_are_the_official_ones(official):
    ids = Image.fromarray(official["in/synthia_label"] * 2)
    scaled = data.nearest(np.asarray(ids), (40, 20))
    np.testing.assert_array_equal(scaled, official["out/map_lab_scaled_0"][:20])
    assert (official["out/map_lab_scaled_0"][20:] == mapillary.VOID).all()
