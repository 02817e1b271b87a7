"""A photograph as the official code hands it to the networks."""

from pathlib import Path

import numpy as np
from PIL import Image

from cvpr21lib.prosgan import data

FIXTURE = np.load(Path(__file__).parent / "prosgan" / "preprocess.npz")


def test_resize_and_cut_are_the_official_ones(tmp_path):
    Image.fromarray(FIXTURE["in/image_u8"]).save(tmp_path / "image.png")
    image = data.read(tmp_path / "image.png")
    assert image.shape == (3, 224, 224)
    levels = (255 * image).round().numpy()[:, 3::6, 5::6]
    np.testing.assert_allclose(levels, FIXTURE["out/tensor_u8"], rtol=0, atol=1)
