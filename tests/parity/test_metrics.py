"""PSNR, SSIM and the 8-bit rounding of the official LPTN evaluation, whose images are BGR, `(H, W, 3)`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cvpr21lib import images, metrics

FIXTURE = np.load(Path(__file__).parent / "lptn" / "metrics.npz")
META = json.loads(str(FIXTURE["meta"]))

CASES = [
    pytest.param(index, name, expected, id=f"{index}-{name}")
    for index, case in enumerate(META["cases"])
    for name, expected in case.items()
    if name.startswith(("psnr", "ssim"))
]


def rgb(name: str) -> np.ndarray:
    return FIXTURE[name][..., ::-1]


@pytest.mark.parametrize(("index", "name", "expected"), CASES)
def test_psnr_and_ssim_are_the_official_ones(index, name, expected):
    metric, crop, luma = name.split("_")
    # The official luma is float32 throughout, so its PSNR is known to float32's spacing only (2e-6, 4e-6 dB).
    known_to = float(np.spacing(np.float32(expected))) if name.startswith("psnr") and luma == "y1" else 1e-6
    measured = getattr(metrics, metric)(
        rgb(f"case{index}/in/img1"),
        rgb(f"case{index}/in/img2"),
        crop_border=int(crop.removeprefix("crop")),
        y_channel=luma == "y1",
    )
    assert measured == pytest.approx(expected, abs=known_to, rel=0)


def test_every_official_case_is_compared():
    assert len(CASES) == 16


def test_psnr_of_identical_images_is_infinite():
    assert metrics.psnr(rgb("case0/in/img1"), rgb("case0/in/img1")) == float(META["same"]["psnr_identical"])


def test_a_tensor_becomes_the_official_8_bit_image():
    tensor = torch.from_numpy(FIXTURE["t2i/in/tensor"])
    image = np.moveaxis(metrics.quantise(tensor)[0], 0, -1)
    np.testing.assert_array_equal(image, rgb("t2i/out/img_bgr_uint8"))


def test_an_image_becomes_the_official_tensor():
    photo = images.Photo(np.ascontiguousarray(rgb("i2t/in/img_bgr")))
    np.testing.assert_array_equal(images.to_tensor(photo).numpy(), FIXTURE["i2t/out/tensor_rgb"])
