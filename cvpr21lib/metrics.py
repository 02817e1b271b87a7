"""How close two images are, counted the way the restoration literature counts it: on 8-bit values.

PSNR and SSIM agree with the official LPTN evaluation (which follows MATLAB's habits) to 1e-6. An image is an
RGB photograph, given in either of two ways:

- a NumPy array `(H, W, 3)`: uint8, or floating point in [0, 1];
- a torch tensor `(3, H, W)` or `(1, 3, H, W)` in [0, 1].

Floating-point images pass through `quantise` first, so that a file written to disk and the tensor it was
written from score the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from skimage.metrics import mean_squared_error, structural_similarity

from cvpr21lib.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    Image: TypeAlias = np.ndarray | Tensor

#: How far the 11×11 window of SSIM reaches beyond its centre, in pixels.
SSIM_REACH = 5

#: Studio-swing luma of ITU-R BT.601 for 8-bit R, G, B (65.481, 128.553 and 24.966 over 255), and its offset.
BT601_LUMA, BT601_OFFSET = np.array([65.481, 128.553, 24.966]) / 255, 16.0


def psnr(pred: Image, target: Image, crop_border: int = 0, y_channel: bool = False) -> float:
    """Peak signal-to-noise ratio in dB between two images of the same size; `inf` when they are identical.

    One mean squared error over all pixels and channels, in float64, against a peak of 255. `crop_border`
    pixels are left out on every side (0 in LPTN's test configuration, 4 while it trains). `y_channel`
    compares the BT.601 luma instead of the colours (in float64; the official code rounds it to float32).
    """
    pred, target = _pair(pred, target, crop_border, y_channel)
    error = mean_squared_error(target, pred)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(pred: Image, target: Image, crop_border: int = 0, y_channel: bool = False) -> float:
    """Structural similarity, at most 1: the mean over pixels and channels of the local similarity.

    The window is a Gaussian of 11×11 pixels with a standard deviation of 1.5; only windows that lie wholly
    inside the image count, so a side must measure 11 pixels at least. `crop_border` and `y_channel` as in
    `psnr`.
    """
    pred, target = _pair(pred, target, crop_border, y_channel)
    if min(pred.shape[:2]) <= 2 * SSIM_REACH:
        height, width = pred.shape[:2]
        raise InputError(
            f"SSIM needs at least {2 * SSIM_REACH + 1}×{2 * SSIM_REACH + 1} pixels, "
            f"but {height}×{width} are left after cropping {crop_border} on every side"
        )
    _, similarity = structural_similarity(
        pred,
        target,
        data_range=255,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return float(similarity[SSIM_REACH:-SSIM_REACH, SSIM_REACH:-SSIM_REACH].mean())


def quantise(image: Image) -> np.ndarray:
    """Values in [0, 1] as the uint8 array of the same shape: clamped, times 255, rounded half to even.

    Raises `InputError` on NaN or infinity, which no 8-bit value stands for.
    """
    values = _numpy(image)
    if not np.isfinite(values).all():
        raise InputError("the image holds NaN or infinite values; the model that made it has diverged")
    return np.round(np.clip(values, 0, 1) * values.dtype.type(255)).astype(np.uint8)


def _pair(pred: Image, target: Image, crop_border: int, y_channel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Both images as float64 `(H, W, C)` in [0, 255], cropped, C = 3, or 1 for luma."""
    first, second = _eight_bits(pred), _eight_bits(target)
    if first.shape != second.shape:
        raise InputError(f"images of different sizes cannot be compared: {first.shape} and {second.shape}")
    if crop_border < 0 or min(first.shape[:2]) <= 2 * crop_border:
        height, width = first.shape[:2]
        raise InputError(f"crop_border={crop_border} leaves nothing of an image of {height}×{width} pixels")
    inside = np.s_[crop_border : first.shape[0] - crop_border, crop_border : first.shape[1] - crop_border]
    first, second = first[inside].astype(np.float64), second[inside].astype(np.float64)
    return (_luma(first), _luma(second)) if y_channel else (first, second)


def _eight_bits(image: Image) -> np.ndarray:
    """An image in either form as uint8 `(H, W, 3)`."""
    values = _numpy(image)
    if values is not image:  # a tensor: channels first
        values = values[0] if values.ndim == 4 and len(values) == 1 else values
        values = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
    if values.ndim != 3 or values.shape[2] != 3:
        raise InputError(
            "expected one RGB image, an array (H, W, 3) or a tensor (3, H, W), "
            f"but got the shape {tuple(image.shape)}"
        )
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"expected uint8 or floating-point values in [0, 1], but got {values.dtype}")
    return quantise(values)


def _numpy(image: Image) -> np.ndarray:
    """The array itself, or a tensor's values on the CPU (half precision, which NumPy lacks, as float32)."""
    if isinstance(image, np.ndarray):
        return image
    tensor = image.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor).numpy()


def _luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma `(H, W, 1)` in [16, 235], not rounded, of an RGB image in [0, 255]."""
    return (image @ BT601_LUMA + BT601_OFFSET)[..., None]
