from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from cvpr21lib.eps import EPS, ResNet38, load_backbone
from cvpr21lib.eps.mxnet_params import key_map, read
from cvpr21lib.errors import InputError

torch.set_num_threads(1)

LAYOUTS = ("V2", "V1", "legacy")


def array_bytes(values: np.ndarray, layout: str = "V2", storage: int = 0, code: int = 0) -> bytes:
    size = "I" if layout == "legacy" else "q"
    head = {"V2": struct.pack("<Ii", 0xF993FAC9, storage), "V1": struct.pack("<I", 0xF993FAC8), "legacy": b""}
    shape = struct.pack(f"<I{values.ndim}{size}", values.ndim, *values.shape)
    return head[layout] + shape + struct.pack("<iii", 1, 0, code) + values.astype("<f4").tobytes()


def file_bytes(arrays: dict[str, np.ndarray], layout: str = "V2", **odd: int) -> bytes:
    names = [struct.pack("<Q", len(name)) + name.encode() for name in arrays]
    return b"".join(
        [
            struct.pack("<QQQ", 0x112, 0, len(arrays)),
            *(array_bytes(values, layout, **odd) for values in arrays.values()),
            struct.pack("<Q", len(names)),
            *names,
        ]
    )


SMALL = {"arg:a": np.arange(6).reshape(2, 3), "aux:b": np.arange(4.0) / 3}


def mxnet_name(key: str) -> str:
    """The other way round than `key_map`."""
    module, part = key.rsplit(".", 1)
    kind = "aux" if part.startswith("running") else "arg"
    norm = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}[
        part
    ]
    if module == "conv1a":
        return "arg:conv1a_weight"
    if module == "bn7":
        return f"{kind}:bn7_{norm}"
    block, layer = module.split(".")
    which, branch = layer.split("_")
    stage, _, number = block.removeprefix("b").partition("_")
    unit = stage + (f"b{number}" if number else "a")
    return f"arg:res{unit}_{branch}_weight" if which == "conv" else f"{kind}:bn{unit}_{branch}_{norm}"


@pytest.fixture
def written(tmp_path):
    def write(content: bytes) -> Path:
        path = tmp_path / "some.params"
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def backbone_arrays() -> dict[str, np.ndarray]:
    torch.manual_seed(1)
    state = ResNet38(64).state_dict()
    return {
        mxnet_name(key): torch.rand_like(value).numpy()
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_are_read(written, layout):
    arrays = read(written(file_bytes(SMALL, layout)))
    assert list(arrays) == list(SMALL)
    for name, values in SMALL.items():
        np.testing.assert_array_equal(arrays[name], values.astype(np.float32))
        assert arrays[name].flags.writeable


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_backbone_takes_its_weights_and_drops_the_last_layer(written, backbone_arrays, layout):
    last = {"arg:linear1000_weight": np.zeros((1000, 64)), "arg:linear1000_bias": np.zeros(1000)}
    net = EPS(ResNet38(64), 3)
    fc8 = net.fc8.weight.clone()
    load_backbone(net.backbone, written(file_bytes(backbone_arrays | last, layout)))
    for key, value in net.backbone.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(value, backbone_arrays[mxnet_name(key)])
    assert torch.equal(net.fc8.weight, fc8)
    frozen = [p for name, p in net.backbone.named_parameters() if "bn" in name or name.startswith("conv1a")]
    assert not any(p.requires_grad for p in frozen)


def test_a_pytorch_file_of_the_backbone_serves_too(tmp_path, backbone_arrays):
    state = {key: torch.from_numpy(backbone_arrays[name]) for name, key in key_map(backbone_arrays).items()}
    torch.save(state | {"fc8.weight": torch.zeros(20, 64, 1, 1)}, tmp_path / "converted.pth")
    backbone = ResNet38(64)
    load_backbone(backbone, tmp_path / "converted.pth")
    assert all(torch.equal(backbone.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_cut_anywhere_is_named_as_damaged(written, layout):
    content = file_bytes(SMALL, layout)
    for length in range(16, len(content)):
        with pytest.raises(InputError, match=r"some\.params is damaged or cut short"):
            read(written(content[:length]))


@pytest.mark.parametrize("content", [b"", b"\x12\x01", b"not weights at all, not at all"])
def test_other_files_are_no_weights(written, content):
    with pytest.raises(InputError, match="not a file of MXNet arrays"):
        read(written(content))


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>Virus scan warning", b"\n <html><body>Sign in</body>"]
)
def test_a_web_page_is_named_as_such(written, page):
    with pytest.raises(InputError, match="web page"):
        read(written(page))
    with pytest.raises(InputError, match="web page"):
        load_backbone(ResNet38(64), written(page))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (file_bytes(SMALL) + b"\0", "1 bytes follow its end"),
        (file_bytes(SMALL, storage=1), "array 0 is sparse"),
        (file_bytes(SMALL, code=9), r"the shape \(2, 3\) and the type 9"),
        (struct.pack("<QQQI", 0x112, 0, 1, 40), "array 0 has 40 dimensions"),
        (struct.pack("<QQQI", 0x112, 0, 1, 0), "array 0 has 0 dimensions"),
        (struct.pack("<QQQIiIqiii", 0x112, 0, 1, 0xF993FAC9, 0, 1, 2**60, 1, 0, 0), "bytes where 0 are left"),
        (struct.pack("<QQQIiIqiii", 0x112, 0, 1, 0xF993FAC9, 0, 1, -4, 1, 0, 0), r"the shape \(-4,\)"),
        (struct.pack("<QQQ", 0x112, 0, 2**60), "array 0 needs 4 bytes where 0 are left"),
        (struct.pack("<QQQQQ", 0x112, 0, 0, 1, 1) + b"a", "0 arrays, but 1 different names"),
        (struct.pack("<QQQQQ", 0x112, 0, 0, 1, 1) + b"\xff", "a name is not text"),
    ],
)
def test_what_no_network_has_is_refused(written, content, complaint):
    with pytest.raises(InputError, match=complaint):
        read(written(content))


def test_missing_files_and_folders(tmp_path):
    for look in (read, lambda path: load_backbone(ResNet38(64), path)):
        with pytest.raises(InputError, match="no such file"):
            look(tmp_path / "none.params")
    with pytest.raises(InputError, match="folder"):
        load_backbone(ResNet38(64), tmp_path)


def test_weights_of_another_network_are_named(written, backbone_arrays):
    with pytest.raises(InputError, match=r"1 of the arrays are not ResNet38's \(arg:fc1_weight\)"):
        key_map([*backbone_arrays, "arg:fc1_weight"])
    with pytest.raises(InputError, match=r"conv1a\.weight is 1×3×3×3 there, 2×3×3×3 here"):
        load_backbone(ResNet38(32), written(file_bytes(backbone_arrays)))
    del backbone_arrays["arg:res5b2_branch2a_weight"]
    with pytest.raises(InputError, match=r"1 missing \(b5_2.conv_branch2a.weight\)"):
        load_backbone(ResNet38(64), written(file_bytes(backbone_arrays)))
