"""Official hash networks are whole pickled modules. This takes the numbers out of one, and runs nothing.

`torch.save(model, ...)` stores a program, not only numbers: a pickle names classes and functions, and the
reader imports and calls them. Whoever made the file thus decides what runs on the machine that opens it, so
`weights_only=True` refuses such files, and so does the rest of this library. `convert` is the separate step
that a user asks for by name. Its unpickler imports nothing that the file names:

- a class becomes an inert stand-in of the same name, which keeps its attributes and has no behaviour;
- tensors, ordered dictionaries and sets are rebuilt by functions of ours;
- a call of anything else (as `os.system` in an attack) is refused, and named.

What remains are tensors under their state-dict names, which go to a safetensors file: that has no code in it.
"""

from __future__ import annotations

import pickle
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from cvpr21lib import atomic
from cvpr21lib.errors import InputError


class WholeModule(NamedTuple):
    """What a pickled module holds besides its program."""

    kind: str
    """Its class, as the file names it: "model.backbone.VGG"."""
    state: dict[str, Tensor]
    """Parameters and buffers by their state-dict names, on the CPU."""
    attributes: dict[str, int | float | str | bool]
    """The module's own plain numbers and words, as HashNet's `iter_num` and `scale`."""


def convert(source: str | Path, target: str | Path) -> Path:
    """Write the state dict of the whole-module pickle `source` to the safetensors file `target`.

    The names are those of the official module; `weights.load_victim` reads the file. The class and the plain
    attributes go into its metadata. Raises `InputError` as `read` does; then nothing is written.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise InputError(
            f"the converted weights cannot go to {target}: give a name that ends in .safetensors."
        )
    module = read(source)
    metadata = {name: repr(value) for name, value in module.attributes.items()} | {"class": module.kind}
    # clones, since official modules list many tensors twice, and safetensors holds no two views of one
    state = {name: value.detach().clone().contiguous() for name, value in module.state.items()}
    with atomic.write(target) as temporary:
        save_file(state, temporary, metadata)
    return target


def read(path: str | Path) -> WholeModule:
    """The tensors and plain attributes of a module that `torch.save(model, path)` wrote, in either format.

    Raises `InputError` for a file that is missing, damaged, no PyTorch pickle, not of a module, or that calls
    what a module's pickle has no need to call.
    """
    path = Path(path)
    _require_pickle(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch cannot find the source of classes that do not exist
            # weights_only has to be off for torch to take our unpickler in place of its own
            found = torch.load(path, map_location="cpu", pickle_module=_INERT, weights_only=False)
        if not isinstance(found, StandIn) or "_modules" not in _attributes(found):
            raise InputError(
                f"it holds a {type(found).__name__}, not a whole module (a state dict needs no conversion)."
            )
        state = dict(_tensors(found))
    except InputError as error:
        raise InputError(f"{path} was not converted: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # whatever a hostile or damaged pickle brings about
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path} is damaged, or no pickle of a module ({reason}): fetch it again."
        ) from error
    plain = {k: v for k, v in _attributes(found).items() if type(v) in (int, float, str, bool)}
    return WholeModule(_kind(found), state, plain)


class _NotCallable(type):
    """Classes that cannot be called: only a pickle's own NEWOBJ makes objects of them, without arguments."""

    def __call__(cls, *_: object, **__: object) -> Any:
        raise InputError(
            f"it calls {cls.__qualname__}, which weights have no need of and which could run any code; "
            "nothing was run. Do not open this file by other means."
        )


class StandIn(metaclass=_NotCallable):
    """Takes the place of an object of a class named in the file: attributes, and nothing else."""

    def __new__(cls, *_: object, **__: object) -> StandIn:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise InputError(f"the state of a {_kind(self)} is a {type(state).__name__}, not a dictionary.")
        object.__setattr__(self, "__dict__", {str(name): value for name, value in state.items()})


class _Function:
    """One of the few calls that are allowed; a pickle cannot change it."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)

    def __setstate__(self, _: object) -> None:
        raise InputError("it tries to change a function.")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Never imports. (torch has looked for its storage types, which are inert, before.)"""
        allowed = _ALLOWED.get((module, name))
        if allowed is not None:
            return _Function(allowed)
        return _NotCallable(name, (StandIn,), {"__qualname__": f"{module}.{name}", "__module__": __name__})


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_INERT = SimpleNamespace(__name__="inert", Unpickler=_Unpickler, load=_load)
"""Stands in for the module `pickle`."""


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    return torch._utils._rebuild_tensor(storage, offset, tuple(size), tuple(stride))


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *_: "cpu",
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
}


def _require_pickle(path: Path) -> None:
    """Only the two formats of `torch.save`; torch would open TorchScript and tar files by other means."""
    if not path.is_file():
        raise InputError(f"there are no weights at {path}: no such file.")
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name.rsplit("/", 1)[-1] for name in archive.namelist()]
        except zipfile.BadZipFile as error:
            raise InputError(f"{path} is damaged or half-written ({error}): fetch it again.") from error
        if "constants.pkl" in names:
            raise InputError(f"{path} is a TorchScript program, not a pickled module.")
    elif not head.startswith(b"\x80") or tarfile.is_tarfile(path):
        raise InputError(f"{path} is no file of torch.save (it starts with {head!r}).")


def _tensors(module: StandIn, prefix: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """As `nn.Module.state_dict`: parameters, persistent buffers, then those of each child."""
    if id(module) in above:
        raise InputError(f"its module {prefix or _kind(module)} holds itself.")
    own = _attributes(module)
    passing = own.get("_non_persistent_buffers_set", ())
    for table in ("_parameters", "_buffers"):
        for name, value in own.get(table, {}).items():
            if isinstance(value, Tensor) and not (table == "_buffers" and name in passing):
                yield f"{prefix}{name}", value
    for name, child in own.get("_modules", {}).items():
        if isinstance(child, StandIn):
            yield from _tensors(child, f"{prefix}{name}.", (*above, id(module)))


def _attributes(module: StandIn) -> dict[str, Any]:
    return object.__getattribute__(module, "__dict__")


def _kind(module: StandIn) -> str:
    return type(module).__qualname__
