"""The measures of PPR10K, exactly as its official MATLAB script (`calculate_metrics.m`) counts them.

An image is an RGB photograph `(H, W, 3)`, sRGB-encoded: uint8, or floating point in [0, 1], which `quantise`
rounds the way the official code saves its results. A mask is `(H, W)` of any type; what is not zero is human.
The human-centred measures give the background half the weight and still divide by *all* pixels, so

    PSNR <= PSNR-HC <= PSNR + 6.02 dB        and        dE/2 <= dE-HC <= dE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from cvpr21lib.errors import InputError

Array = np.ndarray[Any, Any]

BACKGROUND = 0.5
"""Weight of a background pixel in the human-centred measures; a human pixel has 1."""


@dataclass(frozen=True)
class Measures:
    """What one photograph scores, and the mean colours that its group is judged by."""

    psnr: float
    """dB."""
    delta_e: float
    psnr_hc: float | None
    """dB; like `delta_e_hc` None where there is no mask."""
    delta_e_hc: float | None
    mean_ab: tuple[float, float]
    """Mean a* and b* of the whole frame."""
    target_mean_ab: tuple[float, float]


def measure(pred: Array, target: Array, mask: Array | None = None) -> Measures:
    """All measures of one photograph, in bands of rows, so that its size costs time and hardly any memory."""
    pred, target = _pair(pred, target)
    human = _human(np.ones(pred.shape[:2], bool) if mask is None else mask, pred)
    sums, roots, target_roots = np.zeros(4), np.zeros(3), np.zeros(3)
    for rows in _bands(pred):
        squared = _squared_error(pred[rows], target[rows]).ravel()
        ours, theirs = _cube_roots(pred[rows]), _cube_roots(target[rows])
        distance = _distance(ours - theirs)
        weight = _weight(human[rows].ravel())
        sums += squared.sum(), distance.sum(), weight**2 @ squared, weight @ distance
        roots += ours.sum(1)
        target_roots += theirs.sum(1)
    pixels = pred.size // 3
    squared_error, delta_e, squared_error_hc, delta_e_hc = (sums / pixels).tolist()
    return Measures(
        _decibels(squared_error),
        delta_e,
        None if mask is None else _decibels(squared_error_hc),
        None if mask is None else delta_e_hc,
        _ab(roots / pixels),
        _ab(target_roots / pixels),
    )


def summary(photographs: Mapping[str, Measures]) -> dict[str, float]:
    """The paper's five columns over named photographs, and the target's MGLC with the distance to it.

    Keys: psnr, delta_e, psnr_hc, delta_e_hc (both only if every photograph had a mask), mglc, target_mglc and
    mglc_gap. PSNR is a mean of decibels, so one identical photograph makes it infinite.
    """
    if not photographs:
        raise InputError("there is no photograph to summarise")
    each, groups = list(photographs.values()), [group_id(name) for name in photographs]
    columns = ("psnr", "delta_e", "psnr_hc", "delta_e_hc")
    rows = {name: [getattr(one, name) for one in each] for name in columns}
    numbers = {name: float(np.mean(row)) for name, row in rows.items() if None not in row}
    numbers["mglc"] = mglc([one.mean_ab for one in each], groups)
    numbers["target_mglc"] = mglc([one.target_mean_ab for one in each], groups)
    numbers["mglc_gap"] = abs(numbers["mglc"] - numbers["target_mglc"])
    return numbers


def psnr(pred: Array, target: Array) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, peak 255; `inf` for identical images."""
    return _decibels(_squared_error(*_pair(pred, target)).mean())


def psnr_hc(pred: Array, target: Array, mask: Array) -> float:
    """Human-centred PSNR in dB: both images are multiplied by the weights, and compared by `psnr`."""
    pred, target = _pair(pred, target)
    return _decibels((_weight(_human(mask, pred)) ** 2 * _squared_error(pred, target)).mean())


def human_psnr(pred: Array, target: Array, mask: Array) -> float:
    """PSNR in dB over the human pixels alone (ours; the paper has none that separates the two)."""
    return _psnr_within(pred, target, mask, human=True)


def background_psnr(pred: Array, target: Array, mask: Array) -> float:
    """PSNR in dB over the background pixels alone (ours)."""
    return _psnr_within(pred, target, mask, human=False)


def delta_e(pred: Array, target: Array) -> float:
    """Mean over pixels of the colour difference of 1976, the Euclidean distance in L*a*b*."""
    return measure(pred, target).delta_e


def delta_e_hc(pred: Array, target: Array, mask: Array) -> float:
    """Human-centred colour difference: the mean over all pixels of the weighted distance."""
    value = measure(pred, target, mask).delta_e_hc
    assert value is not None  # there is a mask
    return value


def mean_lab(image: Array) -> Array:
    """Mean L*, a* and b* of the whole frame, float64 `(3,)`."""
    image = _eight_bits(image)
    total = np.sum([_cube_roots(image[rows]).sum(1) for rows in _bands(image)], axis=0)
    return _lab(total / (image.size // 3))


def mean_ab(image: Array) -> Array:
    """Mean a* and b* of the whole frame, people and background alike, float64 `(2,)`."""
    return mean_lab(image)[1:]


def mglc(means: Array | Sequence[tuple[float, float]], groups: Sequence[str]) -> float:
    """Measure of group-level consistency: how far mean colours scatter within a group; 0 is no scatter.

    `means` are the mean a* and b* of P photographs, `(P, 2)`; `groups` their P group ids, in any order. A
    variance, not a standard deviation; a group of one photograph counts as 0. It knows nothing of the target,
    and a grey result scores a perfect 0: never show it without the target's own.
    """
    return float(np.mean(list(group_variances(means, groups).values())))


def group_variances(means: Array | Sequence[tuple[float, float]], groups: Sequence[str]) -> dict[str, float]:
    """For each group the unbiased variance of mean a* and of mean b*, averaged over the two."""
    means = np.asarray(means, np.float64)
    if means.shape != (len(groups), 2) or not len(groups):
        raise InputError(
            f"MGLC needs the mean a* and b* of every photograph, (P, 2), and P group ids, at least one; "
            f"got the shape {means.shape} and {len(groups)} ids"
        )
    members: dict[str, list[Array]] = {}
    for group, mean in zip(groups, means, strict=True):
        members.setdefault(group, []).append(mean)
    return {
        group: float(np.var(ab, axis=0, ddof=1).mean()) if len(ab) > 1 else 0.0
        for group, ab in members.items()
    }


def group_id(name: str) -> str:
    """The group (one shooting scene) of a photograph: its name up to the first `_`, so 1356 of 1356_0."""
    return name.partition("_")[0]


def quantise(image: Array) -> Array:
    """Floats in [0, 1] as the official code saves them, uint8(clamp(255 y + 0.5, 0, 255)): half goes *up*.

    `cvpr21lib.metrics.quantise`, the other papers' rule, rounds half to even; the two differ only halfway
    above an even number (0.5 becomes 1 here, and 0 there). Raises `InputError` on NaN or infinity.
    """
    if not np.isfinite(image).all():
        raise InputError("the image holds NaN or infinite values; the model that made it has diverged")
    values = image.astype(np.float32) if image.itemsize < 4 else image
    counts = values * values.dtype.type(255)
    counts += values.dtype.type(0.5)
    return np.clip(counts, 0, 255, out=counts).astype(np.uint8)


def resize_mask(mask: Array, size: tuple[int, int]) -> Array:
    """A mask at another size (H, W), boolean: bicubic with antialiasing, then whatever is not zero.

    That is what the official script does with MATLAB's `imresize`, and it lets people grow a little.
    Pillow's filter has the same kernel (a = -0.5, widened when shrinking) and rounds each pass to 8 bits too.
    MATLAB mirrors the image at its border where Pillow cuts the kernel, so the outermost pixels may differ.
    """
    human = Image.fromarray(np.where(mask != 0, np.uint8(255), np.uint8(0)))
    if size[0] * human.width <= size[1] * human.height:
        # MATLAB begins with the direction that shrinks more, Pillow always with the horizontal one.
        human = human.resize((human.width, size[0]), Image.Resampling.BICUBIC)
    return np.asarray(human.resize((size[1], size[0]), Image.Resampling.BICUBIC)) != 0


def lab(image: Array) -> Array:
    """CIE 1976 L*, a*, b*, float64 `(H, W, 3)`, for the white D65; a grey has a* = b* = 0.

    The matrix comes from the primaries of sRGB and the white (0.95047, 1, 1.08883), which is how MATLAB's
    `rgb2lab` has it: the example for another RGB space in its documentation comes out to all four decimals.
    `skimage.color.rgb2lab` rounds the matrix, and is up to 0.005 away in one of the three.
    """
    image = _eight_bits(image)
    values = np.empty(image.shape)
    for rows in _bands(image):
        values[rows] = _lab(_cube_roots(image[rows])).T.reshape(values[rows].shape)
    return values


def _psnr_within(pred: Array, target: Array, mask: Array, human: bool) -> float:
    pred, target = _pair(pred, target)
    inside = _human(mask, pred) == human
    if not inside.any():
        raise InputError(f"the mask has no {'human' if human else 'background'} pixel to measure")
    return _decibels(_squared_error(pred, target)[inside].mean())


def _pair(pred: Array, target: Array) -> tuple[Array, Array]:
    pred, target = _eight_bits(pred), _eight_bits(target)
    if pred.shape != target.shape:
        raise InputError(
            f"the result has {_size(pred[..., 0])} pixels and the target {_size(target[..., 0])}; "
            "they must be of one size"
        )
    return pred, target


def _eight_bits(image: Array) -> Array:
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"expected an RGB image (H, W, 3), but got the shape {image.shape}")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise InputError(f"expected uint8 or floats in [0, 1], but got {image.dtype}")
    return quantise(image)


def _human(mask: Array, image: Array) -> Array:
    """The mask as booleans (H, W), if it fits the image."""
    if mask.shape != image.shape[:2]:
        raise InputError(
            f"the mask has {_size(mask)} pixels and the photograph {_size(image[..., 0])}; "
            "check that they belong together, and resize the mask (resize_mask) if they do"
        )
    return mask != 0


def _weight(human: Array) -> Array:
    return np.where(human, 1.0, BACKGROUND)


def _size(plane: Array) -> str:
    return "×".join(map(str, plane.shape))


def _squared_error(pred: Array, target: Array) -> Array:
    """Mean over the channels, float64 (H, W), in squared counts of 255."""
    difference = pred.astype(np.int32) - target
    return np.einsum("hwc,hwc->hw", difference, difference) / 3


def _decibels(mean_squared_error: float) -> float:
    return float(10 * np.log10(255**2 / mean_squared_error)) if mean_squared_error else float("inf")


def _bands(image: Array, pixels: int = 2**14) -> Iterator[slice]:
    """Bands of rows whose colours fit into the processor's cache."""
    step = max(1, pixels // image.shape[1])
    return (slice(start, start + step) for start in range(0, len(image), step))


def _cube_roots(image: Array) -> Array:
    """f(X / Xn), f(Y / Yn), f(Z / Zn) of CIE L*a*b* as the rows of (3, H W), float64, of a uint8 image."""
    red, green, blue = (_LINEAR[image[..., channel].ravel()] for channel in range(3))
    roots = np.empty((3, red.size))
    for row, (of_red, of_green, of_blue) in zip(roots, _XYZ_OVER_WHITE, strict=True):
        stimulus = of_red * red
        stimulus += of_green * green
        stimulus += of_blue * blue
        np.cbrt(stimulus, out=row)
        dark = np.flatnonzero(stimulus <= 216 / 24389)
        row[dark] = (24389 / 27 * stimulus[dark] + 16) / 116
    return roots


def _lab(roots: Array) -> Array:
    """L*, a*, b* from the three rows of `_cube_roots`."""
    x, y, z = roots
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _ab(roots: Array) -> tuple[float, float]:
    _, a, b = _lab(roots).tolist()
    return a, b


def _distance(roots: Array) -> Array:
    """The distance in L*a*b* from the difference of two results of `_cube_roots`."""
    x, y, z = roots
    return np.sqrt((116 * y) ** 2 + (500 * (x - y)) ** 2 + (200 * (y - z)) ** 2)


def _decoded() -> Array:
    """Linear light of the 256 values of sRGB (IEC 61966-2-1)."""
    encoded = np.arange(256) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _xyz_from_rgb() -> Array:
    """Columns for linear R, G, B, from the primaries of ITU-R BT.709 and the white."""
    x, y = np.array([[0.64, 0.30, 0.15], [0.33, 0.60, 0.06]])
    primaries = np.stack([x / y, np.ones(3), (1 - x - y) / y])
    return primaries * np.linalg.solve(primaries, WHITE)


WHITE = np.array([0.95047, 1, 1.08883])
"""X, Y, Z of D65."""
XYZ_FROM_RGB = _xyz_from_rgb()
"""The matrix (3, 3) from linear sRGB to X, Y, Z; equal parts make the white."""
_XYZ_OVER_WHITE = XYZ_FROM_RGB / WHITE[:, None]
_LINEAR = _decoded()
