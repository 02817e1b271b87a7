"""Whole pickled modules give up their numbers without being run, and hostile ones are refused."""

from __future__ import annotations

import os
import pickle
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from cvpr21lib import checkpoints
from cvpr21lib.errors import InputError
from cvpr21lib.prosgan import weights, whole_modules
from cvpr21lib.prosgan.victims import Victim

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # on writing the old format


@contextmanager
def official_classes(*classes: type) -> Iterator[None]:
    """Puts the classes where the official files look for them, `model.backbone`, while one is written."""
    modules = {name: types.ModuleType(name) for name in ("model", "model.backbone")}
    for each in classes:
        each.__module__, each.__qualname__ = "model.backbone", each.__name__
        setattr(modules["model.backbone"], each.__name__, each)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def official(victim: Victim, path: Path, legacy: bool = False, parallel: bool = False) -> None:
    """Write the official layout of a victim's network, whole."""
    net = victim.net

    class VGG(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = net.features
            self.cl1 = net.classifier[0]
            self.classifier = net.classifier
            self.mean, self.std = torch.rand(2, 1, 3, 1, 1)

    class VGGFc(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = net.features
            self.classifier = nn.Sequential()
            for number, layer in enumerate(net.classifier[:-1]):
                self.classifier.add_module(f"classifier{number}", layer)
            self.feature_layers = nn.Sequential(self.features, self.classifier)
            self.hash_layer = net.classifier[-1]
            self.iter_num = int(victim.continuation.iterations)
            self.scale = float(victim.continuation.scale)

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, layer in list(net.named_children())[:-1]:
                setattr(self, name, layer)
            self.feature_layers = nn.Sequential(*list(net.children())[:-1])
            self.hash_layer = net.fc

    class AlexNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.classifier = net.features, net.classifier

    kinds = (VGG, VGGFc, ResNet, AlexNet)
    if victim.continuation is not None:
        kind: type[nn.Module] = VGGFc
    elif hasattr(net, "fc"):
        kind = ResNet
    else:
        kind = VGG if len(net.features) > 15 else AlexNet
    with official_classes(*kinds):
        module = nn.DataParallel(kind()) if parallel else kind()
        torch.save(module, path, _use_new_zipfile_serialization=not legacy)


def small(backbone: str = "VGG11", method: str = "DPSH") -> Victim:
    torch.manual_seed(0)
    victim = Victim(backbone, 12, method, width_div=32)
    for name, value in victim.named_buffers():
        if "running" in name:
            nn.init.uniform_(value, 0.5, 1)
    return victim.eval()


def assert_same(one: nn.Module, other: nn.Module) -> None:
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(one(image, 0.3), other(image, 0.3))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("backbone", "method"),
    [
        ("AlexNet", "DPSH"),
        ("VGG11", "DPSH"),
        ("VGG16", "DPH"),
        ("VGG19", "HashNet"),
        ("ResNet18", "DPSH"),
        ("ResNet50", "DPH"),
    ],
)
def test_official_files_are_converted_and_load(tmp_path, backbone, method, legacy):
    victim = small(backbone, method)
    if method == "HashNet":
        victim.continuation.iterations.fill_(400)
        victim.continuation.scale.fill_(3**0.5)
    source, target = tmp_path / "whole.pth", tmp_path / "state.safetensors"
    official(victim, source, legacy)
    loaded = weights.load_victim(whole_modules.convert(source, target))
    assert not loaded.training
    assert_same(loaded, victim)
    if method == "HashNet":
        assert loaded.continuation.iterations == 400


def test_the_official_state_is_all_there_with_its_duplicates(tmp_path):
    official(small(), tmp_path / "whole.pth")
    module = whole_modules.read(tmp_path / "whole.pth")
    assert module.kind == "model.backbone.VGG"
    assert len(module.state) == 24
    assert torch.equal(module.state["cl1.weight"], module.state["classifier.0.weight"])
    assert not {"mean", "std"} & module.state.keys()


def test_class_and_plain_attributes_go_into_the_metadata(tmp_path):
    official(small("VGG11", "HashNet"), tmp_path / "whole.pth")
    target = whole_modules.convert(tmp_path / "whole.pth", tmp_path / "state.safetensors")
    with safe_open(target, "pt") as file:
        metadata = file.metadata()
    assert metadata["class"] == "model.backbone.VGGFc"
    assert (metadata["iter_num"], metadata["scale"]) == ("0", "1.0")


def test_cuda_files_and_parallel_modules_need_no_gpu(tmp_path, monkeypatch):
    victim, path = small(), tmp_path / "whole.pth"
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    official(victim, path, legacy=True, parallel=True)
    monkeypatch.undo()
    assert b"cuda:0" in path.read_bytes()
    assert_same(weights.load_victim(whole_modules.convert(path, tmp_path / "state.safetensors")), victim)


def test_buffers_that_are_not_persistent_stay_out(tmp_path):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.ones(1))
            self.register_buffer("passing", torch.ones(1), persistent=False)
            self.register_parameter("absent", None)

    with official_classes(Odd):
        torch.save(Odd(), tmp_path / "odd.pth")
        expected = Odd().state_dict().keys()
    assert whole_modules.read(tmp_path / "odd.pth").state.keys() == expected


def test_a_whole_module_is_not_opened_without_the_converter(tmp_path):
    official(small(), tmp_path / "whole.pth")
    with pytest.raises(InputError, match=r"whole pickled module, .*whole_modules\.convert\(path, target\)"):
        weights.load_victim(tmp_path / "whole.pth")


# --- hostile files ----------------------------------------------------------------------------------------


class Hostile:
    """Asks for a call when it is unpickled."""

    def __init__(self, call: Callable, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple:
        return self.call, self.arguments


def hostile_module(path: Path, thing: object, legacy: bool = False) -> None:
    class VGG(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Linear(2, 2)
            self.thing = thing

    with official_classes(VGG):
        torch.save(VGG(), path, _use_new_zipfile_serialization=not legacy)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_call_of_the_shell_is_refused_named_and_not_run(tmp_path, legacy):
    source, target, marker = tmp_path / "evil.pth", tmp_path / "state.safetensors", tmp_path / "ran"
    hostile = Hostile(os.system, f"touch {marker}")
    pickle.loads(pickle.dumps(hostile))
    assert marker.exists(), "an ordinary unpickler runs it"
    marker.unlink()
    hostile_module(source, hostile, legacy)
    with pytest.raises(
        InputError, match=r"evil.pth was not converted: it calls \w+\.system, .* nothing was run"
    ):
        whole_modules.convert(source, target)
    assert not marker.exists()
    assert not target.exists()


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (eval, ("open('ran', 'w')",)),
        (exec, ("open('ran', 'w')",)),
        (getattr, ("", "format")),
        (open, ("ran", "w")),
        (torch.load, ("whole.pth",)),
        (types.SimpleNamespace, ()),
        (nn.Linear, (2, 2)),
    ],
)
def test_no_other_call_is_made_either(tmp_path, monkeypatch, call, arguments):
    monkeypatch.chdir(tmp_path)
    hostile_module(tmp_path / "evil.pth", Hostile(call, *arguments))
    with pytest.raises(InputError, match="was not converted: it calls"):
        whole_modules.read(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(S'touch ran'\ntR.",  # REDUCE
        b"(S'touch ran'\niposix\nsystem\n.",  # INST
        b"(cposix\nsystem\nS'touch ran'\no.",  # OBJ
        b"cposix\nsystem\n(S'touch ran'\nt\x81.",  # NEWOBJ
        b"ccollections\nOrderedDict\nN(dS'__code__'\nNs\x86b.",  # BUILD on one of the allowed functions
        b"cbuiltins\nset\nN(dS'_run'\nNs\x86b.",
    ],
)
def test_handwritten_pickles_run_nothing(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    head = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {}]
    path.write_bytes(
        b"".join(pickle.dumps(each, 2) for each in head) + b"\x80\x02" + program + pickle.dumps([], 2)
    )
    with pytest.raises(InputError, match=r"evil\.pth"):
        whole_modules.read(path)
    assert not (tmp_path / "ran").exists()


def test_importing_is_not_done_either(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n\nclass Net: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    class Net(nn.Module):
        pass

    with official_classes(Net):
        torch.save(Net(), tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    raw = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "net.pth").write_bytes(raw.replace(b"model.backbone\n", b"trap\n"))
    assert whole_modules.read(tmp_path / "net.pth").kind == "trap.Net"
    assert "trap" not in sys.modules


def test_a_module_that_holds_itself_is_refused(tmp_path):
    class Loop(nn.Module):
        pass

    loop = Loop()
    loop.__dict__["_modules"] = {"inner": loop}
    with official_classes(Loop):
        torch.save(loop, tmp_path / "loop.pth")
    with pytest.raises(InputError, match=r"was not converted: its module inner\. holds itself"):
        whole_modules.read(tmp_path / "loop.pth")


def test_tables_that_are_none_are_damage(tmp_path):
    class Broken(nn.Module):
        pass

    for name, value in {"_parameters": 5, "_modules": [1], "_non_persistent_buffers_set": 5}.items():
        broken = Broken()
        vars(broken).update({"_buffers": {"here": torch.ones(1)}, name: value})
        with official_classes(Broken):
            torch.save(broken, tmp_path / "broken.pth")
        with pytest.raises(InputError, match=r"broken\.pth is damaged"):
            whole_modules.read(tmp_path / "broken.pth")


# --- files of other kinds ---------------------------------------------------------------------------------


def test_other_files_are_told_apart(tmp_path):
    def refuse(name: str, complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            whole_modules.read(tmp_path / name)

    refuse("missing.pth", "no such file")
    torch.save(small().state_dict(), tmp_path / "state.pth")
    refuse("state.pth", r"not a whole module \(a state dict needs no conversion\)")
    (tmp_path / "page.pth").write_text("<!doctype html>")
    refuse("page.pth", "no file of torch.save")
    with zipfile.ZipFile(tmp_path / "script.pth", "w") as archive:
        archive.writestr("script/constants.pkl", b"")
    refuse("script.pth", "TorchScript program")
    with tarfile.open(tmp_path / "tar.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("\udc80storages"))  # the first byte is that of a pickle
    refuse("tar.pth", "no file of torch.save")
    official(small(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    refuse("half.pth", "half.pth is damaged")
    official(small(), tmp_path / "legacy.pth", legacy=True)
    whole = (tmp_path / "legacy.pth").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "half.pth").write_bytes(whole[: int(len(whole) * share)])
        refuse("half.pth", "half.pth is damaged")


def test_the_target_has_to_be_safetensors(tmp_path):
    official(small(), tmp_path / "whole.pth")
    with pytest.raises(InputError, match=r"a name that ends in \.safetensors"):
        whole_modules.convert(tmp_path / "whole.pth", tmp_path / "state.pth")
    assert not (tmp_path / "state.pth").exists()


def test_converted_files_are_plain_weights(tmp_path):
    official(small(), tmp_path / "whole.pth")
    target = whole_modules.convert(tmp_path / "whole.pth", tmp_path / "state.safetensors")
    assert len(checkpoints.load(target)) == 24
