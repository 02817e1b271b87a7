"""Weights from files: the ImageNet start, and trained networks, of the official code and of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cvpr21lib import checkpoints
from cvpr21lib.ctrl_uda.model import CTRL
from cvpr21lib.errors import InputError

IMAGENET = "DeepLab_resnet_pretrained_imagenet.pth"
"""The official name of the start weights, which the official README links to."""


def initialise(net: CTRL, init: str | Path) -> None:
    """Fill the backbone from `init`, the file of ImageNet weights, or leave it as it is: "random"."""
    if str(init) != "random":
        load_imagenet(net, init)


def load_imagenet(net: CTRL, path: str | Path) -> None:
    """Fill the backbone from the official start weights; decoder and heads stay as they are.

    That file has a network's name in front of each key ("Scale.conv1.weight"), and another task's classifier,
    `layer5`, which is left out.

    Raises:
        InputError: the file is missing or damaged, or holds other weights: torchvision's ResNet-101 has the
            same names, but expects other images, and strides elsewhere.
    """
    state = checkpoints.load(path)
    if "fc.weight" in state:
        raise InputError(
            f"{path} holds torchvision's ResNet-101, which does not fit: it expects RGB in units of its "
            f"standard deviation, and has its strides in other convolutions; take {IMAGENET}"
        )
    renamed = {name.partition(".")[2]: value for name, value in state.items() if name.startswith("Scale.")}
    backbone = with_counters(renamed or state)
    checkpoints.fit(net.backbone, backbone, source=str(path), drop=("layer5.",))


def load_network(net: CTRL, path: str | Path) -> None:
    """Fill the network from a file that `read_network` reads; every name and shape must agree."""
    checkpoints.fit(net, read_network(path), source=str(path))


def open_network(path: str | Path) -> CTRL:
    """The network in a file that `read_network` reads, as wide, with its classes, in evaluation mode."""
    state = read_network(path)
    names = ("head_seg.layer6.conv2d_list.0.bias", "backbone.conv1.weight")
    if not all(name in state for name in names):
        raise InputError(f"{path} does not hold a network of CTRL-UDA: no {' or '.join(names)} in it")
    classes, stem = (len(state[name]) for name in names)
    net = CTRL(classes, max(1, 64 // stem))
    checkpoints.fit(net, state, source=str(path))
    return net.eval()


def load_discriminator(discriminator: nn.Module, path: str | Path) -> None:
    """Fill the discriminator from an official checkpoint of the first stage, or from a run of ours."""
    content = checkpoints.read(path)
    if _is_official(content):
        if "disc_state_dict" not in content:
            raise InputError(
                f"{path} holds no discriminator: official checkpoints of self-learning have none; "
                "take one of the first stage"
            )
        state = content["disc_state_dict"]
    else:
        state = checkpoints.load(path)
    checkpoints.fit(discriminator, state, source=str(path))


def read_network(path: str | Path) -> dict[str, Tensor]:
    """The state of a network, by its official keys.

    Reads the official checkpoints (model_ITERATION_EPOCH.pth, either stage), `net` and `best` of a run of
    ours, and bare state dicts.
    """
    content = checkpoints.read(path)
    if _is_official(content):
        state: Mapping[str, Tensor] = content["model_state_dict"]
    else:
        state = checkpoints.load(path)
    return with_counters({name: value for name, value in state.items() if name != SCORES})


SCORES = "scores"
"""What `recipe.Best` keeps beside the weights."""


def with_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with each batch norm's count of batches, which weights of early PyTorch do not have."""
    norms = [name.removesuffix("running_var") for name in state if name.endswith(".running_var")]
    return {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms} | dict(state)


def describe(init: str | Path) -> str:
    """What the record says of a file of weights: its name and SHA-256, not its folder; "random" as it is."""
    if str(init) == "random":
        return "random"
    path = Path(init)
    if not path.is_file() and path.name == IMAGENET:
        raise InputError(
            f"there are no ImageNet weights at {path}: put {IMAGENET} there (the official README of "
            'susaha/ctrl-uda has the link), or set init_weights to its place, or to "random"'
        )
    if not path.is_file():
        raise InputError(f"there are no weights at {path}: no such file")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.name} (sha256 {digest[:16]})"


def _is_official(content: Any) -> bool:
    """Whether it is a checkpoint of the official trainers, with the step and the optimisers in it."""
    return isinstance(content, Mapping) and isinstance(content.get("model_state_dict"), Mapping)
