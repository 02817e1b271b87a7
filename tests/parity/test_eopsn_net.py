"""EOPSN's network against numbers made by the official code (jd730/EOPSN) on a CPU in float32.

The fixtures hold a narrow network with the official keys; see `meta` in each for what was made how.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from cvpr21lib import checkpoints
from cvpr21lib.eopsn import classes, losses, masks, merge, model, predict, weights
from cvpr21lib.eopsn.config import UNKNOWN, Config
from cvpr21lib.eopsn.detections import detect
from tests.parity.official import Official

torch.set_num_threads(1)

STUFF_AND_VOID = 55


class Fixture(Official):
    paper = "eopsn"


@cache
def official_network() -> model.PanopticFPN:
    fixture = Fixture("net_infer")
    notes = fixture.meta["config"]
    config = Config(
        known=notes["num_known"],
        unknown=notes["num_centroid"],
        pre_nms=(200, notes["pre_nms_topk_test"]),
        post_nms=(100, notes["post_nms_topk_test"]),
        box_fc=(notes["fc_dim"],) * 2,
        mask_convs=(notes["mask_conv_dim"],) * 4,
        detections=notes["detections_per_image"],
        rpn_batch=10**6,  # all of them, so that nothing is drawn
        rpn_positive_fraction=1.0,
        roi_batch=10**6,
        roi_positive_fraction=1.0,
    )
    widths = model.Widths(
        notes["stem_out"],
        notes["res2_out"],
        notes["width_per_group"],
        notes["fpn_out"],
        notes["sem_conv_dim"],
    )
    net = model.panoptic_fpn(config, widths)
    state = weights.from_official(fixture.group("sd/"), net, source="net_infer")
    checkpoints.fit(net, state, source="net_infer")
    return net.eval()


def official_image(bgr: Tensor) -> Tensor:
    return model.bgr(bgr.flip(0))


@torch.no_grad()
def test_network_in_inference():
    fixture, net = Fixture("net_infer"), official_network()
    batch = model.stack([official_image(fixture["in/image"])], divisor=32)
    maps = net.trunk(batch.images)
    for level in ("p2", "p3", "p4", "p5", "p6"):
        fixture.expect_within(f"out/feat_{level}", maps[level], 1e-4)
    fixture.expect_within("out/sem_logits_stride4", net.semantic_head(maps), 1e-4)

    (proposals,) = net.propose(net.rpn(maps), batch.sizes)
    torch.testing.assert_close(proposals.boxes, fixture["out/proposal_boxes"], rtol=0, atol=0.02)
    fixture.expect_within("out/proposal_logits", proposals.objectness, 1e-4)

    pooled = net.pool(maps, [proposals.boxes[:5]], 7)
    fixture.expect_within("out/box_feat_pooled_first5", pooled, 1e-4)
    output = net.box_output(maps, [proposals.boxes])
    fixture.expect_within("out/box_feat", output.features, 1e-4)
    fixture.expect_within("out/cls_logits", output.logits, 1e-4)
    fixture.expect_within("out/box_deltas", output.deltas, 1e-4)


def test_detections_masks_and_semantic_map():
    fixture, net = Fixture("net_infer"), official_network()
    size = fixture.meta["out_height"], fixture.meta["out_width"]
    batch = model.stack([official_image(fixture["in/image"])], divisor=32)
    (seen,) = net.predict(batch, [size], official=True)
    found = seen.detections
    torch.testing.assert_close(found.boxes, fixture["out/det_boxes"], rtol=0, atol=0.02)
    torch.testing.assert_close(found.scores, fixture["out/det_scores"], rtol=0, atol=1e-4)
    assert torch.equal(coco(found.labels), fixture["out/det_classes"])
    pixels = size[0] * size[1]
    expected = np.unpackbits(fixture.arrays["out/det_masks_packed"], axis=1)[:, :pixels].reshape(-1, *size)
    assert (masks.full(seen.masks, size).numpy() == expected.astype(bool)).mean() > 0.9999
    assert (seen.semantic == fixture["out/sem_argmax"]).float().mean() > 0.9999


def test_the_panoptic_map():
    fixture, net = Fixture("net_infer"), official_network()
    size, notes = (fixture.meta["out_height"], fixture.meta["out_width"]), fixture.meta["config"]
    rule = merge.Rule(stuff_area=notes["stuff_area_limit"])
    network_input = official_image(fixture["in/image"])
    made = predict.panoptic_map(net, network_input, size, classes.of_coco(20), rule, official=True)
    assert (made.ids == fixture.arrays["out/panoptic"]).mean() >= 0.995
    assert len(made.segments) == len(fixture.meta["segments"])


UNKNOWN_20 = {1, 2, 8, 11, 15, 19, 21, 22, 27, 46, 53, 55, 60, 61, 66, 71}
"""The classes hidden at K = 20 %, of COCO's 0 .. 79."""


def coco(labels: Tensor, table: Tensor | None = None) -> Tensor:
    """Labels of the network to COCO's 0 .. 79."""
    if table is None:
        table = torch.tensor([label for label in range(80) if label not in UNKNOWN_20])
    return torch.where(labels == UNKNOWN, UNKNOWN, table[labels.clamp(min=0)])


def signed_majority(integral: Tensor, boxes: Tensor) -> Tensor:
    """The official void test. Sum and area both turn negative where a box begins and ends in the same row or
    column of pixels: off void, such a box counts as void, on void it does not. With ours it never does."""
    height, width = (side - 1 for side in integral.shape)
    x1, y1, x2, y2 = boxes.long().clamp(min=0).T
    x1, y1 = x1.clamp(max=width), y1.clamp(max=height)
    x2, y2 = x2.clamp(1, width + 1) - 1, y2.clamp(1, height + 1) - 1
    total = integral[y2, x2] - integral[y1, x2] - integral[y2, x1] + integral[y1, x1]
    return 2 * total > (x2 - x1) * (y2 - y1)


def test_the_void_tests_differ_only_in_boxes_that_begin_and_end_in_one_row_or_column():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(2000, 4, generator=generator) * torch.tensor([160.0, 128, 160, 128])
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:] / 20
    integral = model.void.integral(Fixture("net_trainloss")["in/sem_0"] == 54)
    differ = signed_majority(integral, boxes) != model.void.majority(integral, boxes)
    thin = (boxes[:, :2].long() == boxes[:, 2:].long()).any(1)
    assert differ.any()
    assert thin[differ].all()


def test_all_seven_training_losses(monkeypatch):
    monkeypatch.setattr(model.void, "majority", signed_majority)
    fixture, net = Fixture("net_trainloss"), official_network()
    truths, pseudo = [], []
    for i in range(2):
        known = coco(torch.arange(64)).tolist()
        labels = torch.tensor([known.index(label) for label in fixture[f"in/classes_{i}"].tolist()])
        polygons = masks.Polygons([[ring] for ring in fixture.arrays[f"in/polys_{i}"]])
        semantic = fixture[f"in/sem_{i}"].long()
        truths.append(model.Truth(semantic, model.Objects(fixture[f"in/boxes_{i}"], labels), polygons))
        rows = fixture["in/pseudo_gt"]
        rows = rows[rows[:, 0] == i + 1]  # images are numbered from 1
        boxes = rows[:, 2:]
        if fixture[f"in/flip_{i}"]:
            boxes = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
        height, width = semantic.shape
        pseudo.append(model.Objects(boxes * torch.tensor([width, height] * 2), rows[:, 1].long() - 81 + 65))
    batch = model.stack([official_image(fixture[f"in/image_{i}"]) for i in range(2)], divisor=32)
    net.train()
    step = net(batch, truths, pseudo)
    net.eval()
    expected = {
        key.removeprefix("out/"): float(value) for key, value in fixture.arrays.items() if "out/" in key
    }
    assert step.losses.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = 1e-2 if name == "loss_mask" else 1e-3
        print(name, float(step.losses[name].detach()), value)
        assert float(step.losses[name].detach()) == pytest.approx(value, rel=tolerance), name


def test_classification_and_void_losses():
    fixture = Fixture("losses")
    cls = losses.classification(fixture["in/logits"], fixture["in/target"], fixture["in/class_weight"])
    fixture.expect_within("out/loss_cls", cls, 1e-10)
    fixture.expect_within("out/loss_void_neg", losses.void_negative(fixture["in/void_logits"], 64), 1e-10)


@pytest.mark.parametrize("kind", ["eopsn", "voidtrain"])
def test_box_inference(kind):
    fixture = Fixture("box_inference")
    config = Config(unknown=128) if kind == "eopsn" else Config(void_mode="train")
    found = detect(
        fixture["in/boxes"],
        fixture[f"in/{kind}_logits"],
        fixture["in/objectness_logit"],
        tuple(fixture.meta["image_size"]),
        config,
        official=True,
    )
    torch.testing.assert_close(found.boxes, fixture[f"out/{kind}_boxes"], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.scores, fixture[f"out/{kind}_scores"], rtol=0, atol=1e-6)
    table = fixture["in/contiguous_of_internal"]
    assert torch.equal(coco(found.labels, table), fixture[f"out/{kind}_classes"])
