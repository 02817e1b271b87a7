"""Cityscapes: 2048 x 1024 pixels from the streets of 50 cities, as `data_scripts.cityscapes` lays it out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import deep_png
from cvpr21lib.segmentation.streets import Streets

CLASSES = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel",
    "pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider",
    "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""By Cityscapes' id. Licence plates, -1, are drawn into no file of ids."""


class Camera(NamedTuple):
    """What turns disparity into depth."""

    baseline: float  # metres between the two cameras
    fx: float  # focal length, pixels


class Cityscapes(Streets):
    """Splits: train (2,975) and val (500); names as in aachen_000000_000019. Depth is a part of its own."""

    FOLDER = "Cityscapes"
    ELSEWHERE = ("cityscapes",)
    SCRIPT = "cityscapes"
    SPELLINGS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "images": ("leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit"),
        "labels": ("gtFine", "gtFine_trainvaltest/gtFine"),
        "disparity": ("disparity", "disparity_trainvaltest/disparity"),
        "camera": ("camera", "camera_trainvaltest/camera"),
    }
    LAST_ID = len(CLASSES) - 1

    def image(self, split: str, name: str) -> Path:
        return self._file("images", split, name, "leftImg8bit.png")

    def label(self, split: str, name: str) -> Path:
        return self._file("labels", split, name, "gtFine_labelIds.png")

    def depth_files(self, split: str, name: str) -> tuple[Path, ...]:
        lacking = [part for part in ("disparity", "camera") if part not in self.folders]
        if lacking:
            raise InputError(
                f"{self.root} was prepared without {' and '.join(lacking)}, which depth is made from. Run "
                f"`python -m data_scripts.{self.SCRIPT} --root {self.root.parent} --archives DIR --depth`."
            )
        return (
            self._file("disparity", split, name, "disparity.png"),
            self._file("camera", split, name, "camera.json"),
        )

    def depth(self, split: str, name: str) -> np.ndarray:
        """By stereo matching: not everywhere, and not exact."""
        disparity, camera = self.depth_files(split, name)
        return metres(deep_png.read(disparity), read_camera(camera)) * np.float32(100)

    def _file(self, part: str, split: str, name: str, kind: str) -> Path:
        city = name.split("_")[0]
        return self.root / self.folders[part] / split / city / f"{name}_{kind}"


def metres(disparity: np.ndarray, camera: Camera) -> np.ndarray:
    """Depth in metres, float32 (H, W), from a disparity picture, uint16 (H, W), as Cityscapes packs it.

    A value p > 0 stands for (p - 1) / 256 pixels; 0 is not known and becomes NaN. Where nothing has moved
    between the cameras (p = 1), the depth is the largest finite one of this picture (official code).
    """
    pixels = (disparity.astype(np.float32) - 1) / 256
    depth = np.full(disparity.shape, np.nan, np.float32)
    finite = disparity > 1
    depth[finite] = np.float32(camera.baseline * camera.fx) / pixels[finite]
    if finite.any():
        depth[disparity == 1] = depth[finite].max()
    return depth


def read_camera(path: Path) -> Camera:
    """The calibration in a file `*_camera.json`."""
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        camera = Camera(float(contents["extrinsic"]["baseline"]), float(contents["intrinsic"]["fx"]))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged, or no camera of Cityscapes ({error!r}).") from error
    if not (camera.baseline > 0 and camera.fx > 0):
        raise InputError(
            f"{path} has the baseline {camera.baseline} and fx {camera.fx}; both must be above 0."
        )
    return camera
