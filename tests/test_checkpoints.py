from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cvpr21lib import checkpoints
from cvpr21lib.errors import InputError

torch.set_num_threads(1)


def network(seed: int = 0, width: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 1, 1))


def assert_same(state: dict, other: dict) -> None:
    assert state.keys() == other.keys()
    assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_load(tmp_path, legacy):
    state = network().state_dict()
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    assert_same(checkpoints.load(tmp_path / "net.pth"), state)


def test_safetensors_load_whatever_their_name(tmp_path):
    state = network().state_dict()
    for name in ("net.safetensors", "net.pth"):
        save_file(state, tmp_path / name)
        assert_same(checkpoints.load(tmp_path / name), state)


@pytest.mark.parametrize("wrap", ["params", "params_ema", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrapped_and_prefixed_states_are_opened(tmp_path, wrap, prefix):
    state = network().state_dict()
    torch.save({wrap: {prefix + key: value for key, value in state.items()}, "step": 3}, tmp_path / "net.pth")
    assert_same(checkpoints.load(tmp_path / "net.pth"), state)


def test_averaged_weights_are_preferred(tmp_path):
    averaged = network(1).state_dict()
    torch.save({"params": network(0).state_dict(), "params_ema": averaged}, tmp_path / "net.pth")
    assert_same(checkpoints.load(tmp_path / "net.pth"), averaged)


def test_a_prefix_on_some_names_only_is_part_of_the_names(tmp_path):
    state = {"module.weight": torch.zeros(1), "bias": torch.zeros(1)}
    torch.save(state, tmp_path / "net.pth")
    assert_same(checkpoints.load(tmp_path / "net.pth"), state)


def refuse(path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        checkpoints.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_folder_and_empty_file_are_named(tmp_path):
    refuse(tmp_path / "net.pth", "no such file")
    refuse(tmp_path, "is a folder")
    (tmp_path / "empty.pth").touch()
    refuse(tmp_path / "empty.pth", "empty")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
def test_half_written_files_are_named(tmp_path, kind, part):
    path = tmp_path / "net.pth"
    if kind == "safetensors":
        save_file(network(width=64).state_dict(), path)
    else:
        torch.save(network(width=64).state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    refuse(path, "damaged or half-written")


def test_pages_and_other_files_are_not_weights(tmp_path):
    path = tmp_path / "net.pth"
    path.write_text("\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>")
    refuse(path, "is a web page")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    refuse(path, "Git LFS pointer")
    path.write_bytes(b"\xff\xd8\xff\xe0 a photograph")
    refuse(path, "neither a PyTorch nor a safetensors file")


class Trap:
    """An object that would write a file when a careless reader opens it."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_files_that_carry_code_are_refused_and_not_run(tmp_path, how):
    path, proof = tmp_path / "net.pth", tmp_path / "was_run"
    state = {"weight": torch.zeros(1), "trap": Trap(proof)}
    if how == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps({"trap": Trap(proof)}, protocol=2))
    proof.unlink(missing_ok=True)
    refuse(path, "could run code|damaged")
    assert not proof.exists()


def test_whole_models_are_refused(tmp_path):
    torch.save(network(), tmp_path / "net.pth")
    refuse(tmp_path / "net.pth", r"could run code.*model\.state_dict\(\)")


def test_training_states_are_not_weights(tmp_path):
    optimiser = torch.optim.Adam(network().parameters())
    torch.save({"epoch": 3, "iter": 20, "optimizers": [optimiser.state_dict()]}, tmp_path / "20.state")
    refuse(tmp_path / "20.state", "'epoch' is a int.*epoch, iter, optimizers.*training state")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    refuse(tmp_path / "list.pth", "holds a list")
    torch.save({}, tmp_path / "nothing.pth")
    refuse(tmp_path / "nothing.pth", "empty state dict")


def test_fit_loads_what_fits():
    state, module = network(0).state_dict(), network(1)
    checkpoints.fit(module, state | {"old.alias.weight": torch.zeros(1)}, source="net.pth", drop=("old.",))
    assert_same(module.state_dict(), state)


def test_fit_accepts_half_precision_weights():
    module = network(1)
    checkpoints.fit(module, {k: v.half() for k, v in network(0).state_dict().items()}, source="net.pth")
    assert module[0].weight.dtype == torch.float32
    torch.testing.assert_close(module[0].weight, network(0)[0].weight.half().float())


def test_everything_that_does_not_fit_is_in_one_error():
    state = network(width=5).state_dict()
    del state["2.bias"]
    state["head.weight"] = torch.zeros(2)
    module = network()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(InputError) as caught:
        checkpoints.fit(module, state, source="net.pth")
    message = str(caught.value)
    assert "net.pth do not fit Sequential" in message
    assert "1 missing (2.bias)" in message
    assert "1 unexpected (head.weight)" in message
    assert "7 of another shape (0.weight is 5×3×3×3 there, 3×3×3×3 here" in message
    assert "and 3 more" in message
    assert_same(module.state_dict(), before)  # refused weights change nothing


def test_fit_guesses_what_the_weights_are():
    def guess(state: dict, message: str) -> None:
        with pytest.raises(InputError, match=message):
            checkpoints.fit(network(), state, source="net.pth")

    state = network().state_dict()
    guess({"generator." + key: value for key, value in state.items()}, "begin with 'generator.'")
    guess({"other": torch.zeros(1)}, "belongs to another network")
    guess({key: value for key, value in state.items() if key.startswith("0")}, "part of these weights")
    guess(state | {"3.weight": torch.zeros(1)}, "larger network")
    guess(network(width=4).state_dict(), "same kind of network with other settings")
