"""Weights in detectron2's layout: official checkpoints, the ImageNet start, and hostile files."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cvpr21lib import checkpoints
from cvpr21lib.eopsn import model, numpy_pickle, weights
from cvpr21lib.eopsn.config import Config
from cvpr21lib.eopsn.resnet import ResNet
from cvpr21lib.errors import InputError
from tests.eopsn import narrow

NORM = {"weight", "bias", "running_mean", "running_var"}
BOTTOM_UP = "backbone.bottom_up."


def official_shapes(logits: int, class_weight: bool) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the official checkpoints, as the paper's sheet of facts lists them."""
    shapes: dict[str, tuple[int, ...]] = {"pixel_mean": (3, 1, 1), "pixel_std": (3, 1, 1)}
    shapes |= {f"proposal_generator.anchor_generator.cell_anchors.{i}": (3, 4) for i in range(5)}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = (shape[0],)

    def normalised(name: str, *shape: int) -> None:
        layer(name, *shape, bias=False)
        shapes.update({f"{name}.norm.{part}": (shape[0],) for part in NORM})

    normalised(f"{BOTTOM_UP}stem.conv1", 64, 3, 7, 7)
    inputs = 64
    for stage, depth in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        outputs, width = 64 * 2**stage, 16 * 2**stage
        for i in range(depth):
            block = f"{BOTTOM_UP}res{stage}.{i}"
            if i == 0:
                normalised(f"{block}.shortcut", outputs, inputs, 1, 1)
            normalised(f"{block}.conv1", width, inputs if i == 0 else outputs, 1, 1)
            normalised(f"{block}.conv2", width, width, 3, 3)
            normalised(f"{block}.conv3", outputs, width, 1, 1)
        layer(f"backbone.fpn_lateral{stage}", 256, outputs, 1, 1)
        layer(f"backbone.fpn_output{stage}", 256, 256, 3, 3)
        inputs = outputs
    layer("proposal_generator.rpn_head.conv", 256, 256, 3, 3)
    layer("proposal_generator.rpn_head.objectness_logits", 3, 256, 1, 1)
    layer("proposal_generator.rpn_head.anchor_deltas", 12, 256, 1, 1)
    layer("roi_heads.box_head.fc1", 1024, 256 * 49)
    layer("roi_heads.box_head.fc2", 1024, 1024)
    layer("roi_heads.box_predictor.cls_score", logits, 1024)
    layer("roi_heads.box_predictor.bbox_pred", 4, 1024)
    if class_weight:
        shapes["roi_heads.box_predictor.cls_weight.weight"] = (logits, 1)
    for i in range(4):
        layer(f"roi_heads.mask_head.mask_fcn{i + 1}", 256, 256, 3, 3)
    layer("roi_heads.mask_head.deconv", 256, 256, 2, 2)
    layer("roi_heads.mask_head.predictor", 1, 256, 1, 1)
    for level, steps in (("p2", 1), ("p3", 1), ("p4", 2), ("p5", 3)):
        for i in range(steps):
            name = f"sem_seg_head.{level}.{2 * i}"
            shapes[f"{name}.weight"] = (128, 128 if i else 256, 3, 3)
            shapes |= {f"{name}.norm.weight": (128,), f"{name}.norm.bias": (128,)}
    layer("sem_seg_head.predictor", 55, 128, 1, 1)
    return shapes


@pytest.mark.parametrize(
    ("config", "logits", "keys", "parameters"),
    [(model.eopsn(), 193, 338, 45_744_909), (Config(void_mode="train"), 66, 337, 45_614_541)],
    ids=["EOPSN", "void-train"],
)
def test_official_keys_shapes_and_size(config, logits, keys, parameters):
    expected = official_shapes(logits, class_weight=config.unknown > 0)
    with torch.device("meta"):
        net = model.panoptic_fpn(config)
        ours = weights.to_official(net)
    assert {name: tuple(value.shape) for name, value in ours.items()} == expected
    assert len(expected) == keys
    counted = sum(p.numel() for p in net.parameters()) + (net.class_weight.numel() if config.unknown else 0)
    assert counted == parameters
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert parameters - trained == 222_400 + (193 if config.unknown else 0)


def noisy(**changes: object) -> model.PanopticFPN:
    """A narrow network of which every number is its own."""
    net = narrow.network(**changes)
    generator = torch.Generator().manual_seed(1)
    for value in net.state_dict().values():
        value.uniform_(0.5, 1.5, generator=generator)
    return net


def same(one: model.PanopticFPN, other: model.PanopticFPN) -> bool:
    others = other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in one.state_dict().items())


def load(path: Path, **changes: object) -> model.PanopticFPN:
    return weights.load_official(path, narrow.config(**changes), narrow.WIDTHS)


@pytest.mark.parametrize("changes", [{"unknown": 5}, {"void_mode": "train"}, {"void_mode": "ignorance"}, {}])
def test_official_checkpoints_load_and_come_back(tmp_path, changes):
    net = noisy(**changes)
    if not changes.get("unknown"):
        net.class_weight.fill_(1)
    state = weights.to_official(net)
    torch.save({"model": state, "iteration": 3}, tmp_path / "model.pth")
    loaded = load(tmp_path / "model.pth", **changes)
    assert same(loaded, net)
    assert not loaded.training
    again = weights.to_official(loaded)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_checkpoints_as_pickles_of_arrays_load(tmp_path):
    net = noisy(unknown=5)
    arrays = {name: value.numpy() for name, value in weights.to_official(net).items()}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}, protocol=2))
    assert same(load(tmp_path / "model.pkl", unknown=5), net)


def test_class_weights_load_as_a_column_and_as_the_vector_that_the_official_converter_writes(tmp_path):
    net = noisy(unknown=5)
    state = weights.to_official(net)
    assert state[weights.CLASS_WEIGHT].shape == (9, 1)
    state[weights.CLASS_WEIGHT] = state[weights.CLASS_WEIGHT].flatten()
    torch.save({"model": state}, tmp_path / "model.pth")
    assert same(load(tmp_path / "model.pth", unknown=5), net)


def test_a_suppression_network_widened_gives_the_same_logits_and_zeros():
    net = narrow.network().eval()
    wide = weights.widen(net, 5)
    assert wide.config.unknown == 5
    assert wide.class_weight.tolist() == [1] * 4 + [0] * 5
    batch = narrow.images(1)
    boxes = [torch.tensor([[10.0, 10, 40, 40]])]
    with torch.no_grad():
        before, after = (each.box_output(each.trunk(batch.images), boxes) for each in (net, wide))
    assert torch.equal(after.logits[:, :4], before.logits)
    assert torch.equal(after.logits[:, 4:], torch.zeros(1, 5))
    assert torch.equal(after.features, before.features)
    wide.trunk.body.conv1.weight.data.zero_()
    assert net.trunk.body.conv1.weight.abs().sum() > 0


@pytest.mark.parametrize("changes", [{"void_mode": "train"}, {"unknown": 2}])
def test_only_suppression_without_classes_can_be_widened(changes):
    with pytest.raises(InputError, match="cannot be widened"):
        weights.widen(narrow.network(**changes), 5)


def refuse(path: Path, complaint: str, **changes: object) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        load(path, **changes)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_checkpoint_of_another_configuration_is_named(tmp_path):
    torch.save({"model": weights.to_official(noisy())}, tmp_path / "model.pth")
    refuse(tmp_path / "model.pth", r"box_head.cls_score.weight is 4×10 there, 5×10 here", void_mode="train")


@pytest.mark.parametrize("name", ["pixel_mean", "proposal_generator.anchor_generator.cell_anchors.0"])
def test_weights_for_other_anchors_or_images_are_refused(tmp_path, name):
    state = weights.to_official(noisy())
    state[name] = state[name] + 1
    torch.save({"model": state}, tmp_path / "model.pth")
    refuse(tmp_path / "model.pth", f"belong to another {re.escape(name)}")


@pytest.mark.parametrize(
    ("name", "ours"),
    [("roi_heads.mask_head.deconv.bias", "mask_head.deconv.bias"), (weights.CLASS_WEIGHT, "class_weight")],
)
def test_a_missing_part_is_named(tmp_path, name, ours):
    state = weights.to_official(noisy(unknown=5))
    del state[name]
    torch.save({"model": state}, tmp_path / "model.pth")
    refuse(tmp_path / "model.pth", rf"1 missing \({ours}\)", unknown=5)


# --- the ImageNet start -----------------------------------------------------------------------------------


def caffe(body: ResNet) -> dict[str, np.ndarray]:
    """What Caffe's file holds of a network: normalisations as a scale `s` and a shift `b`."""
    arrays = {"fc1000_w": np.zeros((10, 128), np.float32), "fc1000_b": np.zeros(10, np.float32)}
    for name, value in body.state_dict().items():
        kind = name.rsplit(".", 1)[1]
        if kind.startswith("running"):
            continue
        bn = "bn" in name or "downsample.1" in name
        part = {"weight": "_bn_s" if bn else "_w", "bias": "_bn_b"}[kind]
        if name.startswith(("conv1", "bn1")):
            arrays[f"{'res_conv1' if bn else 'conv1'}{part}"] = value.numpy()
            continue
        stage, block, layer = re.match(
            r"layer(\d)\.(\d)\.(conv1|bn1|conv2|bn2|conv3|bn3|downsample)", name
        ).groups()
        branch = "1" if layer == "downsample" else f"2{'abc'[int(layer[-1]) - 1]}"
        arrays[f"res{int(stage) + 1}_{block}_branch{branch}{part}"] = value.numpy()
    return arrays


def narrow_body() -> ResNet:
    return ResNet(8, 16, 4)


@pytest.mark.parametrize("wrapper", [None, "blobs", "model"])
def test_imagenet_weights_of_caffe_load_with_scales_as_they_are(tmp_path, wrapper):
    source, body = narrow_body(), narrow_body()
    for value in source.state_dict().values():
        value.uniform_(0.5, 1.5)
    arrays = caffe(source)
    content = arrays if wrapper is None else {wrapper: arrays, "__author__": "Caffe2"}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(content, protocol=2))
    weights.load_imagenet(body, tmp_path / "R-50.pkl")
    assert torch.equal(body.conv1.weight, source.conv1.weight)
    assert torch.equal(body.layer3[5].conv3.weight, source.layer3[5].conv3.weight)
    assert torch.equal(body.layer2[0].downsample[0].weight, source.layer2[0].downsample[0].weight)
    x: Tensor = torch.randn(1, 8, 2, 2)
    scale, shift = (getattr(source.bn1, name).view(1, -1, 1, 1) for name in ("weight", "bias"))
    torch.testing.assert_close(body.bn1(x), x * scale + shift)


def test_pickles_of_python_2_load(tmp_path):
    """Protocol 2 with byte strings, as Caffe2 wrote them."""
    one = b"\x80\x02}U\x07conv1_wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K\x02\x85" + dtype
    values = b"\x89U\x08" + np.array([1, -2], "<f4").tobytes() + b"tbs."
    (tmp_path / "old.pkl").write_bytes(one + state + values)
    content = numpy_pickle.read(tmp_path / "old.pkl")
    np.testing.assert_array_equal(content["conv1_w"], np.array([1, -2], np.float32))


def test_a_network_that_is_no_resnet_50_is_named(tmp_path):
    arrays = {"features_0_w": np.zeros(3, np.float32)}
    (tmp_path / "vgg.pkl").write_bytes(pickle.dumps(arrays))
    with pytest.raises(InputError, match=r"vgg.pkl has an array 'features_0_w', .* look for MSRA's R-50.pkl"):
        weights.load_imagenet(narrow_body(), tmp_path / "vgg.pkl")
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(caffe(narrow_body())))
    with pytest.raises(InputError, match="do not fit ResNet"):
        weights.load_imagenet(ResNet(8, 16, 4, depths=(3, 4, 7, 3)), tmp_path / "R-50.pkl")


# --- hostile and broken pickles ---------------------------------------------------------------------------


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_before_it_does(tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": Touch(tmp_path / "touched")}))
    with pytest.raises(InputError, match=r"evil.pkl names pathlib.* could run code on loading"):
        numpy_pickle.read(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "os.system", "numpy.load", "numpy.core.multiarray.fromfile"]
)
def test_no_other_function_is_known(tmp_path, name):
    module, function = name.rsplit(".", 1)
    (tmp_path / "evil.pkl").write_bytes(f"\x80\x02c{module}\n{function}\n.".encode("latin1"))
    with pytest.raises(InputError, match=re.escape(name)):
        numpy_pickle.read(tmp_path / "evil.pkl")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        (b"", "is not a pickle"),
        (b"<!DOCTYPE html>", "is not a pickle"),
        (pickle.dumps({"w": np.zeros(100)})[:-40], "damaged or half-written"),
        (b"\x80\x02" + b"\xff" * 30, "damaged or half-written"),
        (pickle.dumps([1, 2]), "holds a list, not arrays by their names"),
        (pickle.dumps({"w": "x"}), "holds no arrays of numbers"),
        (pickle.dumps({"w": np.array(["text"])}), "holds no arrays of numbers"),
    ],
    ids=["missing", "empty", "page", "cut", "noise", "list", "text", "array of text"],
)
def test_files_that_cannot_be_read_are_named(tmp_path, content, complaint):
    path = tmp_path / "model.pkl"
    if content is not None:
        path.write_bytes(content)
    refuse(path, complaint)


def test_our_own_state_dict_fits_without_renaming():
    net = noisy(unknown=5)
    checkpoints.fit(narrow.network(unknown=5), net.state_dict(), source="a run")
