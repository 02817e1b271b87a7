"""Retouch photographs with a trained network: one, in whatever form it comes, or a folder of them.

The network sees a thumbnail; what it answers, one LUT, is applied to the whole photograph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cvpr21lib import atomic, images, inference
from cvpr21lib.errors import InputError
from cvpr21lib.images import Photo
from cvpr21lib.ppr10k import cube, lut, table, weights
from cvpr21lib.ppr10k.model import Retoucher

Pixels = np.ndarray[Any, Any]
Same = TypeVar("Same", Photo, np.ndarray, Tensor)

#: Pixels from which on a table of all 8-bit colours is the faster way (alone 2, beside numba 10 million).
LARGE = 2**22

#: What `retouch_folder` takes for a photograph.
SUFFIXES = (*images.WRITABLE, ".gif", ".avif")

#: The file in a folder of results that says what each was made from.
JOURNAL = "retouched.jsonl"


@overload
def retouch(photo: str | Path, network: Retoucher | str | Path, *, device: str | None = None) -> Photo: ...
@overload
def retouch(photo: Same, network: Retoucher | str | Path, *, device: str | None = None) -> Same: ...
def retouch(photo: Any, network: Retoucher | str | Path, *, device: str | None = None) -> Any:
    """Retouch one photograph of any size (or a batch of one size) and return the same kind of thing.

    Args:
        photo: a path (the result is then a `Photo`, for `images.write`); a `Photo`; an array (H, W, 3) of
            uint8; a tensor (3, H, W) or (N, 3, H, W) of floats in [0, 1].
        network: a trained `Retoucher`, or the path of its weights (see `weights.load`).
        device: where to compute. Unless given, a network stays where it is, and weights from a file go to the
            best device there is. Photographs of 8 bits meet their LUT on the CPU, which is as fast.

    The network runs in evaluation mode without gradients. Its output has no bounds of its own and is clamped
    to [0, 1]. Depth, alpha and colour profile of a `Photo` stay. A photograph of 8 bits stays in 8 bits all
    the way, which is many times faster and within one count of rounding what floats give.

    Raises:
        InputError: not an image, no pixels, NaN or values outside [0, 1]; weights that cannot be read or
            have diverged; a device that is not there.
    """
    network = _network(network, device)
    if isinstance(photo, str | Path):
        photo = images.read(photo)
    if isinstance(photo, Photo):
        pixels = _retouched(_as_stored(photo), network)
        return replace(photo, pixels=images.from_array(pixels).pixels if photo.bits == 8 else pixels)
    if isinstance(photo, np.ndarray):
        return _retouched(photo, network)
    if isinstance(photo, Tensor):
        return _tensor(photo, network)
    raise InputError(
        f"cannot retouch a {type(photo).__name__}; give a path, a Photo, a uint8 array or a tensor"
    )


def look(
    photo: Photo | Pixels | str | Path, network: Retoucher | str | Path, *, device: str | None = None
) -> Tensor:
    """The LUT (3, D, D, D) that `retouch` would apply to a photograph, on the CPU, not clamped.

    `photo` is a path, a `Photo`, or an array (H, W, 3) of uint8 or of floats in [0, 1]. Written as a `.cube`
    file it gives the same retouching in a photographer's own tools.
    """
    network = _network(network, device)
    if isinstance(photo, str | Path):
        photo = images.read(photo)
    return _look(photo.pixels if isinstance(photo, Photo) else photo, network)


class Outcome(NamedTuple):
    """What `retouch_folder` did: names of photographs."""

    made: list[str]
    kept: list[str]  # results of an earlier call that are still right
    refused: dict[str, str]  # with the reason


def retouch_folder(
    folder: str | Path,
    out: str | Path,
    network: Retoucher | str | Path,
    *,
    suffix: str | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Outcome:
    """Retouch every photograph of `folder` (not of folders in it) into the folder `out`, under its own name.

    The same call again makes only what is missing: a result is kept while its photograph, the network's
    weights and the file itself are those that `out`/retouched.jsonl tells of. A photograph that cannot be
    read is refused, with its name and the reason, and the others are done.

    Args:
        folder: photographs by suffix (`SUFFIXES`), hidden files left out.
        out: is made where it is missing; it must be another folder.
        network: as in `retouch`.
        suffix: the format of all results, e.g. ".png". Unless given, each keeps its photograph's, and those
            that cannot be written (GIF, AVIF) become PNG.
        device: as in `retouch`.
        progress: show a progress bar.

    Raises:
        InputError: no folder, no photographs in it, two with one result, weights that cannot be read, or a
            result that cannot be written; those made before stay.
    """
    folder, out = Path(folder), Path(out)
    results = _results(folder, out, suffix)
    network = _network(network, device)
    state = fingerprint(network)
    journal = _Journal(out)
    outcome = Outcome([], [], {})
    for path, result in tqdm(results.items(), "Retouching", unit="photo", disable=not progress):
        made_from = {"source": _digest(path), "weights": state}
        if journal.tells(path.name, result, made_from):
            outcome.kept.append(path.name)
            continue
        try:
            photo = images.read(path)
            images.check_target(result, alpha=photo.alpha is not None)
        except InputError as error:
            outcome.refused[path.name] = str(error)
            continue
        images.write(result, retouch(photo, network))
        journal.add(path.name, result, made_from)
        outcome.made.append(path.name)
    return outcome


def command(
    photos: Path,
    weights_path: Path,
    out: Path,
    *,
    luts: Path | None = None,
    cube_path: Path | None = None,
    device: str | None = None,
) -> str:
    """What `cvpr21 retouch` does: a photograph or a folder, files in and files out. Returns what to print.

    `luts` belongs to an official classifier, `cube_path` takes the look of the one photograph. Raises
    `InputError` as `retouch` and `retouch_folder` do, and, when the rest is done, for what was refused.
    """
    if photos.is_dir():
        if cube_path is not None:
            raise InputError(
                f"{photos} is a folder, and each photograph has its own look: give one for --cube"
            )
        outcome = retouch_folder(photos, out, _ready(weights_path, luts, device))
        done = f"{len(outcome.made)} retouched, {len(outcome.kept)} there already: {out}"
        if outcome.refused:
            reasons = "; ".join(outcome.refused.values())
            raise InputError(f"{len(outcome.refused)} could not be retouched ({reasons}); {done}")
        return done
    images.check_target(out)
    photo = images.read(photos)
    images.check_target(out, alpha=photo.alpha is not None)
    network = _ready(weights_path, luts, device)
    if cube_path is not None:
        cube.write(cube_path, look(photo, network))
    images.write(out, retouch(photo, network))
    return f"{out}" if cube_path is None else f"{out}, and its look {cube_path}"


def fingerprint(network: Retoucher) -> str:
    """SHA-256 over the names, shapes and values of the network's weights, wherever they lie."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def thumbnail(pixels: Pixels, side: int) -> Tensor:
    """(1, 3, side, side) float32 in [0, 1] of `pixels` (H, W, 3), uint8 or floats: what `model.resize` gives.

    Four pixels are read for each of the thumbnail's, so that a large photograph need not become a tensor.
    """
    height, width = pixels.shape[:2]
    (top, bottom, down), (left, right, across) = _neighbours(height, side), _neighbours(width, side)
    rows, columns = np.concatenate([top, bottom]), np.concatenate([left, right])
    found = pixels[rows[:, None], columns].astype(np.float32)
    if pixels.dtype == np.uint8:
        found /= np.float32(255)
    by_row = found[:side] + (found[side:] - found[:side]) * down[:, None, None]
    small = by_row[:, :side] + (by_row[:, side:] - by_row[:, :side]) * across[:, None]
    return torch.from_numpy(small.transpose(2, 0, 1)[None].copy())


def _neighbours(length: int, side: int) -> tuple[Pixels, Pixels, Pixels]:
    """Of every sample along an axis the two neighbours, and how far it lies from one to the other."""
    place = ((np.arange(side) + 0.5) * (length / side) - 0.5).clip(0)
    first = place.astype(int)
    return first, np.minimum(first + 1, length - 1), (place - first).astype(np.float32)


def _as_stored(photo: Photo) -> Pixels:
    """The pixels as (H, W, 3): uint8 again where the file had 8 bits, else floats."""
    if photo.bits != 8:
        return photo.pixels
    inference.check_values(photo.pixels)
    return cv2.convertScaleAbs(photo.pixels, alpha=255)  # rounds to nearest


@torch.no_grad()
def _retouched(pixels: Pixels, network: Retoucher) -> Pixels:
    """(H, W, 3), uint8 or floats in [0, 1], to the same."""
    mixed = _look(pixels, network)
    if pixels.dtype == np.uint8:
        return (table.apply if pixels.size // 3 >= LARGE else lut.apply_8bit)(mixed, pixels)
    weight = network.luts
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).to(weight)
    out = lut.apply(mixed.to(weight), image[None])[0].clamp_(0, 1)
    return out.permute(1, 2, 0).float().contiguous().cpu().numpy()


@torch.no_grad()
def _look(pixels: Pixels, network: Retoucher) -> Tensor:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype not in (np.uint8, np.float32):
        raise InputError(
            f"expected an array (H, W, 3) of uint8, but got {pixels.dtype} of the shape {pixels.shape}; "
            "images.from_array makes a Photo of other arrays"
        )
    if pixels.size == 0:
        raise InputError(f"there are no pixels in an image of the shape {pixels.shape}")
    if pixels.dtype != np.uint8:
        inference.check_values(pixels)
    small = thumbnail(pixels, network.predictor.thumbnail)
    with inference.evaluating(network):
        mixed = network.look(small.to(network.luts))[0].float().cpu()
    return _finite(mixed)


@torch.no_grad()
def _tensor(image: Tensor, network: Retoucher) -> Tensor:
    """(3, H, W) or (N, 3, H, W) in, the same shape, type and device out."""
    if image.ndim not in (3, 4) or image.shape[-3] != 3:
        raise InputError(
            f"expected a tensor (3, H, W) or (N, 3, H, W), RGB, but got the shape {tuple(image.shape)}"
        )
    if image.numel() == 0:
        raise InputError(f"there are no pixels in an image of the shape {tuple(image.shape)}")
    inference.check_values(image)
    batch = (image if image.ndim == 4 else image[None]).to(network.luts)
    with inference.evaluating(network):
        out = lut.apply(_finite(network.look(batch)), batch).clamp_(0, 1)
    return out.reshape(image.shape).to(image)


def _finite(mixed: Tensor) -> Tensor:
    if not mixed.isfinite().all():
        raise InputError("the network answers with NaN or infinite colours: its weights have diverged")
    return mixed


def _network(network: Retoucher | str | Path, device: str | None) -> Retoucher:
    if isinstance(network, Retoucher):
        return network if device is None else network.to(inference.device(device))
    return _ready(network, None, device)


def _ready(path: str | Path, luts: Path | None, device: str | None) -> Retoucher:
    return weights.load(path, luts).to(inference.device(device))


def _results(folder: Path, out: Path, suffix: str | None) -> dict[Path, Path]:
    """For each photograph of `folder` the file to write; refuses before anything is computed."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder of photographs")
    if suffix is not None and suffix.lower() not in images.WRITABLE:
        raise InputError(f"suffix is {suffix!r}; results can be {', '.join(images.WRITABLE)}")
    if out.exists() and (not out.is_dir() or out.samefile(folder)):
        raise InputError(f"{out} cannot take the results; give a folder that is not the photographs' own")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    photographs = [path for path in found if not path.name.startswith(".")]
    if not photographs:
        raise InputError(f"the folder {folder} holds no photographs ({', '.join(SUFFIXES)})")
    results: dict[Path, Path] = {}
    taken: dict[str, str] = {}
    for path in photographs:
        end = suffix or (path.suffix if path.suffix.lower() in images.WRITABLE else ".png")
        name = path.stem + end
        if name in taken:
            raise InputError(
                f"{taken[name]} and {path.name} in {folder} would both become {name}; rename one of them"
            )
        taken[name], results[path] = path.name, out / name
    with _named(out):
        out.mkdir(parents=True, exist_ok=True)
    return results


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"  # and `images.read` will say so


class _Journal:
    """One line a result, added when the result is whole. A line that was cut short does not count."""

    def __init__(self, out: Path) -> None:
        self.path = out / JOURNAL
        self.entries: dict[str, Mapping[str, Any]] = {}
        with _named(self.path):
            before = self.path.read_text("utf-8", errors="replace") if self.path.exists() else ""
        for line in before.splitlines():
            try:
                entry = json.loads(line)
                self.entries[entry["photo"]] = entry
            except (ValueError, TypeError, KeyError):
                continue
        with _named(self.path), atomic.write(self.path) as temporary:
            temporary.write_text("".join(map(_line, self.entries.values())), encoding="utf-8")

    def tells(self, photo: str, result: Path, made_from: Mapping[str, str]) -> bool:
        """Whether `result` is there as it was written, and was made from just this."""
        return result.is_file() and self.entries.get(photo) == _entry(photo, result, made_from)

    def add(self, photo: str, result: Path, made_from: Mapping[str, str]) -> None:
        self.entries[photo] = _entry(photo, result, made_from)
        with _named(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(self.entries[photo]))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """The file system's refusal as one clear error."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _entry(photo: str, result: Path, made_from: Mapping[str, str]) -> dict[str, Any]:
    return {"photo": photo, "result": result.name, "bytes": result.stat().st_size, **made_from}


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"
