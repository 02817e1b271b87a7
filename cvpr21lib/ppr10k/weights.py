"""A retoucher's weights: the official pairs of files read, and one file of our own read and written.

Officially a trained model is two files: LUTs (`LUTs.pth` of 3DLUT with keys "0" to "2", `LUTs_<epoch>.pth` of
PPR10K with "1" to "5", each {"LUT": (3, D, D, D)}), and a classifier, which is what we call a predictor. Ours
is the state dict of a `Retoucher`, as a run leaves it. In all of them K, D, and the kind and the sizes of the
predictor are read off names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cvpr21lib import atomic, checkpoints
from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k.model import LightPredictor, Predictor, ResNet18Predictor, Retoucher


def load(path: str | Path, luts: str | Path | None = None) -> Retoucher:
    """The trained retoucher of `path`, on the CPU and in evaluation mode.

    `path` is the safetensors file that a run of ours (or `save`) left, or, with `luts`, an official
    classifier. Raises `InputError` for files that cannot be read or are something else.
    """
    if luts is not None:
        return load_official(luts, path)
    _refuse(path, {"luts": "official LUTs", "classifier": "an official classifier"}, _PAIR)
    state = checkpoints.load(path)
    if "luts" not in state or state["luts"].ndim != 5:
        names = ", ".join(list(state)[:3])
        raise InputError(f"{path} does not hold a retoucher (its parameters are named {names}, ...). {_PAIR}")
    prefix = "predictor."
    predictor = _predictor(
        {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}, path
    )
    network = Retoucher(predictor, state["luts"].shape[-1])
    checkpoints.fit(network, state, source=str(path))
    return network.eval()


def load_official(luts_path: str | Path, classifier_path: str | Path) -> Retoucher:
    """The retoucher of an official pair of files, on the CPU and in evaluation mode.

    Reads 3DLUT's files and PPR10K's, with the ResNet-18 or a light classifier, paired or unpaired. They are
    legacy pickles with CUDA storages; nothing in them is run, and no GPU is needed. Raises `InputError` for a
    file that is damaged, swapped with the other, incomplete, or not of the same K as the other.
    """
    swapped = "Give the file of LUTs (LUTs_*.pth) and the classifier (classifier_*.pth) in their places."
    _refuse(luts_path, {"classifier": "a classifier", "retoucher": "a retoucher of ours"}, swapped)
    _refuse(classifier_path, {"luts": "LUTs", "retoucher": "a retoucher of ours"}, swapped)
    luts = _luts(luts_path)
    state = checkpoints.load(classifier_path)
    predictor = _predictor(state, classifier_path)
    checkpoints.fit(predictor, state, source=str(classifier_path))
    if predictor.num_luts != len(luts):
        raise InputError(
            f"{classifier_path} predicts {predictor.num_luts} weights but {luts_path} holds "
            f"{len(luts)} LUTs; take both files from one training."
        )
    network = Retoucher(predictor, luts.shape[-1])
    with torch.no_grad():
        network.luts.copy_(luts)
    return network.eval()


def save(path: str | Path, network: Retoucher) -> None:
    """Write `network` as one safetensors file, whole or not at all; `load` reads it."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    try:
        with atomic.write(path) as temporary:
            save_file(state, temporary)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


_PAIR = "Give the .safetensors file that a run left, or an official pair: a classifier and its LUTs."


def _refuse(path: str | Path, kinds: Mapping[str, str], remedy: str) -> None:
    kind = _kind(checkpoints.read(path))
    if kind is not None and kind in kinds:
        raise InputError(f"{path} holds {kinds[kind]}. {remedy}")


def _kind(content: Any) -> str | None:
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(value, Mapping) and "LUT" in value for value in content.values()):
        return "luts"
    names = {str(name).removeprefix("module.") for name in content}
    if "luts" in names:
        return "retoucher"
    return "classifier" if names & {"model.conv1.weight", "model.1.weight"} else None


def _luts(path: str | Path) -> Tensor:
    """(K, 3, D, D, D) from a file of K dictionaries that count from 0 (3DLUT) or from 1 (PPR10K)."""
    content = checkpoints.read(path)
    if _kind(content) != "luts":
        raise InputError(
            f'{path} does not hold LUTs: expected {{"0": {{"LUT": ...}}, ...}} as in LUTs.pth or LUTs_*.pth.'
        )
    numbers = sorted(int(name) if str(name).isdecimal() else -1 for name in content)
    if numbers not in (list(range(len(numbers))), list(range(1, len(numbers) + 1))):
        raise InputError(
            f"{path} holds LUTs named {', '.join(map(str, content))}; they should count from 0 or from 1 "
            "without a gap: part of the file is missing."
        )
    luts = [content[name]["LUT"] for name in sorted(content, key=int)]
    size = luts[0].shape[-1] if isinstance(luts[0], Tensor) and luts[0].ndim else 0
    for number, found in zip(numbers, luts, strict=True):
        if not isinstance(found, Tensor) or found.shape != (3, size, size, size) or size < 2:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"{path}: LUT {number} has the shape {shape}; expected (3, D, D, D), D the same for all."
            )
    return torch.stack(luts).float()


def _predictor(state: Mapping[str, Tensor], path: str | Path) -> Predictor:
    """A predictor of the kind and sizes that names and shapes in `state` show; its values are random."""
    if "model.conv1.weight" in state and "model.fc.weight" in state:
        return ResNet18Predictor(len(state["model.fc.weight"]))
    convolutions = {
        int(name.split(".")[1]): value
        for name, value in state.items()
        if name.startswith("model.") and name.split(".")[1].isdecimal() and value.ndim == 4
    }
    if len(convolutions) < 2:
        raise InputError(
            f"{path} does not hold a classifier of PPR10K or 3DLUT (its parameters are named "
            f"{', '.join(list(state)[:3])}, ...); look for classifier_*.pth."
        )
    *strided, last = sorted(convolutions)
    head = convolutions[last]
    return LightPredictor(
        num_luts=head.shape[0],
        thumbnail=head.shape[-1] * 2 ** len(strided),
        widths=[convolutions[layer].shape[0] for layer in strided],
        unpaired=last - strided[-1] == 2,  # the dropout between them is missing
    )
