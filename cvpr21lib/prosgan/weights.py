"""Trained networks read from files, their sizes off names and shapes: the official ones, and ours.

Official generators and PrototypeNets are state dicts, read directly. Official hash networks are whole pickled
modules, which could run code: `whole_modules.convert` first makes a safetensors file of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from cvpr21lib import checkpoints
from cvpr21lib.errors import InputError
from cvpr21lib.prosgan.generator import Generator
from cvpr21lib.prosgan.prototype import PrototypeNet
from cvpr21lib.prosgan.victims import Backbone, Victim


def load_generator(path: str | Path) -> Generator:
    """The generator of a state dict, official or ours, for square images; on the CPU, in evaluation mode."""
    state = checkpoints.load(path)
    first = _shape(state, "image_encoder.0.weight", 4, path, "a generator")
    start, features = _shape(state, "label_encoder.fc.0.weight", 2, path, "a generator")
    deconvolutions = sorted(
        int(name.split(".")[2]) for name in state if name.startswith("label_encoder.transform.")
    )[:-1]
    widths = [state[f"label_encoder.transform.{number}.weight"].shape[:2] for number in deconvolutions]
    if not widths:
        raise InputError(f"{path} is not a generator: its label_encoder.transform is missing.")
    label_widths = [widths[0][0], *(outputs for _, outputs in widths)]
    side = round((start / label_widths[0]) ** 0.5) * 2 ** len(widths)
    blocks = sum(name.startswith("image_encoder.") and name.endswith("main.0.weight") for name in state)
    net = Generator((side, side), features, label_widths, first[0], blocks, first[1] // 2)
    checkpoints.fit(net, state, source=str(path))
    return net.eval()


def load_prototype_net(path: str | Path) -> PrototypeNet:
    """The PrototypeNet of a state dict, official or ours; on the CPU, in evaluation mode."""
    state = checkpoints.load(path)
    hidden, classes = _shape(state, "feature.0.weight", 2, path, "a PrototypeNet")
    bits, features = _shape(state, "hashing.0.weight", 2, path, "a PrototypeNet")
    net = PrototypeNet(classes, bits, hidden, features)
    checkpoints.fit(net, state, source=str(path))
    return net.eval()


def load_victim(path: str | Path) -> Victim:
    """The hash network of `path`, a state dict of ours or the file that `whole_modules.convert` made.

    On the CPU, in evaluation mode. A whole pickled module raises an `InputError` that names the converter.
    """
    try:
        state = checkpoints.load(path)
    except InputError as error:
        if "holds Python objects" not in str(error):
            raise
        raise InputError(
            f"{path} is a whole pickled module, a program that could do anything once it is opened, so it "
            "was not opened. cvpr21lib.prosgan.whole_modules.convert(path, target) takes its numbers "
            "out without running it; load what that writes."
        ) from error
    if not any(name.startswith("net.") for name in state):
        state = from_official(state) | _continuation(path)
    backbone, width, bits = _architecture(state, path)
    method = "HashNet" if "continuation.scale" in state else "DPSH"  # DPSH's and DPH's networks are the same
    victim = Victim(backbone, bits, method, 64 // max(width, 1))  # type: ignore[arg-type]
    checkpoints.fit(victim, state, source=str(path))
    return victim.eval()


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for those of an official hash network's state dict.

    Officially many tensors stand twice (a VGG's `cl1.`, a ResNet's `feature_layers.`): one stays. HashNet's
    VGG keeps its classifier in parts, and a ResNet calls its last layer `hash_layer`.
    """
    last = "fc." if "conv1.weight" in state else "classifier.6."
    renamed = {}
    for name, value in state.items():
        if name.startswith(("cl1.", "cl2.", "feature_layers.")):
            continue
        name = name.replace("classifier.classifier", "classifier.").replace("hash_layer.", last)
        renamed[f"net.{name}"] = value
    return renamed


def _continuation(path: str | Path) -> dict[str, Tensor]:
    """HashNet's counter and scale, which the converter found among the module's plain attributes."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError:  # a torch file, which keeps no such numbers
        return {}
    if not {"iter_num", "scale"} <= metadata.keys():
        return {}
    return {
        "continuation.iterations": torch.tensor(int(metadata["iter_num"])),
        "continuation.scale": torch.tensor(float(metadata["scale"])),
    }


def _architecture(state: Mapping[str, Tensor], path: str | Path) -> tuple[Backbone, int, int]:
    """Backbone, channels of its first convolution, bits."""
    if "net.conv1.weight" in state:
        width, last = len(state["net.conv1.weight"]), "net.fc.weight"
        backbone = "ResNet50" if "net.layer1.0.conv3.weight" in state else "ResNet18"
    else:
        first = _shape(state, "net.features.0.weight", 4, path, "a hash network")
        width, last = first[0], "net.classifier.6.weight"
        depth = sum(name.startswith("net.features.") and value.ndim == 4 for name, value in state.items())
        backbone = "AlexNet" if first[2] == 11 else {8: "VGG11", 13: "VGG16", 16: "VGG19"}.get(depth, "")
        if not backbone:
            raise InputError(f"{path} has {depth} convolutions; a VGG has 8, 13 or 16.")
    return backbone, width, _shape(state, last, 2, path, f"a hash network on {backbone}")[0]  # type: ignore[return-value]


def _shape(state: Mapping[str, Tensor], name: str, ndim: int, path: str | Path, what: str) -> tuple[int, ...]:
    if name not in state or state[name].ndim != ndim:
        raise InputError(
            f"{path} is not {what}: {name} is missing or misshapen "
            f"(it holds {', '.join(list(state)[:3])}, ...)."
        )
    return tuple(state[name].shape)
