"""Real photographs that come with scikit-image and scikit-learn: no download, the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from cvpr21lib.errors import InputError

Image = np.ndarray[Any, Any]


def load(name: str) -> Image:
    """The photograph `name`, float32 (H, W, 3), sRGB-encoded RGB in [0, 1]; the names are in `NAMES`."""
    if name not in _READERS:
        raise InputError(f"no bundled photograph {name!r}; there are {', '.join(NAMES)}")
    return _READERS[name]().astype(np.float32) / np.float32(255)


def _skimage(name: str) -> Image:
    from skimage import data

    return getattr(data, name)()


def _left_view() -> Image:
    from skimage import data

    return data.stereo_motorcycle()[0]


def _sklearn(name: str) -> Image:
    from sklearn.datasets import load_sample_image

    return load_sample_image(name)


_READERS: dict[str, Callable[[], Image]] = {
    "astronaut": partial(_skimage, "astronaut"),  # 512 x 512
    "chelsea": partial(_skimage, "chelsea"),  # 300 x 451, a cat
    "china": partial(_sklearn, "china.jpg"),  # 427 x 640, a temple
    "coffee": partial(_skimage, "coffee"),  # 400 x 600
    "flower": partial(_sklearn, "flower.jpg"),  # 427 x 640
    "motorcycle": _left_view,  # 500 x 741, a workshop
    "rocket": partial(_skimage, "rocket"),  # 427 x 640
}
NAMES = tuple(_READERS)
