"""EPS, stage 1, beside the literal order of its operations: same process, one thread, same results.

`make benchmarks` prints the ratios, of processor time; the two ways take turns, and the fastest round of each
counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassConfusionMatrix

from cvpr21lib.eps import EPS, ResNet38, class_maps, losses, mask, scan
from cvpr21lib.eps.pseudo_masks import SCALES, THRESHOLD
from cvpr21lib.eps.resnet38 import FixedBatchNorm
from cvpr21lib.segmentation import metrics
from tests.conftest import photograph
from tests.eps import literal

pytestmark = pytest.mark.benchmark(timer=time.process_time)

VOC_SIZE = (375, 500)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def labels(classes: int, *present: int) -> torch.Tensor:
    return torch.zeros(classes).index_fill(0, torch.tensor(present), 1)


@pytest.mark.parametrize(
    ("data", "batch", "classes", "side"), [("VOC", 8, 20, 56), ("COCO", 16, 80, 41)], ids=["VOC", "COCO"]
)
def test_loss_and_gradient(against, data, batch, classes, side):
    generator = torch.Generator().manual_seed(0)
    cam = 4 * torch.randn(batch, classes + 1, side, side, generator=generator)
    saliency = torch.rand(batch, 1, 8 * side, 8 * side, generator=generator)
    label = (
        torch.rand(batch, classes, generator=generator) < {"VOC": 1.5, "COCO": 2.9}[data] / classes
    ).float()
    cam.requires_grad_()

    def step(loss: Callable) -> tuple[torch.Tensor, torch.Tensor]:
        value = loss(cam, saliency, label)
        return value, torch.autograd.grad(value, cam)[0]

    torch.testing.assert_close(step(losses.saliency), step(literal.saliency_loss), rtol=1e-4, atol=1e-9)
    against(
        f"EPS loss with gradient, {data}",
        lambda: step(losses.saliency),
        lambda: step(literal.saliency_loss),
        20,
        time.process_time,
    )


def small_backbone() -> nn.Module:
    """Of the size that the chapter trains."""
    layers = []
    for inputs, outputs, stride, dilation in ((3, 24, 2, 1), (24, 32, 2, 1), (32, 48, 1, 1), (48, 48, 1, 2)):
        convolution = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    backbone = nn.Sequential(*layers)
    backbone.channels = 48
    return backbone


@pytest.mark.parametrize(
    ("backbone", "classes", "size", "scales", "rounds"),
    [
        ("the chapter's", 4, (48, 48), (1.0, 1.5), 30),
        ("ResNet38 of 1/32 width", 20, VOC_SIZE, SCALES, 3),
        ("ResNet38 of 1/32 width", 80, VOC_SIZE, SCALES, 3),
        ("ResNet38 of 1/4 width", 20, (188, 250), SCALES, 2),
        ("ResNet38", 20, (64, 96), SCALES, 2),
    ],
)
def test_pseudo_mask_of_one_image(against, backbone, classes, size, scales, rounds):
    torch.manual_seed(0)
    widths = {"ResNet38": 1, "ResNet38 of 1/4 width": 4, "ResNet38 of 1/32 width": 32}
    net = EPS(ResNet38(widths[backbone]) if backbone in widths else small_backbone(), classes).eval()
    fast = EPS(net.backbone.folded() if backbone in widths else net.backbone, classes).eval()
    fast.fc8 = net.fc8
    image, label = photograph(0, *size), labels(classes, 1, 3)
    expected = literal.class_maps(net, image, label, scales)
    np.testing.assert_allclose(
        class_maps(fast, image, label, scales).maps, expected[[1, 3]], rtol=0, atol=1e-5
    )
    against(
        f"pseudo-mask, {backbone}, {classes} classes, {size[0]}×{size[1]}",
        lambda: mask(class_maps(fast, image, label, scales)),
        lambda: literal.mask(literal.class_maps(net, image, label, scales), THRESHOLD),
        rounds,
        time.process_time,
    )


def blocks(seed: int, cell: int) -> np.ndarray:
    """A mask in blocks, as real ones are."""
    coarse = np.random.default_rng(seed).integers(0, 21, (1 + 375 // cell, 1 + 500 // cell))
    return np.kron(coarse, np.ones((cell, cell))).astype(np.uint8)[:375, :500]


@pytest.fixture(scope="module")
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    made = [(blocks(i, 50).copy(), blocks(100 + i, 20).copy()) for i in range(10)]
    for target, _ in made:
        target[100:110] = 255
    return made


def confusion(pairs: list[tuple[np.ndarray, np.ndarray]], one: Callable = metrics.confusion) -> np.ndarray:
    return sum(one(target, pred, 21) for target, pred in pairs)


def torchmetrics_confusion(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    metric = MulticlassConfusionMatrix(21, ignore_index=255, validate_args=False)
    for target, pred in pairs:
        metric.update(torch.from_numpy(pred)[None], torch.from_numpy(target)[None])
    return metric.compute().numpy()


@pytest.mark.parametrize("reference", ["official loop", "torchmetrics"])
def test_miou_at_voc_size(against, pairs, reference):
    ways = {
        "official loop": lambda: confusion(pairs, literal.confusion),
        "torchmetrics": lambda: torchmetrics_confusion(pairs),
    }
    np.testing.assert_array_equal(confusion(pairs), ways[reference]())
    against(
        f"mIoU of 10 VOC images, {reference}",
        lambda: metrics.scores(confusion(pairs)),
        lambda: metrics.scores(ways[reference]()),
        10,
        time.process_time,
    )


def test_scan_of_twenty_thresholds(against, pairs):
    net = EPS(small_backbone(), 20).eval()
    found = class_maps(net, photograph(0, *VOC_SIZE), labels(20, 1, 3), scales=(1.0,))
    thresholds, target = np.arange(15, 35) / 100, pairs[0][0]

    def one_by_one() -> np.ndarray:
        return np.stack([literal.confusion(target, mask(found, threshold), 21) for threshold in thresholds])

    np.testing.assert_array_equal(scan(found, target, thresholds, 21), one_by_one())
    against(
        "scan of 20 thresholds, VOC size",
        lambda: scan(found, target, thresholds, 21),
        one_by_one,
        10,
        time.process_time,
    )


def test_activations_that_training_keeps(benchmark, capsys, monkeypatch):
    torch.manual_seed(0)
    net, image = ResNet38(16).train(), torch.randn(1, 3, 224, 224)

    def kept() -> float:
        sizes = {}

        def remember(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            features = net(image)
        own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
        return features.numel() and sum(size for start, size in sizes.items() if start not in own) / 1e6

    ours = benchmark.pedantic(kept, rounds=1)
    monkeypatch.setattr(
        FixedBatchNorm,
        "forward",
        lambda norm, x: torch.nn.functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        ),
    )
    plain = kept()
    benchmark.extra_info.update(ours_mb=round(ours, 1), plain_mb=round(plain, 1))
    with capsys.disabled():
        print(f"\nkept for the backward pass: {ours:.1f} MB against {plain:.1f} MB with PyTorch's batch norm")
    assert ours < plain
