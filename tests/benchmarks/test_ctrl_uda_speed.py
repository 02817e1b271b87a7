"""CTRL-UDA beside the literal order of its operations: same process, one thread, same results.

`make benchmarks` prints the ratios, of processor time; the two ways take turns, and the fastest round of each
counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from cvpr21lib.ctrl_uda import cross_task, evaluation
from cvpr21lib.ctrl_uda.label_maps import CLASSES
from tests.ctrl_uda import literal_maps

pytestmark = pytest.mark.benchmark(timer=time.process_time)

HEIGHT, WIDTH = 512, 1024
BINS = cross_task.bins("SID", 15)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def maps() -> list[torch.Tensor]:
    """Semantic logits, depths from 1.6 to 655 m, and refined logits, of a street's size."""
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.randn(1, channels, 65, 129, generator=generator) for channels in (16, 1, 16)]
    sized = [
        torch.nn.functional.interpolate(part, (HEIGHT, WIDTH), mode="bilinear", align_corners=True)
        for part in coarse
    ]
    return [4 * sized[0], (3 + 1.5 * sized[1]).clamp(0, 6).exp(), 4 * sized[2]]


def test_joint_map_forward_and_backward(against, maps):
    given = [part.requires_grad_() for part in maps]
    weight = torch.randn(1, 47, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))

    def ours() -> tuple[torch.Tensor, ...]:
        out = cross_task.joint_map(*given, bins=BINS)
        return out.detach(), *torch.autograd.grad(out, given, weight)

    def literal() -> tuple[torch.Tensor, ...]:
        out = literal_maps.joint_map(*given, BINS.inverse)
        return out.detach(), *torch.autograd.grad(out, given, weight)

    same(ours(), literal())
    against("joint map with gradient, 16 classes, 1024×512", ours, literal, 7, time.process_time)


def same(ours: tuple[torch.Tensor, ...], literal: tuple[torch.Tensor, ...]) -> None:
    """To 1e-6, or to 1e-6 of the largest value: gradients of depth reach hundreds."""
    for mine, official in zip(ours, literal, strict=True):
        scale = max(1, official.abs().max().item())
        torch.testing.assert_close(mine, official, rtol=0, atol=1e-6 * scale)


def test_joint_map_of_the_source(against, maps):
    """Which needs no gradient; the official code builds the graph and drops it."""
    detached = [part.detach() for part in maps]
    given = [part.requires_grad_() for part in maps]
    against(
        "joint map of the source, 16 classes, 1024×512",
        lambda: cross_task.joint_map(*detached, bins=BINS),
        lambda: literal_maps.joint_map(*given, BINS.inverse).detach(),
        7,
        time.process_time,
    )


def test_what_the_joint_map_keeps_for_its_gradient(benchmark, capsys, maps):
    given = [part.requires_grad_() for part in maps]

    def kept(joint_map) -> float:
        sizes = {}

        def remember(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            out = joint_map()
        own = {part.untyped_storage().data_ptr() for part in given}
        return out.numel() and sum(size for start, size in sizes.items() if start not in own) / 1e6

    ours = benchmark.pedantic(lambda: kept(lambda: cross_task.joint_map(*given, bins=BINS)), rounds=1)
    literal = kept(lambda: literal_maps.joint_map(*given, BINS.inverse))
    benchmark.extra_info.update(ours_mb=round(ours, 1), literal_mb=round(literal, 1))
    with capsys.disabled():
        print(f"\nkept for the joint map's gradient: {ours:.1f} MB against {literal:.1f} MB")
    assert ours < literal


@pytest.fixture(scope="module")
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels and predictions of Cityscapes' size, in patches as real ones are."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(4):
        label = np.kron(rng.integers(0, 16, (16, 32)), np.ones((64, 64))).astype(np.uint8)
        pred = np.where(np.kron(rng.random((64, 128)) < 0.3, np.ones((16, 16))), 3, label).astype(np.uint8)
        label[-100:] = 255
        made.append((label, pred))
    return made


def official_histogram(label: np.ndarray, pred: np.ndarray, classes: int) -> np.ndarray:
    label, pred = label.flatten(), pred.flatten()
    counts = (label >= 0) & (label < classes)
    joined = classes * label[counts].astype(int) + pred[counts]
    return np.bincount(joined, minlength=classes**2).reshape(classes, classes)


def torchmetrics_matrix(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    metric = MulticlassConfusionMatrix(16, ignore_index=255, validate_args=False)
    for label, pred in pairs:
        metric.update(torch.from_numpy(pred)[None], torch.from_numpy(label)[None])
    return metric.compute().numpy()


@pytest.mark.parametrize("reference", ["official histogram", "torchmetrics"])
def test_confusion_matrix_at_cityscapes_size(against, pairs, reference):
    ways = {
        "official histogram": lambda: sum(official_histogram(label, pred, 16) for label, pred in pairs),
        "torchmetrics": lambda: torchmetrics_matrix(pairs),
    }

    def ours() -> np.ndarray:
        return sum(evaluation.count(label, pred, CLASSES[16]) for label, pred in pairs)

    np.testing.assert_array_equal(ours(), ways[reference]())
    against(f"confusion matrix, 2048×1024, {reference}", ours, ways[reference], 7, time.process_time)
