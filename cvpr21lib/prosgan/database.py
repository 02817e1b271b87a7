"""The codes of a database, computed once and kept: but never taken for those of another network.

The official code ships the authors' database codes and loads them whatever network is attacked, so that
attacks on one network are scored against another. Here a cache carries the fingerprints of the weights and of
the images that made it, and one that does not fit is an error.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from cvpr21lib import atomic, inference
from cvpr21lib.errors import InputError
from cvpr21lib.prosgan.hashing import binary

FORMAT = 1
"""Raised when older caches can no longer be read."""


class Images(Protocol):
    """What has codes (`cvpr21lib.prosgan.data`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """With "image", `(3, H, W)` in [0, 1]."""

    def fingerprint(self) -> str:
        """Changes with the images."""


def codes(
    network: nn.Module, images: Images, cache: Path | None = None, batch: int = 32, workers: int = 0
) -> Tensor:
    """The codes `(N, K)`, int8 of -1 and +1: from the file `cache`, or else by `encode`, and then kept there.

    Raises:
        InputError: the cache was made by other weights or of other images, or is damaged.
    """
    made_by = {"weights": fingerprint(network), "images": images.fingerprint()}
    if cache is not None and cache.exists():
        return read(cache, **made_by)
    found = encode(network, images, batch, workers)
    if cache is not None:
        write(cache, found, **made_by)
    return found


def encode(network: nn.Module, images: Images, batch: int = 32, workers: int = 0) -> Tensor:
    """The codes `(N, K)` of all `images`, int8 of -1 and +1, on the CPU; an output of 0 gives +1.

    In evaluation mode, without gradients, where the network's weights are; `batch` images at a time, which
    `workers` further processes read.

    Raises:
        InputError: there are no images, or the outputs are not finite.
    """
    if not len(images):
        raise InputError("there are no images to encode.")
    device = next(network.parameters(), torch.empty(0)).device
    loader = DataLoader(_Only(images), batch, num_workers=workers)
    found = []
    with inference.evaluating(network):
        for x in tqdm(loader, "Encoding", delay=2):
            u = network(x.to(device))
            if not u.isfinite().all():
                raise InputError("the hash network's outputs are not finite: it has diverged; train it anew.")
            found.append(binary(u).to("cpu", torch.int8))
    return torch.cat(found)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 over the network's kind, and the names, types, shapes and values of its weights and buffers,
    wherever they lie."""
    digest = hashlib.sha256(type(network).__qualname__.encode())
    for name, value in network.state_dict().items():
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def write(path: Path, codes: Tensor, weights: str, images: str) -> None:
    """Keep `codes` `(N, K)` with the fingerprints of what made them, a bit for each, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.write(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            format=FORMAT,
            weights=weights,
            images=images,
            bits=codes.shape[1],
            codes=np.packbits(codes.numpy() >= 0, axis=1),
        )


def read(path: Path, weights: str, images: str) -> Tensor:
    """What `write` kept, if it was made by these `weights` and of these `images`: int8 `(N, K)`.

    Raises:
        InputError: there is no such file, it is damaged, or other weights or images made it.
    """
    try:
        with np.load(path) as file:
            kept = {name: file[name] for name in ("format", "weights", "images", "bits", "codes")}
            made_by = {name: str(kept[name]) for name in ("weights", "images")}
            bits = np.unpackbits(kept["codes"], axis=1, count=int(kept["bits"]))
    except FileNotFoundError as error:
        raise InputError(f"there are no database codes at {path}: no such file.") from error
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"the database codes {path} are damaged ({error!r}); remove the file.") from error
    if kept["format"] != FORMAT:
        raise InputError(
            f"the database codes {path} are of format {kept['format']} instead of {FORMAT}; remove the file."
        )
    again = "name another file, or remove this one to have it made again."
    if made_by["weights"] != weights:
        raise InputError(
            f"the database codes {path} were made by other weights ({made_by['weights'][:12]} instead of "
            f"{weights[:12]}), and distances between codes of two networks mean nothing; {again}"
        )
    if made_by["images"] != images:
        raise InputError(
            f"the database codes {path} are of other images ({made_by['images'][:12]} instead of "
            f"{images[:12]}); {again}"
        )
    return torch.from_numpy(bits.astype(np.int8) * 2 - 1)


class _Only(Dataset[Tensor]):
    """The images alone, without what else stands in a sample."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]["image"]
