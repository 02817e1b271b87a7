"""Before a trained network meets somebody's photograph: where to compute, in which mode, on which values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from cvpr21lib.errors import InputError

#: How far floating-point values may lie outside [0, 1] before they are taken for values of another range.
TOLERANCE = 1e-3


def device(name: str | None = None) -> torch.device:
    """The device called `name`, or the best there is. `InputError` where it is not there."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device is {name!r}, which is not there ({reason}); try 'cpu'") from error
    return found


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode and without gradients; its mode is given back."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


def check_values(image: Tensor | np.ndarray) -> None:
    """`InputError` unless `image` has a floating type and lies in [0, 1], give or take `TOLERANCE`."""
    floats = image.is_floating_point() if isinstance(image, Tensor) else image.dtype.kind == "f"
    if not floats:
        raise InputError(f"expected floats in [0, 1], but got {image.dtype}; divide by its maximum")
    low, high = float(image.min()), float(image.max())  # NaN where there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("the image holds NaN or infinite values; a photograph's lie in [0, 1]")
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise InputError(
            f"expected values in [0, 1], but they span [{low:.4g}, {high:.4g}]; rescale or clamp them first"
        )
