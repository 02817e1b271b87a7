"""EPS, stage 1, against numbers made by the official code (halbielee/EPS) on a CPU in float32."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cvpr21lib.eps import losses, model, mxnet_params, optim, pseudo_masks
from cvpr21lib.eps.resnet38 import ResNet38, with_counters
from cvpr21lib.segmentation import metrics
from tests.parity.official import Official

torch.set_num_threads(1)


class Fixture(Official):
    paper = "eps"


def official_network(fixture: Fixture) -> model.Classifier:
    backbone, outputs = ResNet38(fixture.meta["width_div"]), fixture.meta["num_out"]
    net = model.EPS(backbone, outputs - 1) if fixture.meta["kind"] == "eps" else model.CAM(backbone, outputs)
    net.load_state_dict(with_counters(fixture.group("sd/")))
    return net.eval()


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", ["net_eps_tiny", "net_cls_tiny"])
def test_networks(name, folded):
    fixture = Fixture(name)
    net, image = official_network(fixture), fixture["in/x"]
    if folded:
        net.backbone = net.backbone.folded()
    taps = net.backbone.taps(image)
    for tap in ("conv4", "conv5", "conv6"):
        fixture.expect_within(f"out/{tap}", getattr(taps, tap), 1e-5)
    fixture.expect_within("out/conv6", net.backbone(image), 1e-5)
    if name == "net_eps_tiny":
        pred, cam = net(image)
        fixture.expect_within("out/cam", cam, 1e-5)
        fixture.expect_within("out/forward_cam", cam, 1e-5)
    else:
        pred = net(image)
        fixture.expect_within("out/forward_cam", net.class_maps(image), 1e-5)
    fixture.expect_within("out/pred", pred, 1e-5)


@pytest.mark.parametrize("name", ["net_eps_tiny", "net_cls_tiny"])
def test_training_gradients_and_what_is_trained(name):
    fixture = Fixture(name)
    net, image, label = official_network(fixture).train(), fixture["in/x"], fixture["in/label"]
    for module in net.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    if name == "net_eps_tiny":
        pred, cam = net(image)
        l_sal = losses.saliency(
            cam, fixture["in/saliency"], label, tau=fixture.meta["tau"], lam=fixture.meta["lam"]
        )
        fixture.expect_within("out/loss_sal", l_sal, 1e-5)
    else:
        pred, l_sal = net(image), 0.0
    l_cls = losses.classification(pred, label)
    fixture.expect_within("out/loss_cls", l_cls, 1e-5)
    (l_cls + l_sal).backward()

    names = {id(p): name.removeprefix("backbone.") for name, p in net.named_parameters()}
    by_name = {names[id(p)]: p for p in net.parameters()}
    for key in fixture.group("out/grad/"):
        fixture.expect_within(f"out/grad/{key}", by_name[key].grad, 1e-4)
    assert {key: p.requires_grad for key, p in by_name.items()} == fixture.meta["requires_grad"]
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())
    groups = optim.parameter_groups(net, 0.01, 5e-4)
    listed = [[names[id(p)] for p in group["params"]] for group in groups]
    assert listed == fixture.meta["param_groups_after_train_call"]


def test_full_network_by_recipe():
    """105 million weights, made from their names as the fixture's notes say; one pass."""
    fixture = Fixture("net_eps_full_recipe")
    seed = fixture.meta["seed"]
    net = model.EPS(ResNet38())
    state = net.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == fixture.meta["keys"]
    assert sum(p.numel() for p in net.parameters()) == fixture.meta["n_params"]
    for key, value in state.items():
        if not key.endswith("num_batches_tracked"):
            value.copy_(torch.from_numpy(recipe_weight(key, tuple(value.shape), seed)))
    net.load_state_dict(state)
    net.eval()
    image = fixture["in/x"]
    with torch.inference_mode():
        taps = net.backbone.taps(image)
        cam = net.fc8(taps.conv6)
        for tap in ("conv4", "conv5", "conv6"):
            fixture.expect_within(f"out/{tap}_chanmean", getattr(taps, tap).mean(1), 1e-5)
        fixture.expect_within("out/forward_cam", cam, 1e-4)
        fixture.expect_within("out/pred", cam.mean((2, 3)), 1e-4)


def recipe_weight(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    draw = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    size = int(np.prod(shape))
    if len(shape) == 4:
        value = draw.standard_normal(size).astype(np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    elif key.endswith(("running_mean", "bias")):
        value = draw.standard_normal(size).astype(np.float32) * np.float32(0.1)
    elif key.endswith("running_var"):
        value = (draw.random_sample(size) + 0.5).astype(np.float32)
    else:
        value = (draw.random_sample(size) * 0.5 + 0.75).astype(np.float32)
    return (value * np.float32(0.004) if key == "fc8.weight" else value).reshape(shape)


@pytest.mark.parametrize("case", range(4))
def test_eps_loss_and_its_steps(case):
    fixture = Fixture("eps_loss")
    notes = fixture.meta["cases"][case]
    tolerance = 1e-12 if notes.get("f64") else 1e-6
    cam = fixture[f"in/{case}/cam"].requires_grad_()
    given = (cam, fixture[f"in/{case}/saliency"], fixture[f"in/{case}/label"], notes["tau"], notes["lam"])
    steps, loss = losses.estimate(*given), losses.saliency(*given)
    loss.backward()
    for key, actual in {
        "loss": loss,
        "fg": steps.foreground,
        "bg": 1 - steps.background,  # what the official code calls so is the foreground of the other side
        "sal_pred": steps.estimate,
        "grad_cam": cam.grad,
        "overlap": steps.overlap,
    }.items():
        fixture.expect_within(f"out/{case}/{key}", actual, tolerance)
    labelled, above = fixture[f"in/{case}/label"] > 0, fixture[f"out/{case}/valid"]
    assert torch.equal(steps.valid, labelled & above)
    assert torch.equal(steps.rejected, labelled & ~above)


def test_classification_loss():
    fixture = Fixture("cls_loss")
    logits = fixture["in/logits"].requires_grad_()
    loss = losses.classification(logits, fixture["in/label"])
    loss.backward()
    fixture.expect_within("out/loss", loss, 1e-6)
    fixture.expect_within("out/grad", logits.grad, 1e-6)


class FourGroups(nn.Module):
    """A network in whose four groups the fixture's four vectors lie."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.backbone, self.fc8 = nn.Module(), nn.Module()
        for module, (weight, bias) in ((self.backbone, values[:2]), (self.fc8, values[2:])):
            module.weight = nn.Parameter(weight.clone()[None])
            module.bias = nn.Parameter(bias.clone())

    def vectors(self) -> Tensor:
        return torch.stack([p.view(-1) for p in self.parameters()])


def test_optimiser_and_schedule():
    fixture = Fixture("poly_sgd")
    notes, target = fixture.meta, fixture["in/target"]
    net = FourGroups(fixture["in/init"])
    optimizer = optim.sgd(net, notes["lr"], notes["wd"])
    schedule = optim.poly(optimizer, notes["max_step"])
    assert {group["momentum"] for group in optimizer.param_groups} == {notes["effective_momentum"]}
    for step in range(notes["steps"]):
        rates = torch.tensor([group["lr"] for group in optimizer.param_groups], dtype=torch.float64)
        torch.testing.assert_close(rates, fixture["out/lr"][step], rtol=1e-12, atol=0)
        optimizer.zero_grad()
        (net.vectors() - target).square().sum().backward()
        optimizer.step()
        schedule.step()
        torch.testing.assert_close(net.vectors().detach(), fixture["out/params"][step], rtol=0, atol=1e-12)


def test_miou():
    fixture = Fixture("miou")
    size = fixture.meta["num_classes"]
    total = sum(
        metrics.confusion(fixture.arrays[f"in/{i}/gt"], fixture.arrays[f"in/{i}/pred"], size)
        for i in range(2)
    )
    np.testing.assert_array_equal(total, fixture.arrays["out/hist"])
    scores = metrics.scores(total)
    for name in ("iou", "precision", "recall"):
        np.testing.assert_array_equal(getattr(scores, name), fixture.arrays[f"out/{name}"])
    assert scores.miou == fixture.meta["miou"]
    assert scores.accuracy == fixture.meta["acc"]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", ["infer_eps", "infer_cls"])
def test_pseudo_mask_inference(name, folded):
    fixture = Fixture(name)
    net = official_network(fixture)
    if folded:
        net.backbone = net.backbone.folded()
    image, label = fixture.arrays["in/img"], fixture["in/label"]
    found = pseudo_masks.class_maps(net, image, label, fixture.meta["scales"])
    assert found.classes == tuple(np.flatnonzero(fixture.arrays["in/label"]))
    fixture.expect_within("out/norm_cam", found.maps, 1e-5)
    for threshold in (0.1, 0.2, 0.35):
        expected = fixture.arrays[f"out/pred_thr{threshold}"]
        mask = pseudo_masks.mask(found, threshold)
        assert mask.dtype == expected.dtype
        assert (mask == expected).mean() >= 0.995


def test_mxnet_names():
    fixture = Fixture("mxnet_key_map")
    names = [*fixture.meta["map"], *fixture.meta["skipped"]]
    keys = mxnet_params.key_map(names)
    assert keys == fixture.meta["map"]
    own = model.EPS(ResNet38(64), 20).state_dict()
    missing = [key for key in own if key not in keys.values() and not key.endswith("num_batches_tracked")]
    assert missing == fixture.meta["missing_after"]


@pytest.mark.parametrize("layout", ["v2", "legacy"])
def test_mxnet_files(tmp_path, layout):
    fixture = Fixture("mxnet_params")
    path = tmp_path / "some.params"
    path.write_bytes(fixture.arrays[f"in/{layout}_bytes"].tobytes())
    arrays = mxnet_params.read(path)
    assert list(arrays) == fixture.meta["order"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, fixture.arrays[f"out/{name}"])
