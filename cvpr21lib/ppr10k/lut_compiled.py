"""The arithmetic of `lut` in compiled loops for the CPU, several times faster than `grid_sample`.

`lut` goes this way by itself where numba is installed (`pip install "cvpr21lib[fast]"`). Why it is fast: the
three output colours of a point of the LUT lie side by side, so that a pixel reads eight places instead of
twenty-four; there is no division and no modulo; nothing but the result is written.

Python threads share the pixels, and each runs without the interpreter's lock. (numba's own parallel loops
would end the process when two of its threads use them at once, or when it forks after using them.)
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cvpr21lib.ppr10k.lut import STRETCH

Array = np.ndarray[Any, Any]

#: Pixels in a piece of work, about half a millisecond: many pieces, so that no thread waits for a slower one.
_PIECE = 2**16


def apply(luts: Tensor, image: Tensor) -> Tensor:
    """`luts` (M, 3, D, D, D) on `image` (N, 3, H, W), a LUT for each N/M images; both float32 or float64."""
    return _Trilinear.apply(luts, image)


def apply_8bit(lut: Tensor, pixels: Array) -> Array:
    """`lut` (3, D, D, D) float32 on `pixels` (H, W, 3) uint8."""
    # A byte has 256 values: where each takes a channel in the table, and its fraction, are made once.
    size = lut.shape[-1]
    t = np.arange(256) / 255 * (size - 1) / STRETCH
    cells = np.minimum(t.astype(np.uintp), np.uintp(size - 2))
    fractions = (t - cells).astype(np.float32)
    places = cells * 4 * np.array([[1], [size], [size * size]], np.uintp)
    table = _tables(lut[None] * 255 + 0.5)[0]
    out = np.empty(pixels.shape, np.uint8)
    x, y = np.ascontiguousarray(pixels).reshape(-1, 3), out.reshape(-1, 3)
    _share(lambda _, __, *span: _interpolate_8bit(table, places, fractions, x, y, *span), 1, len(x))
    return out


class _Trilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, luts: Tensor, image: Tensor) -> Tensor:
        ctx.save_for_backward(luts, image)
        out = torch.empty(image.shape, dtype=image.dtype)
        tables, scale, x, y = _tables(luts), _scale(luts), _planes(image, luts), _planes(out, luts)
        _share(lambda m, _, *span: _interpolate(tables[m], scale, x[m], y[m], *span), *_extent(x))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
        luts, image = ctx.saved_tensors
        for_luts, for_image = ctx.needs_input_grad
        return (
            _lut_gradient(luts, image, upstream) if for_luts else None,
            _image_gradient(luts, image, upstream) if for_image else None,
        )


def _lut_gradient(luts: Tensor, image: Tensor, upstream: Tensor) -> Tensor:
    scale, x, u = _scale(luts), _planes(image, luts), _planes(upstream, luts)
    number, pixels = _extent(x)
    # Few pieces, and a table for each: no thread waits for another, and the order of the sum does not change.
    count = max(1, min(-(-torch.get_num_threads() // number), pixels // (_PIECE // 2)))
    sums = luts.new_zeros(number, count, *luts.shape[2:], 4)
    tables = sums.numpy()
    _share(lambda m, i, *span: _scatter(tables[m, i], scale, x[m], u[m], *span), number, pixels, count)
    return sums.sum(1)[..., :3].permute(0, 4, 1, 2, 3)


def _image_gradient(luts: Tensor, image: Tensor, upstream: Tensor) -> Tensor:
    out = torch.empty(image.shape, dtype=image.dtype)
    tables, scale, x, y = _tables(luts), _scale(luts), _planes(image, luts), _planes(out, luts)
    u = _planes(upstream, luts)
    _share(lambda m, _, *span: _slope(tables[m], scale, x[m], u[m], y[m], *span), *_extent(x))
    return out


def _tables(luts: Tensor) -> Array:
    """(M, 3, D, D, D) as (M, D, D, D, 4): the colours of a point side by side, padded to 16 bytes."""
    return F.pad(luts.detach().permute(0, 2, 3, 4, 1), (0, 1)).contiguous().numpy()


def _planes(image: Tensor, luts: Tensor) -> Array:
    """(N, 3, H, W) as (M, N/M, 3, H W): the images of each LUT."""
    return image.detach().contiguous().flatten(2).unflatten(0, (len(luts), -1)).numpy()


def _scale(luts: Tensor) -> np.floating[Any]:
    kind = np.float64 if luts.dtype == torch.float64 else np.float32
    return kind((luts.shape[-1] - 1) / STRETCH)


def _extent(x: Array) -> tuple[int, int]:
    """How many LUTs there are, and how many pixels for each of them."""
    return len(x), x.shape[1] * x.shape[3]


def _share(work: Callable[..., None], luts: int, pixels: int, count: int | None = None) -> None:
    """Call `work(lut, piece, start, stop)` for `count` pieces of the pixels of each LUT, on all threads."""
    count = count or max(1, pixels // _PIECE)
    edges = [pixels * i // count for i in range(count + 1)]
    pieces = [(m, i, edges[i], edges[i + 1]) for m in range(luts) for i in range(count)]
    threads = min(torch.get_num_threads(), len(pieces))
    if threads == 1:
        for piece in pieces:
            work(*piece)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda piece: work(*piece), pieces))


def _machine_code(function: Callable[..., Any]) -> Callable[..., Any]:
    # "contract" allows a fused multiply-add and nothing else: NaN and infinity keep their meaning.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder can keep the code, neither beside this file nor the user's own
        return numba.njit(**options)(function)


@_machine_code
def _cell(value: Any, scale: Any, size: int) -> Any:
    """Index of the cell, and how far into it; a NaN is in the first cell, as far as NaN."""
    one, zero = type(value)(1), type(value)(0)
    value = zero if value < zero else value
    value = one if value > one else value
    t = value * scale
    index = min(np.uint32(t), np.uint32(size - 2)) if t > zero else np.uint32(0)
    return np.uintp(index), t - type(value)(index)


@_machine_code
def _weights(r: Any, g: Any, b: Any) -> Any:
    """Of the eight corners of a cell; the digits stand for blue, green and red."""
    w11 = b * g
    w10, w01 = b - w11, g - w11
    w00 = type(r)(1) - b - w01
    w001, w011, w101, w111 = w00 * r, w01 * r, w10 * r, w11 * r
    return w00 - w001, w001, w01 - w011, w011, w10 - w101, w101, w11 - w111, w111


@_machine_code
def _between(v00: Any, v01: Any, v10: Any, v11: Any, inner: Any, outer: Any) -> Any:
    """Bilinear interpolation."""
    low, high = v00 + inner * (v01 - v00), v10 + inner * (v11 - v10)
    return low + outer * (high - low)


@_machine_code
def _steps(size: int) -> Any:
    """How far apart in the flat table two neighbours are, in blue, in green and in red."""
    return np.uintp(4 * size * size), np.uintp(4 * size), np.uintp(4)


@_machine_code
def _span(n: int, pixels: int, start: int, stop: int) -> Any:
    """The pixels of image n among `start` to `stop`, which count through all images."""
    return np.uintp(max(start - n * pixels, 0)), np.uintp(min(stop - n * pixels, pixels))


@_machine_code
def _interpolate(table: Array, scale: Any, x: Array, y: Array, start: int, stop: int) -> None:
    size, pixels, flat = table.shape[0], x.shape[2], table.reshape(-1)
    db, dg, dr = _steps(size)
    for n in range(start // pixels, (stop - 1) // pixels + 1):
        first, last = _span(n, pixels, start, stop)
        for p in range(first, last):
            i, r = _cell(x[n, 0, p], scale, size)
            j, g = _cell(x[n, 1, p], scale, size)
            k, b = _cell(x[n, 2, p], scale, size)
            w000, w001, w010, w011, w100, w101, w110, w111 = _weights(r, g, b)
            q = k * db + j * dg + i * dr
            for c in range(3):
                low = (flat[q] * w000 + flat[q + dr] * w001) + (
                    flat[q + dg] * w010 + flat[q + dg + dr] * w011
                )
                q += db
                high = (flat[q] * w100 + flat[q + dr] * w101) + (
                    flat[q + dg] * w110 + flat[q + dg + dr] * w111
                )
                y[n, c, p] = low + high
                q += np.uintp(1) - db


@_machine_code
def _scatter(table: Array, scale: Any, x: Array, u: Array, start: int, stop: int) -> None:
    size, pixels, flat = table.shape[0], x.shape[2], table.reshape(-1)
    db, dg, dr = _steps(size)
    for n in range(start // pixels, (stop - 1) // pixels + 1):
        first, last = _span(n, pixels, start, stop)
        for p in range(first, last):
            i, r = _cell(x[n, 0, p], scale, size)
            j, g = _cell(x[n, 1, p], scale, size)
            k, b = _cell(x[n, 2, p], scale, size)
            w000, w001, w010, w011, w100, w101, w110, w111 = _weights(r, g, b)
            q = k * db + j * dg + i * dr
            for c in range(3):
                flat[q] += u[n, c, p] * w000
                flat[q + dr] += u[n, c, p] * w001
                flat[q + dg] += u[n, c, p] * w010
                flat[q + dg + dr] += u[n, c, p] * w011
                q += db
                flat[q] += u[n, c, p] * w100
                flat[q + dr] += u[n, c, p] * w101
                flat[q + dg] += u[n, c, p] * w110
                flat[q + dg + dr] += u[n, c, p] * w111
                q += np.uintp(1) - db


@_machine_code
def _slope(table: Array, scale: Any, x: Array, u: Array, y: Array, start: int, stop: int) -> None:
    size, pixels, flat = table.shape[0], x.shape[2], table.reshape(-1)
    db, dg, dr = _steps(size)
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for n in range(start // pixels, (stop - 1) // pixels + 1):
        first, last = _span(n, pixels, start, stop)
        for p in range(first, last):
            i, r = _cell(x[n, 0, p], scale, size)
            j, g = _cell(x[n, 1, p], scale, size)
            k, b = _cell(x[n, 2, p], scale, size)
            q = k * db + j * dg + i * dr
            v000 = v001 = v010 = v011 = v100 = v101 = v110 = v111 = zero
            for c in range(3):  # the corners as the upstream gradient sees them: one number each
                v000 += u[n, c, p] * flat[q]
                v001 += u[n, c, p] * flat[q + dr]
                v010 += u[n, c, p] * flat[q + dg]
                v011 += u[n, c, p] * flat[q + dg + dr]
                q += db
                v100 += u[n, c, p] * flat[q]
                v101 += u[n, c, p] * flat[q + dr]
                v110 += u[n, c, p] * flat[q + dg]
                v111 += u[n, c, p] * flat[q + dg + dr]
                q += np.uintp(1) - db
            along_r = _between(v001 - v000, v011 - v010, v101 - v100, v111 - v110, g, b)
            along_g = _between(v010 - v000, v011 - v001, v110 - v100, v111 - v101, r, b)
            along_b = _between(v100 - v000, v101 - v001, v110 - v010, v111 - v011, r, g)
            y[n, 0, p] = scale * along_r if zero <= x[n, 0, p] <= one else zero
            y[n, 1, p] = scale * along_g if zero <= x[n, 1, p] <= one else zero
            y[n, 2, p] = scale * along_b if zero <= x[n, 2, p] <= one else zero


@_machine_code
def _interpolate_8bit(
    table: Array, places: Array, fractions: Array, x: Array, y: Array, start: int, stop: int
) -> None:
    flat = table.reshape(-1)
    db, dg, dr = _steps(table.shape[0])
    lowest, highest = np.float32(0), np.float32(255)
    for p in range(np.uintp(start), np.uintp(stop)):
        red, green, blue = x[p, 0], x[p, 1], x[p, 2]
        w000, w001, w010, w011, w100, w101, w110, w111 = _weights(
            fractions[red], fractions[green], fractions[blue]
        )
        q = places[0, red] + places[1, green] + places[2, blue]
        for c in range(3):
            low = (flat[q] * w000 + flat[q + dr] * w001) + (flat[q + dg] * w010 + flat[q + dg + dr] * w011)
            q += db
            high = (flat[q] * w100 + flat[q + dr] * w101) + (flat[q + dg] * w110 + flat[q + dg + dr] * w111)
            y[p, c] = np.uint8(min(max(low + high, lowest), highest))
            q += np.uintp(1) - db
