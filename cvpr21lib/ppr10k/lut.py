"""A look as a 3-D LUT: every colour is sent to a new one through a table of D x D x D colours.

Section 3 of the paper, after Zeng et al., "Learning image-adaptive 3D lookup tables" (TPAMI 2020). A LUT is a
tensor `(3, D, D, D)`, indexed [output channel, blue, green, red]. Between its points it is trilinear: with

    t = x (D - 1) / 1.000001,   i = min(floor(t), D - 2),   f = t - i        for each channel x in [0, 1],

an output channel is the mean of the eight points around (blue, green, red), weighted by products of f and
1 - f. The official code divides by 1.000001 so that x = 1 stays inside the last cell, and so do we: the
identity turns 1 into 0.999999. The map is linear in the LUT, so K LUTs are mixed before it (`fuse`).

Where this leaves the official code: values outside [0, 1] are taken for the nearest end, where that reads
beside the table; there are no seams, where its floor and fmod disagree for a few floats and jump by a cell;
the gradient of the image is the true one, where that returns the incoming gradient unchanged.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from cvpr21lib.errors import InputError

#: x = 1 lies this little below the last point of the LUT (official code).
STRETCH = 1.000001


def identity(
    size: int = 33, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """The LUT `(3, D, D, D)` that changes nothing (but for 1.000001); D = `size`, 2 or more."""
    if size < 2:
        raise InputError(f"a LUT of size {size} has nothing to interpolate between; use a size of 2 or more")
    steps = (torch.arange(size, dtype=torch.float64, device=device) / (size - 1)).to(dtype)
    blue, green, red = torch.meshgrid(steps, steps, steps, indexing="ij")
    return torch.stack([red, green, blue])


def fuse(luts: Tensor, weights: Tensor) -> Tensor:
    """Mix K LUTs `(K, 3, D, D, D)` by `weights` (N, K) of any sign into one an image, `(N, 3, D, D, D)`.

    Applying the mixture is mixing what the K LUTs give, for a K-th of the time and memory.
    """
    if luts.ndim != 5 or weights.ndim != 2 or weights.shape[1] != len(luts):
        raise InputError(
            f"the LUTs have shape {tuple(luts.shape)} and the weights {tuple(weights.shape)}; "
            "expected (K, 3, D, D, D) and (N, K) with the same K"
        )
    with torch.autocast(luts.device.type, enabled=False):  # a LUT in half precision would show as banding
        return (weights.to(luts.dtype) @ luts.flatten(1)).unflatten(1, luts.shape[1:])


def apply(lut: Tensor, image: Tensor) -> Tensor:
    """Send the colours of `image` (N, 3, H, W), RGB in [0, 1], through `lut`; returns (N, 3, H, W).

    Args:
        lut: `(3, D, D, D)`, shared by the batch, or `(N, 3, D, D, D)`, one an image; D is 2 or more.
        image: values below 0 count as 0, above 1 as 1; a pixel with a NaN becomes NaN.

    Any floating type; half precision is computed in float32. The output is not clamped. LUT and image get
    their gradients (first derivatives only); an image value at 0 or 1 has the slope of the inner side, one
    outside has none. On a CPU all of torch's threads share the work, of a single image too, and where numba
    is installed large images go through compiled code, to the same result but for rounding.

    Raises:
        InputError: a LUT or an image of another shape (grey, channels last, no batch) or type, an image
            without pixels, another number of LUTs than of images, the two on different devices.
    """
    _check(lut, image)
    dtype = torch.promote_types(lut.dtype, image.dtype)
    exact = torch.promote_types(dtype, torch.float32)
    luts, image = lut.to(exact), image.to(exact)
    luts = luts if luts.ndim == 5 else luts[None]
    compiled = _compiled() if _is_large_on_cpu(image) else None
    return (compiled.apply if compiled else _sample)(luts, image).to(dtype)


def apply_8bit(lut: Tensor, pixels: np.ndarray) -> np.ndarray:
    """Send `pixels` (H, W, 3) uint8 through `lut` (3, D, D, D): uint8, within one count of the exact result.

    For photographs as they come out of a decoder: no copy of them in floating point is made, and all of
    torch's threads share the rows. Colours that leave [0, 1] are clamped.

    Raises:
        InputError: pixels or a LUT of another shape or type, no pixels, a LUT with NaN or infinite values.
    """
    _check_8bit(lut, pixels)
    lut = lut.detach().cpu().float()
    if compiled := _compiled():
        return compiled.apply_8bit(lut, pixels)
    from cvpr21lib.ppr10k import cube  # which imports this module

    if lut.shape[-1] <= cube.PILLOW_LARGEST:
        return _in_rows(cube.to_pillow(lut), pixels)
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None] / 255
    rounded = _sample(lut[None], image)[0].mul_(255).add_(0.5).clamp_(0, 255).byte()
    return rounded.permute(1, 2, 0).contiguous().numpy()


@cache
def _compiled() -> ModuleType | None:
    try:
        from cvpr21lib.ppr10k import lut_compiled
    except ImportError:  # numba is not installed, or does not fit this numpy
        return None
    return lut_compiled


def _is_large_on_cpu(image: Tensor) -> bool:
    # To load numba takes as long as a few hundred small images.
    return image.device.type == "cpu" and image.numel() >= 3 * 2**16 and not torch.compiler.is_compiling()


def _sample(luts: Tensor, image: Tensor) -> Tensor:
    """`luts` (M, 3, D, D, D), M = 1 or N, on `image` (N, 3, H, W) by torch's grid_sample, on any device."""
    on_cpu = image.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu and (blocks := _blocks(image)) > 1:
        return _sample_blocks(luts, image, blocks)
    # The nearest bounds that leave 0 and 1 inside, with their gradients: the end of a clamp has none.
    low, high = -torch.finfo(image.dtype).tiny, 1 + torch.finfo(image.dtype).eps
    grid = image.clamp(low, high).mul_(2 / STRETCH).sub_(1)  # the first point of the LUT is -1, the last 1
    grid, luts = grid.permute(0, 2, 3, 1)[:, None], luts.expand(len(image), -1, -1, -1, -1)
    out = F.grid_sample(luts, grid, mode="bilinear", padding_mode="zeros", align_corners=True)[:, :, 0]
    if on_cpu and not image.sum().isnan():  # on a GPU, to look would be to wait
        return out
    return out.masked_fill(image.isnan().any(1, keepdim=True), torch.nan)  # grid_sample makes them a colour


def _blocks(image: Tensor) -> int:
    """Into how many blocks the pixels of each image are cut, so that every thread has work."""
    n, _, h, w = image.shape
    return min(-(-torch.get_num_threads() // n), h * w // 2**15)


def _sample_blocks(luts: Tensor, image: Tensor, blocks: int) -> Tensor:
    """`_sample` with the blocks as so many images: grid_sample gives a thread of the CPU nothing smaller."""
    n, _, h, w = image.shape
    pixels = F.pad(image.flatten(2), (0, extra)) if (extra := -(h * w) % blocks) else image.flatten(2)
    cut = pixels.unflatten(2, (blocks, 1, -1)).transpose(1, 2).flatten(0, 1)  # (N blocks, 3, 1, P)
    per_block = luts[:, None].expand(n, blocks, -1, -1, -1, -1).flatten(0, 1)
    out = _sample(per_block, cut).unflatten(0, (n, blocks)).transpose(1, 2).flatten(2)
    return out[..., : h * w].view_as(image)


def _in_rows(look: ImageFilter.Color3DLUT, pixels: np.ndarray) -> np.ndarray:
    """Pillow's own filter, on a few rows at a time: its copies stay small, and all threads have work."""
    out = np.empty_like(pixels, order="C")
    height, width, _ = pixels.shape
    rows = max(1, 2**17 // width)

    def block(top: int) -> None:
        part = slice(top, top + rows)
        out[part] = Image.fromarray(np.ascontiguousarray(pixels[part])).filter(look)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(block, range(0, height, rows)))
    return out


def check(lut: Tensor) -> None:
    """Raise `InputError` unless `lut` has the shape of one LUT, `(3, D, D, D)`, and a floating type."""
    shape = tuple(lut.shape)
    if not lut.is_floating_point():
        raise InputError(f"the LUT has type {lut.dtype}; convert it with .float()")
    if lut.ndim == 4 and shape[0] != 3 and shape[-1] == 3:
        raise InputError(f"the LUT has shape {shape}, colours last; turn it with .permute(3, 0, 1, 2)")
    if lut.ndim != 4 or shape[0] != 3 or len(set(shape[1:])) != 1:
        raise InputError(
            f"the LUT has shape {shape}; expected (3, D, D, D), indexed [colour, blue, green, red]"
        )
    if shape[-1] < 2:
        raise InputError(
            f"the LUT has shape {shape}: a single point has nothing to interpolate between; use D = 2 or more"
        )


def check_finite(lut: Tensor) -> None:
    """`check`, and no NaN or infinite values: a LUT that can be written down."""
    check(lut)
    if not lut.isfinite().all():
        raise InputError("the LUT holds NaN or infinite values; what made it has diverged")


def _check(lut: Tensor, image: Tensor) -> None:
    _check_image(image)
    if lut.ndim == 5:
        if len(lut) != len(image):
            raise InputError(
                f"{len(lut)} LUTs of shape {tuple(lut.shape)} do not fit {len(image)} images; give one LUT "
                "an image, or a single one of shape (3, D, D, D) for all"
            )
        lut = lut[0]
    check(lut)
    if lut.device != image.device:
        raise InputError(f"the LUT is on {lut.device} and the image on {image.device}; move one to the other")


def _check_image(image: Tensor) -> None:
    shape = tuple(image.shape)
    if image.ndim == 3:
        raise InputError(f"the image has shape {shape}; add the batch axis with image[None]")
    if image.ndim == 4 and shape[1] == 1:
        raise InputError(
            f"the image has shape {shape}, which is grey; repeat the channel with .expand(-1, 3, -1, -1)"
        )
    if image.ndim == 4 and shape[1] != 3 and shape[3] == 3:
        raise InputError(f"the image has shape {shape}, channels last; turn it with .permute(0, 3, 1, 2)")
    if image.ndim != 4 or shape[1] != 3:
        raise InputError(f"the image has shape {shape}; expected (N, 3, H, W) in RGB")
    if not image.is_floating_point():
        raise InputError(f"the image has type {image.dtype}; make it floats in [0, 1], as with image / 255")
    if image.numel() == 0:
        raise InputError(f"there are no pixels in an image of shape {shape}")


def _check_8bit(lut: Tensor, pixels: np.ndarray) -> None:
    check_finite(lut)
    if pixels.dtype != np.uint8:
        raise InputError(
            f"the pixels have type {pixels.dtype}; expected uint8, or use apply on floats in [0, 1]"
        )
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(
            f"the pixels have shape {pixels.shape}; expected (H, W, 3) in RGB, without alpha; "
            "repeat a grey image three times"
        )
    if pixels.size == 0:
        raise InputError(f"there are no pixels in an image of shape {pixels.shape}")
