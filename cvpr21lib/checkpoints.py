"""Reading weights: safely, in any of the usual layouts, with one readable error when they do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cvpr21lib.errors import InputError


def load(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a `torch.save` or safetensors file, onto the CPU. No code in it is ever run.

    A wrapping dictionary ("params_ema", "params", "state_dict", "model") is opened, and the prefixes
    "module." (DataParallel) and "_orig_mod." (torch.compile) are taken off the names.
    Raises `InputError` for a file that is missing, empty, half-written, a web page, or not a state dict.
    """
    path = Path(path)
    state = _unwrap(read(path))
    _check_tensors(state, path)
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def read(path: str | Path) -> Any:
    """What a `torch.save` or safetensors file holds, on the CPU, as it stands there. No code in it is run.

    Raises `InputError` for a file that is missing, empty, half-written, a web page, or not weights.
    """
    path = Path(path)
    head = _head(path)
    return _read_safetensors(path) if head[8:9] == b"{" else _read_torch(path, head)


def fit(module: nn.Module, state: Mapping[str, Tensor], *, source: str, drop: Iterable[str] = ()) -> None:
    """Load `state` into `module`; every name and shape must agree, else one `InputError` lists what does not.

    `source` names the weights in the error. Names in `state` that start with one of `drop` are left out.
    """
    drop = tuple(drop)
    state = {name: value for name, value in state.items() if not (drop and name.startswith(drop))}
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    misshapen = [
        f"{name} is {_shape(state[name])} there, {_shape(own[name])} here"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    complaints = [
        _list("missing", missing),
        _list("unexpected", unexpected),
        _list("of another shape", misshapen),
    ]
    if any(complaints):
        raise InputError(
            f"the weights in {source} do not fit {type(module).__name__}: "
            + "; ".join(complaint for complaint in complaints if complaint)
            + f". {_guess(own, state, missing, unexpected)}"
        )
    module.load_state_dict(state)


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file of weights inside it.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise InputError(f"there are no weights at {path}: no such file.") from None
    if not head:
        raise InputError(f"{path} is empty (0 bytes): fetch or save it again.")
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(
            f"{path} is a web page, not weights: the host answered the download with a page (to confirm "
            "something, or an error). Open the link in a browser and save the file itself."
        )
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a Git LFS pointer, not weights: run `git lfs pull` where it came from.")
    return head


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path, head: bytes) -> Any:
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise InputError(
            f"{path} is neither a PyTorch nor a safetensors file (it starts with {head[:8]!r}): "
            "give a .pth, .pt, .ckpt or .safetensors file of weights."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" not in str(error):
            raise _damaged(path, error) from error
        raise InputError(
            f"{path} holds Python objects besides weights, which could run code on loading, so it was not "
            "opened. Where you trust its origin, save it anew with torch.save(model.state_dict(), ...)."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return InputError(
        f"{path} is damaged or half-written ({path.stat().st_size} bytes; {reason}): fetch or save it again."
    )


def _unwrap(content: Any) -> Any:
    for key in ("params_ema", "params", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key]
    return content


def _check_tensors(state: Any, path: Path) -> None:
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds a {type(state).__name__}, not a state dict (parameters by name).")
    if not state:
        raise InputError(f"{path} holds an empty state dict: nothing was saved in it.")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            names = ", ".join(map(str, list(state)[:5]))
            raise InputError(
                f"{path} is not a state dict: {name!r} is a {type(value).__name__}, not a tensor. It holds "
                f"{names}{', ...' if len(state) > 5 else ''}; a training state is not the network's weights."
            )


def _list(what: str, names: list[str], most: int = 4) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {what} ({', '.join(names[:most])}{more})"


def _guess(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], missing: list[str], extra: list[str]
) -> str:
    if len(missing) == len(own):
        for name in extra:
            for wanted in own:
                if name.endswith("." + wanted):
                    return f"Its names begin with {name.removesuffix(wanted)!r}: take the prefix off first."
        return "No name agrees: it belongs to another network."
    if missing and not extra:
        return "It looks like part of these weights, or like those of a smaller network."
    if extra and not missing:
        return "It looks like a larger network, or one with parts that this one does not have."
    return "It looks like the same kind of network with other settings."


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"
