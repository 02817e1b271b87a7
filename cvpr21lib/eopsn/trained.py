"""Trained weights on COCO, ours or official ones: which network they are, and whether it is the one meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from cvpr21lib import checkpoints
from cvpr21lib.eopsn import classes, weights
from cvpr21lib.eopsn.config import Config, VoidMode
from cvpr21lib.eopsn.model import PanopticFPN, Widths, panoptic_fpn
from cvpr21lib.errors import InputError

Method = Literal["background", "ignorance", "suppression", "train", "eopsn"]
"""A treatment of void, or EOPSN, which starts from void suppression."""

CLUSTERS = 128
"""M, the most classes that EOPSN discovers, unless said otherwise."""


def config(method: Method, k: int, clusters: int = CLUSTERS, base: Config | None = None) -> Config:
    """`base`, the official network unless given, with the classes of K = 5, 10 or 20 % unknown things."""
    there = classes.of_coco(k)
    mode: VoidMode = "suppression" if method == "eopsn" else method
    return replace(
        base or Config(),
        void_mode=mode,
        known=len(there.known),
        stuff=len(there.stuff),
        unknown=clusters if method == "eopsn" else 0,
    )


def load(path: str | Path, config: Config, k: int, widths: Widths | None = None) -> PanopticFPN:
    """A network for `config`, which is that of K, from what a run left (.safetensors), or an official file.

    Raises:
        InputError: no such file, or weights of another K, another treatment of void, or other widths.
    """
    path = Path(path)
    if path.suffix == ".pkl":
        return weights.load_official(path, config, widths)
    state, ours = _narrowed(checkpoints.load(path), config), "box_head.cls_score.weight"
    official = weights.official_name(ours)
    scores = state.get(ours, state.get(official))
    if scores is None:
        raise InputError(f"{path} holds no weights of a panoptic network: {ours} and {official} are missing.")
    if len(scores) != config.logits:
        raise InputError(
            f"the weights in {path} have {len(scores)} logits per box, as {_whose(len(scores))}; expected "
            f"{config.logits}, for {_name(config)} with K = {k}: take weights of the same K and method."
        )
    net = panoptic_fpn(config, widths)
    if official in state:
        state = weights.from_official(state, net, source=str(path))
    checkpoints.fit(net, state, source=str(path))
    return net.eval()


def _narrowed(state: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Without logits at the end that are zero: the official converter adds them to void suppression."""
    for ours in ("class_weight", "box_head.cls_score.bias", "box_head.cls_score.weight"):
        for name in (ours, weights.official_name(ours)):
            if name in state and not config.unknown and not state[name][config.logits :].any():
                state[name] = state[name][: config.logits]
    return state


def _whose(rows: int) -> str:
    """Networks that have so many logits."""
    methods: tuple[Method, ...] = ("suppression", "train", "eopsn")
    found = [
        f"{_name(config(method, k))} with K = {k}"
        for method in methods
        for k in classes.UNKNOWN_THINGS
        if config(method, k).logits == rows
    ]
    return " or ".join(found) or "in no network of the paper"


def _name(config: Config) -> str:
    if config.unknown:
        return f"EOPSN ({config.unknown} clusters)"
    return f"void {config.void_mode}"
