"""Official checkpoints, in detectron2's layout; the ImageNet start; and room for new classes."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvpr21lib import checkpoints
from cvpr21lib.eopsn import numpy_pickle
from cvpr21lib.eopsn.config import Config
from cvpr21lib.eopsn.model import PIXEL_MEAN, PanopticFPN, Widths, panoptic_fpn
from cvpr21lib.eopsn.resnet import ResNet
from cvpr21lib.errors import InputError

CLASS_WEIGHT = "roi_heads.box_predictor.cls_weight.weight"
CELL_ANCHORS = "proposal_generator.anchor_generator.cell_anchors."


def load_official(path: str | Path, config: Config, widths: Widths | None = None) -> PanopticFPN:
    """The network of an official checkpoint, .pth or .pkl, for inference.

    `config` says which: for K = 20 %, `Config(void_mode="train")` or `eopsn()`. Weights that do not fit it,
    or that belong to other anchors or another normalisation of images, are an `InputError`.
    """
    path = Path(path)
    state = _arrays(path, "model") if path.suffix == ".pkl" else checkpoints.load(path)
    net = panoptic_fpn(config, widths)
    checkpoints.fit(net, from_official(state, net, source=str(path)), source=str(path))
    return net.eval()


def load_imagenet(body: ResNet, path: str | Path) -> None:
    """Start from `R-50.pkl`, MSRA's ResNet-50 as detectron2 offers it (ImageNetPretrained/MSRA), from Caffe.

    Its normalisations are a scale and a shift; the classifier is left out.
    """
    path = Path(path)
    state = {}
    for name, value in _arrays(path, "blobs", "model").items():
        if not name.startswith(("fc1000_", "pred_")) and not name.endswith("_momentum"):
            state[_from_caffe(name, path)] = value
    for norm in [
        name.removesuffix("weight") for name in state if re.search(r"(bn\d|downsample\.1)\.weight$", name)
    ]:
        state.setdefault(norm + "running_mean", torch.zeros_like(state[norm + "weight"]))
        # so that the scale is the weight itself, whatever is added to the variance
        state.setdefault(norm + "running_var", torch.full_like(state[norm + "weight"], 1 - body.bn1.eps))
    checkpoints.fit(body, state, source=str(path))


def widen(net: PanopticFPN, unknown: int) -> PanopticFPN:
    """A copy of a network of void suppression that may discover classes: the start of EOPSN.

    The M new logits begin at zero, and do not count in the loss until clustering fills them.
    """
    if net.config.unknown or net.config.void_mode != "suppression":
        raise InputError(
            f"a network with void_mode={net.config.void_mode!r} and {net.config.unknown} unknown classes "
            "cannot be widened; start from void suppression without unknown classes."
        )
    state = net.state_dict()
    for name in ("box_head.cls_score.weight", "box_head.cls_score.bias", "class_weight"):
        value = state[name]
        state[name] = torch.cat([value, value.new_zeros(unknown, *value.shape[1:])])
    config = replace(net.config, unknown=unknown)
    wide = PanopticFPN(copy.deepcopy(net.trunk), copy.deepcopy(net.semantic_head), config)
    wide.to(net.class_weight.device).load_state_dict(state)
    return wide.train(net.training)


def to_official(net: PanopticFPN) -> dict[str, Tensor]:
    """The weights by detectron2's names, with the constants that its checkpoints hold."""
    state = {official_name(name): value for name, value in net.state_dict().items() if name != "class_weight"}
    if net.config.unknown:
        state[CLASS_WEIGHT] = net.class_weight[:, None]
    return state | _constants(net)


def from_official(state: Mapping[str, Tensor], net: PanopticFPN, *, source: str) -> dict[str, Tensor]:
    """The weights by our names; `source` names them in an error."""
    constants = _constants(net)
    for name, ours in constants.items():
        theirs = state.get(name)
        if theirs is not None and (theirs.shape != ours.shape or not torch.allclose(theirs.to(ours), ours)):
            raise InputError(
                f"the weights in {source} belong to another {name}: {theirs.flatten().tolist()[:12]} there, "
                f"{ours.flatten().tolist()[:12]} here."
            )
    names = {official_name(name): name for name in net.state_dict()}
    renamed = {names.get(name, name): value for name, value in state.items() if name not in constants}
    if not net.config.unknown:  # all count, and the official networks have no weights for them
        renamed.setdefault("class_weight", torch.ones_like(net.class_weight))
    if "class_weight" in renamed:  # a column, but what the official converter writes is a vector
        renamed["class_weight"] = renamed["class_weight"].flatten()
    return renamed


def official_name(name: str) -> str:
    """detectron2's name of one of our weights."""
    for pattern, official in _NAMES:
        if match := re.fullmatch(pattern, name):
            return official(match)
    return name


_NAMES: tuple[tuple[str, Any], ...] = (
    (r"class_weight", lambda _: CLASS_WEIGHT),
    (r"trunk\.body\.conv1\.weight", lambda _: "backbone.bottom_up.stem.conv1.weight"),
    (r"trunk\.body\.bn1\.(\w+)", lambda m: f"backbone.bottom_up.stem.conv1.norm.{m[1]}"),
    (
        r"trunk\.body\.layer(\d)\.(\d+)\.(.+)",
        lambda m: f"backbone.bottom_up.res{int(m[1]) + 1}.{m[2]}.{_in_block(m[3])}",
    ),
    (r"trunk\.fpn\.inner_blocks\.(\d)\.0\.(\w+)", lambda m: f"backbone.fpn_lateral{int(m[1]) + 2}.{m[2]}"),
    (r"trunk\.fpn\.layer_blocks\.(\d)\.0\.(\w+)", lambda m: f"backbone.fpn_output{int(m[1]) + 2}.{m[2]}"),
    (r"rpn\.(.+)", lambda m: f"proposal_generator.rpn_head.{m[1]}"),
    (r"box_head\.fc\.(\d)\.(\w+)", lambda m: f"roi_heads.box_head.fc{int(m[1]) + 1}.{m[2]}"),
    (r"box_head\.(cls_score|bbox_pred)\.(\w+)", lambda m: f"roi_heads.box_predictor.{m[1]}.{m[2]}"),
    (r"mask_head\.convs\.(\d)\.(\w+)", lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}.{m[2]}"),
    (r"mask_head\.(deconv|predictor)\.(\w+)", lambda m: f"roi_heads.mask_head.{m[1]}.{m[2]}"),
    (r"semantic_head\.(p\d\.\d)\.0\.weight", lambda m: f"sem_seg_head.{m[1]}.weight"),
    (r"semantic_head\.(p\d\.\d)\.1\.(\w+)", lambda m: f"sem_seg_head.{m[1]}.norm.{m[2]}"),
    (r"semantic_head\.predictor\.(\w+)", lambda m: f"sem_seg_head.predictor.{m[1]}"),
)


def _in_block(name: str) -> str:
    """`bn2.bias` is `conv2.norm.bias`, `downsample.0.weight` is `shortcut.weight`."""
    name = re.sub(r"^bn(\d)\.", r"conv\1.norm.", name)
    return name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")


def _constants(net: PanopticFPN) -> dict[str, Tensor]:
    """What official checkpoints hold besides weights."""
    cells = {name: value for name, value in net.rpn.named_buffers() if name.startswith("cells_")}
    return {
        "pixel_mean": torch.tensor(PIXEL_MEAN).view(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        **{CELL_ANCHORS + name.removeprefix("cells_"): value for name, value in cells.items()},
    }


def _arrays(path: Path, *wrappers: str) -> dict[str, Tensor]:
    """The arrays in a pickle, which may lie under one of the keys `wrappers`."""
    content = numpy_pickle.read(path)
    for key in wrappers:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not arrays by their names.")
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    if not arrays or not all(
        value.dtype.kind in "fiu" and isinstance(name, str) for name, value in arrays.items()
    ):
        raise InputError(f"{path} holds no arrays of numbers by their names: it is not a file of weights.")
    native = {name: value.astype(value.dtype.newbyteorder("=")) for name, value in arrays.items()}
    return {name: torch.from_numpy(value) for name, value in native.items()}


def _from_caffe(name: str, path: Path) -> str:
    """`res3_0_branch2a_bn_s` is `layer2.0.bn1.weight`, `res_conv1_bn_b` is `bn1.bias`."""
    if name == "conv1_w":
        return "conv1.weight"
    if match := re.fullmatch(r"res_conv1_bn_(s|b|rm|riv)", name):
        return f"bn1.{_NORM[match[1]]}"
    if match := re.fullmatch(r"res(\d)_(\d+)_branch(1|2a|2b|2c)_(w|bn_(?:s|b|rm|riv))", name):
        stage, block, branch, part = match.groups()
        kind = "weight" if part == "w" else _NORM[part.removeprefix("bn_")]
        if branch == "1":
            layer = "downsample.0" if part == "w" else "downsample.1"
        else:
            layer = f"{'conv' if part == 'w' else 'bn'}{'abc'.index(branch[1]) + 1}"
        return f"layer{int(stage) - 1}.{block}.{layer}.{kind}"
    raise InputError(f"{path} has an array {name!r}, which is not ResNet-50's: look for MSRA's R-50.pkl.")


_NORM = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
