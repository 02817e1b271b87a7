"""How good predicted depth is, as KITTI's users count it: on metres, image by image.

The official code has no such evaluation, and the cap of the paper's numbers is not known, so ours cannot be
compared with them. The cap is part of every result's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from cvpr21lib import inference
from cvpr21lib.errors import InputError

CAP = 80.0
"""Metres: true depth beyond it does not count."""
NEAREST = 1e-3
"""Metres: predictions are brought to this, or the cap, at least."""


def evaluate(
    network: nn.Module,
    samples: Iterable[tuple[Tensor, np.ndarray, str]],
    *,
    cap: float = CAP,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> dict[str, float]:
    """The means over the images of their `Errors`, as {"abs_rel@80m": ..., ...}.

    Args:
        network: maps (1, 3, H, W) to semantics, inverse depth (1, 1, h, w), and more.
        samples: image (3, H, W), true depth in metres (H', W') with NaN or 0 where unknown, and name. The
            prediction is resized to the truth (bilinear, corners aligned).

    Raises:
        InputError: an image in which no pixel counts, by its name, or no image at all.
    """
    found = []
    with inference.evaluating(network):
        for image, metres, name in tqdm(samples, "Measuring depth", leave=False, disable=not progress):
            depth = network(image[None].to(device))[1]
            depth = F.interpolate(depth.float(), metres.shape, mode="bilinear", align_corners=True)
            try:
                found.append(errors(depth[0, 0].cpu().numpy(), metres, cap))
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
    if not found:
        raise InputError("there are no images to measure depth on.")
    means = np.mean(found, axis=0).tolist()
    return {f"{key}@{cap:g}m": value for key, value in zip(Errors._fields, means, strict=True)}


def errors(depth: np.ndarray, metres: np.ndarray, cap: float = CAP) -> Errors:
    """Of predicted *inverse* depth (H, W) against true depth in metres (H, W).

    A pixel counts if its true depth is known, above 0 and at most `cap`, and if its prediction stands for a
    depth at all, which D ≤ 0 and NaN do not (`covered` says how many do). What counts is brought to
    [`NEAREST`, cap] first, so predictions beyond the cap are not punished for how far beyond.
    """
    if depth.shape != metres.shape:
        raise InputError(
            f"predicted depth is {depth.shape} and true depth {metres.shape}; resize one of them."
        )
    if not cap > NEAREST:
        raise InputError(f"the cap is {cap} m; expected more than {NEAREST} m.")
    truth = np.asarray(metres, np.float64)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(truth) & (truth > 0) & (truth <= cap)
        counts = known & (np.asarray(depth) > 0)
    if not counts.any():
        raise InputError(
            f"no pixel counts: of {known.size:,}, {known.sum():,} have a true depth up to {cap:g} m, and "
            "none of those a predicted inverse depth above 0."
        )
    true, pred = truth[counts], to_metres(np.asarray(depth, np.float64)[counts]).clip(NEAREST, cap)
    off, ratio = pred - true, np.maximum(pred / true, true / pred)
    return Errors(
        abs_rel=float(np.mean(np.abs(off) / true)),
        sq_rel=float(np.mean(off**2 / true)),
        rmse=float(np.sqrt(np.mean(off**2))),
        rmse_log=float(np.sqrt(np.mean(np.log(pred / true) ** 2))),
        delta1=float(np.mean(ratio < 1.25)),
        delta2=float(np.mean(ratio < 1.25**2)),
        delta3=float(np.mean(ratio < 1.25**3)),
        covered=float(counts.sum() / known.sum()),
    )


class Errors(NamedTuple):
    """Of one image, or means over several."""

    abs_rel: float  # mean |pred - true| / true
    sq_rel: float  # m, mean (pred - true)² / true
    rmse: float  # m
    rmse_log: float  # of natural logarithms
    delta1: float  # in [0, 1], the share within a factor of 1.25; higher is better
    delta2: float  # within 1.25²
    delta3: float  # within 1.25³
    covered: float  # in [0, 1], the share of known pixels that have a prediction


def to_metres(depth: np.ndarray) -> np.ndarray:
    """z = (65536 / D - 1) / 100: inverse depth to metres; NaN for D ≤ 0, which stands for no depth."""
    depth = np.asarray(depth, np.float64)
    return (65536 / np.where(depth > 0, depth, np.nan) - 1) / 100
