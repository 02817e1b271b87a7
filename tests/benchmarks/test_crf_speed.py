"""The CRF beside pydensecrf, which it replaces: same image, same process, one thread, same beliefs to 1e-4.

pydensecrf must be built by a compiler and is not among our requirements; `pip install pydensecrf2` brings it.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from skimage import data, transform

from cvpr21lib.segmentation import crf
from cvpr21lib.segmentation.crf import CRF, DEEPLAB, PSA

densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf is not installed")

HEIGHT, WIDTH = 375, 500  # VOC's most frequent size


def pydensecrf(image: np.ndarray, probabilities: np.ndarray, setting: CRF) -> np.ndarray:
    model = densecrf.DenseCRF2D(WIDTH, HEIGHT, len(probabilities))
    model.setUnaryEnergy(crf.unary(probabilities).reshape(len(probabilities), -1))
    model.addPairwiseGaussian(sxy=setting.near_xy, compat=setting.near_weight)
    model.addPairwiseBilateral(
        sxy=setting.alike_xy, srgb=setting.alike_rgb, rgbim=image, compat=setting.alike_weight
    )
    return np.array(model.inference(setting.iterations)).reshape(probabilities.shape)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("first", [True, False], ids=["first of its size", "next of its size"])
@pytest.mark.parametrize("labels", [3, 21])
@pytest.mark.parametrize(("name", "setting"), [("PSA", PSA), ("DeepLab", DEEPLAB)])
def test_one_image(against, name, setting, labels, first):
    image = np.round(transform.resize(data.coffee(), (HEIGHT, WIDTH), anti_aliasing=True) * 255).astype(
        np.uint8
    )
    coarse = np.random.default_rng(0).normal(0, 3, (12, 16, labels))
    scores = np.exp(transform.resize(coarse, (HEIGHT, WIDTH), order=1)).astype(np.float32)
    p = np.ascontiguousarray(np.moveaxis(scores / scores.sum(-1, keepdims=True), -1, 0))
    np.testing.assert_allclose(setting(image, p), pydensecrf(image, p, setting), rtol=0, atol=1e-4)

    def ours() -> None:
        if first:
            crf._near.cache_clear()
        setting(image, p)

    against(
        f"CRF of {name}, {labels} labels, {'first' if first else 'next'} image of its size",
        ours,
        lambda: pydensecrf(image, p, setting),
        4,
        time.process_time,
    )
