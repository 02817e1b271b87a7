"""Inference of one 800×1088 image beside torchvision's Mask R-CNN, which makes no semantic map.

The same process, one thread, processor time, and weights drawn in the same way: as the classes that both may
find are made likely, each network keeps its full number of 100 detections, and pastes as many masks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from cvpr21lib.eopsn import model

pytestmark = pytest.mark.benchmark(timer=time.process_time)

SIZE = (800, 1088)
DETECTIONS = 100
LIKELY = 10


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tame(network: nn.Module, scores: nn.Linear, first: int) -> nn.Module:
    """Residual branches that do not grow from block to block, and ten classes that pass the threshold."""
    for name, module in network.named_modules():
        if name.endswith("bn3"):
            module.weight.data.fill_(0.2)
    scores.bias.data[first : first + LIKELY] = 8
    return network.eval()


def ours() -> model.PanopticFPN:
    torch.manual_seed(0)
    net = model.panoptic_fpn(model.eopsn())
    tame(net, net.box_head.cls_score, 0)
    return net


def torchvisions() -> nn.Module:
    torch.manual_seed(0)
    net = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    return tame(net, net.roi_heads.box_predictor.cls_score, 1)


@pytest.mark.parametrize("folded", [False, True], ids=["as trained", "folded"])
def test_inference_of_one_image(against, folded):
    net, reference = ours(), torchvisions()
    if folded:
        net = net.folded()
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
    batch = model.stack([(image - 0.45) / 0.225], divisor=32)
    with torch.inference_mode():
        (seen,), (found,) = net.predict(batch), reference([image])
        assert len(seen.masks) == len(found["masks"]) == DETECTIONS
        against(
            f"EOPSN with a semantic map against Mask R-CNN, {'folded' if folded else 'as trained'}",
            lambda: net.predict(batch),
            lambda: reference([image]),
            4,
            time.process_time,
        )
