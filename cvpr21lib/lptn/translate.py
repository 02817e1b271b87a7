"""Apply a trained LPTN to a photograph, in whatever form it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cvpr21lib import images, inference
from cvpr21lib.errors import InputError
from cvpr21lib.images import Photo
from cvpr21lib.lptn import model as networks

Same = TypeVar("Same", Photo, np.ndarray, Image.Image, Tensor)


@overload
def translate(image: str | Path, model: nn.Module | str | Path, *, device: str | None = None) -> Photo: ...
@overload
def translate(image: Same, model: nn.Module | str | Path, *, device: str | None = None) -> Same: ...
def translate(image: Any, model: nn.Module | str | Path, *, device: str | None = None) -> Any:
    """Translate one photograph of any size (or a batch of one size) and return the same kind of thing.

    Args:
        image: a path (the result is then a `Photo`, for `images.write`); a `Photo`; a Pillow image; an array
            `(H, W)` or `(H, W, C)` of uint8, uint16, or floats in [0, 1]; a tensor `(C, H, W)` or
            `(N, C, H, W)` of floats in [0, 1]. C is 1 (grey, translated as RGB and returned as such), 3 (RGB)
            or 4 (RGB and alpha; alpha comes back as it was); an array may also have 2 (grey and alpha).
        model: a trained network, or the path of its weights: an official checkpoint, or the safetensors file
            that one of our runs left.
        device: where to compute. Unless given, a network stays where it is, and weights from a file go to the
            best device there is.

    The network runs in evaluation mode without gradients, over the whole photograph at once: its instance
    norm takes its statistics from the whole low-pass image, so tiles would not fit together. Its output has
    no bounds of its own and is clamped to [0, 1].

    Raises:
        InputError: not an image, no pixels, too small for the network's pyramid, NaN or values outside
            [0, 1]; weights that cannot be read; a device that is not there.
    """
    network = _network(model, device)
    if isinstance(image, str | Path):
        image = images.read(image)
    if isinstance(image, Photo):
        return images.from_tensor(_tensor(images.to_tensor(image), network), like=image)
    if isinstance(image, Image.Image):
        return _pillow(image, network)
    if isinstance(image, np.ndarray):
        return _array(image, network)
    if isinstance(image, Tensor):
        return _tensor(image, network)
    raise InputError(
        f"cannot translate a {type(image).__name__}; "
        "give a path, a Photo, a Pillow image, an array or a tensor"
    )


def _network(model: nn.Module | str | Path, device: str | None) -> nn.Module:
    if isinstance(model, nn.Module):
        return model if device is None else model.to(inference.device(device))
    return networks.load_official(model).to(inference.device(device))


def _pillow(image: Image.Image, network: nn.Module) -> Image.Image:
    photo = images.from_pil(image)
    if photo.bits == 16:
        raise InputError(
            "a Pillow image cannot hold 16-bit colours; give the file's path or an array instead"
        )
    out = Image.fromarray(images.to_array(translate(photo, network)))
    if photo.icc:
        out.info["icc_profile"] = photo.icc
    return out


def _array(values: np.ndarray, network: nn.Module) -> np.ndarray:
    """`(H, W)` or `(H, W, C)` in, `(H, W, 3)` or `(H, W, 4)` of the same type out."""
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or not 1 <= values.shape[2] <= 4:
        raise InputError(
            f"expected an array (H, W) or (H, W, C) with at most 4 channels, channels last, "
            f"but got the shape {values.shape}"
        )
    integers = values.dtype in (np.uint8, np.uint16)
    if not integers and not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"expected uint8, uint16 or floats in [0, 1], but got an array of {values.dtype}")
    top = np.iinfo(values.dtype).max if integers else 1
    colours = values[..., :-1] if values.shape[2] in (2, 4) else values
    tensor = torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1), np.float32)) / top
    out = _tensor(tensor, network).numpy().transpose(1, 2, 0)
    out = (np.round(out * np.float32(top)) if integers else out).astype(values.dtype)
    return out if colours is values else np.dstack([out, values[..., -1:]])


def _tensor(image: Tensor, network: nn.Module) -> Tensor:
    """`(C, H, W)` or `(N, C, H, W)` in, the same shape, type and device out (C = 1 becomes 3)."""
    if image.ndim not in (3, 4) or image.shape[-3] not in (1, 3, 4):
        raise InputError(
            "expected a tensor (C, H, W) or (N, C, H, W) with 1, 3 or 4 channels, "
            f"but got the shape {tuple(image.shape)}"
        )
    if image.numel() == 0:
        raise InputError(f"there are no pixels in an image of the shape {tuple(image.shape)}")
    inference.check_values(image)
    colours = image[..., :3, :, :]
    batch = (colours if image.ndim == 4 else colours[None]).expand(-1, 3, -1, -1)
    weights = next(network.parameters())
    with inference.evaluating(network):
        out = network(batch.to(weights)).clamp(0, 1).to(image)
    out = out if image.ndim == 4 else out[0]
    return torch.cat([out, image[..., 3:, :, :]], -3) if image.shape[-3] == 4 else out
