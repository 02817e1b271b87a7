"""The network's stages, in each of the void modes."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from cvpr21lib.eopsn import model
from cvpr21lib.eopsn.config import PADDING, Config, VoidMode
from cvpr21lib.eopsn.proposals import Proposals, RPNOutput, propose
from cvpr21lib.eopsn.semantic_head import SemanticHead, classes
from cvpr21lib.errors import InputError
from tests.eopsn import narrow

MODES = get_args(VoidMode)
NAMES = {"loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
IN_VOID, ON_STUFF = [70.0, 10, 90, 40], [2.0, 44, 20, 60]


def proposals(*boxes: list[float]) -> Proposals:
    return Proposals(torch.tensor(boxes).view(-1, 4), torch.zeros(len(boxes)))


def sampled(mode: VoidMode, pseudo: model.Objects | None = None, **changes: int) -> model.Sampled:
    """What becomes of a proposal in void, one on stuff, and the two annotated objects."""
    net = narrow.network(void_mode=mode, roi_positive_fraction=1.0, **changes)
    found = net.sample(
        [proposals(IN_VOID, ON_STUFF)], [narrow.SIZE], [narrow.truth()], None if pseudo is None else [pseudo]
    )
    return found[0]


def labels_by_box(found: model.Sampled) -> dict[tuple[float, ...], int]:
    return {tuple(box): label for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True)}


# --- the four treatments of void --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "in_void", "on_stuff", "suppressed"),
    [("background", 3, 3, 0), ("ignorance", None, 3, 1), ("suppression", None, 3, 1), ("train", 3, 4, 0)],
)
def test_what_a_proposal_in_void_is(mode, in_void, on_stuff, suppressed):
    found = sampled(mode)
    labels = labels_by_box(found)
    assert labels.get(tuple(IN_VOID)) == in_void
    assert labels[tuple(ON_STUFF)] == on_stuff
    assert len(found.void.boxes) == suppressed
    assert labels[(10.0, 10, 40, 40)] == 0
    assert labels[(30.0, 20, 60, 60)] == 1


def test_only_suppression_has_a_loss_for_void_and_hands_it_on():
    for mode in MODES:
        net = narrow.network(void_mode=mode).train()
        step = net(narrow.images(), [narrow.truth()] * 2, generator=torch.Generator().manual_seed(0))
        assert step.losses.keys() == NAMES | ({"loss_void_neg"} if mode == "suppression" else set())
        assert len(step.void) == (2 if mode == "suppression" else 0)
        assert all(loss.isfinite() for loss in step.losses.values())
        for void in step.void:
            assert len(void.boxes) == len(void.objectness) == len(void.features)
            assert void.features.shape[1] == 10
            assert not void.features.requires_grad


@pytest.mark.parametrize("mode", MODES)
def test_void_anchors_are_negative_in_void_background_only(mode):
    """With void everywhere and no object, no anchor is left to learn from in the other modes."""
    net = narrow.network(void_mode=mode, rpn_batch=10**6)
    output = RPNOutput([torch.tensor([IN_VOID])], [torch.tensor([[2.0]])], [torch.zeros(1, 1, 4)])
    found = net.rpn_losses(output, [narrow.SIZE], [narrow.truth([], void="all")])
    expected = torch.tensor(2.0).exp().log1p() if mode == "background" else torch.tensor(0.0)
    assert float(found["loss_rpn_cls"]) == pytest.approx(float(expected))


@pytest.mark.parametrize("mode", MODES)
def test_void_pixels_are_a_class_in_two_modes_and_ignored_in_two(mode):
    net = narrow.network(void_mode=mode)
    with torch.no_grad():
        loss = float(net.semantic_loss(net.trunk(narrow.images(1).images), [narrow.truth([], void="all")]))
    assert net.config.semantic_classes == (4 if mode in ("suppression", "train") else 3)
    assert (loss > 0) == (mode in ("suppression", "train"))


def test_the_order_of_logits():
    assert (Config(void_mode="train").background, Config(void_mode="train").logits) == (65, 66)
    assert (Config().background, Config().logits) == (64, 65)
    eopsn = model.eopsn()
    assert (eopsn.background, eopsn.first_unknown, eopsn.logits) == (64, 65, 193)


# --- pseudo ground truth ----------------------------------------------------------------------------------


def test_pseudo_boxes_train_the_classifier_only():
    net = narrow.network(unknown=2).train()
    net.class_weight[4] = 1
    pseudo = model.Objects(torch.tensor([IN_VOID]), torch.tensor([4]))
    maps = net.trunk(narrow.images(1).images)
    truth = [narrow.truth([])]
    found = net.sample([proposals(IN_VOID)], [narrow.SIZE], truth, [pseudo])
    assert found[0].labels.tolist() == [4, 4]  # the proposal, and the box itself
    assert len(found[0].void.boxes) == 0
    losses, _ = net.box_losses(maps, found)
    assert float(losses["loss_cls"].detach()) > 0
    assert float(losses["loss_box_reg"].detach()) == 0
    assert float(net.mask_loss(maps, found, truth).detach()) == 0


def test_pseudo_boxes_do_not_reach_the_rpn():
    net = narrow.network(unknown=2).train()
    pseudo = [model.Objects(torch.tensor([IN_VOID]), torch.tensor([4]))] * 2
    steps = [
        net(narrow.images(), [narrow.truth()] * 2, extra, torch.Generator().manual_seed(0))
        for extra in (None, pseudo)
    ]
    for name in ("loss_rpn_cls", "loss_rpn_loc", "loss_sem_seg"):
        assert torch.equal(steps[0].losses[name], steps[1].losses[name])
    assert not torch.equal(steps[0].losses["loss_cls"], steps[1].losses["loss_cls"])


def test_classes_start_inactive():
    assert narrow.network(unknown=2).class_weight.tolist() == [1, 1, 1, 1, 0, 0]
    assert narrow.network(void_mode="train").class_weight.tolist() == [1] * 5


# --- training on kept maps --------------------------------------------------------------------------------


def test_the_box_head_alone_can_be_trained_on_kept_maps_and_proposals():
    net, truths = narrow.network().train(), [narrow.truth()] * 2
    batch = narrow.images()
    with torch.no_grad():
        maps = net.trunk(batch.images)
        kept = net.propose(net.rpn(maps), batch.sizes)
    losses, _ = net.box_losses(maps, net.sample(kept, batch.sizes, truths))
    sum(losses.values()).backward()
    assert {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None} == {"box_head"}


def test_a_step_repeats_with_its_generator():
    net = narrow.network(rpn_batch=16, roi_batch=8).train()
    one, two = (
        net(narrow.images(), [narrow.truth()] * 2, generator=torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    assert all(torch.equal(one.losses[name], two.losses[name]) for name in one.losses)


def test_half_precision_gives_about_the_same_losses():
    net = narrow.network(rpn_batch=10**6, roi_batch=10**6).train()
    whole = net(narrow.images(), [narrow.truth()] * 2).losses
    with torch.autocast("cpu", torch.bfloat16):
        half = net(narrow.images(), [narrow.truth()] * 2).losses
    for name, loss in whole.items():
        assert half[name].dtype == torch.float32
        assert float(half[name].detach()) == pytest.approx(float(loss.detach()), rel=0.1)


# --- images that are not like the others ------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("boxes", "void"),
    [
        ([], "some"),
        ([], "none"),
        ([], "all"),
        (None, "none"),
        (None, "all"),
        ([[10, 10, 10, 40], [20, 20, 20, 20], [50, 50, 40, 40]], "some"),  # without area
        (
            [[-50, -50, 30, 30], [80, 50, 500, 500], [500, 500, 600, 600]],
            "some",
        ),  # across the border, and outside
    ],
    ids=["nothing", "nothing, no void", "all void", "no void", "objects in void", "no area", "outside"],
)
def test_no_image_makes_a_loss_or_gradient_nan(mode, boxes, void):
    net = narrow.network(void_mode=mode).train()
    truths = [narrow.truth(boxes, void), narrow.truth()]
    step = net(narrow.images(), truths, generator=torch.Generator().manual_seed(0))
    assert all(loss.isfinite() for loss in step.losses.values())
    sum(step.losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_a_batch_of_images_with_nothing_at_all():
    net = narrow.network().train()
    step = net(
        narrow.images(), [narrow.truth([], void="all")] * 2, generator=torch.Generator().manual_seed(0)
    )
    for name in ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"):
        assert float(step.losses[name].detach()) == 0
    assert float(step.losses["loss_void_neg"].detach()) > 0


def change(truth: model.Truth, boxes: object = None, labels: object = None) -> model.Truth:
    old = truth.objects
    new_boxes = old.boxes if boxes is None else torch.tensor(boxes)
    return replace(
        truth, objects=model.Objects(new_boxes, old.labels if labels is None else torch.tensor(labels))
    )


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda t: change(t, labels=[0, 3]), "image 0 has the label 3; expected labels from 0 to 2"),
        (lambda t: change(t, labels=[-1, 0]), "image 0 has the label -1"),
        (lambda t: change(t, boxes=[[0.0, 0, float("nan"), 1]] * 2), "image 0 has a box that is not finite"),
        (lambda t: change(t, boxes=[[0.0, 0, 1]] * 2), r"boxes of shape \(2, 3\)"),
        (lambda t: change(t, labels=[0]), r"labels of shape \(1,\)"),
        (lambda t: change(t, boxes=[[0.0, 0, 5, 5]], labels=[0]), "has 1 boxes but 2 masks"),
        (lambda t: replace(t, semantic=t.semantic[:-1]), r"image 0 is 64×96, but .* \(63, 96\)"),
    ],
)
def test_truths_that_do_not_fit_are_named(wrong, complaint):
    with pytest.raises(InputError, match=complaint):
        narrow.network()(narrow.images(), [wrong(narrow.truth()), narrow.truth()])


def test_pseudo_labels_that_do_not_exist_are_named():
    pseudo = [model.Objects(torch.tensor([IN_VOID]), torch.tensor([4]))] * 2
    with pytest.raises(InputError, match=r"pseudo truth has the label 4; .* none, as config.unknown is 0"):
        narrow.network()(narrow.images(), [narrow.truth()] * 2, pseudo)


def test_as_many_truths_as_images():
    with pytest.raises(InputError, match="2 images come with 1 truths"):
        narrow.network()(narrow.images(), [narrow.truth()])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"void_mode": "ignore"}, "void_mode is 'ignore'; it can be background, ignorance"),
        ({"void_mode": "train", "unknown": 5}, "5 unknown classes do not go with void_mode='train'"),
        ({"known": 0}, "known=0"),
        ({"strides": (4, 8)}, "5 rpn_levels, 2 strides"),
        ({"roi_levels": ("p1",)}, "not all among rpn_levels"),
    ],
)
def test_configurations_that_cannot_be_are_named(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        Config(**changes)


# --- images in, predictions out ---------------------------------------------------------------------------


def test_images_are_padded_to_the_divisor_and_padding_is_not_learnt_from():
    batch = model.stack([torch.ones(3, 40, 50), torch.ones(3, 64, 33)], divisor=32)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.sizes == [(40, 50), (64, 33)]
    assert float(batch.images.sum()) == 3 * (40 * 50 + 64 * 33)
    net = narrow.network()
    maps = net.trunk(batch.images[:1])
    cut = model.Truth(torch.ones(40, 50, dtype=torch.int64), narrow.truth([]).objects, narrow.truth([]).masks)
    full = replace(cut, semantic=torch.full((64, 64), PADDING))
    full.semantic[:40, :50] = 1
    assert torch.equal(net.semantic_loss(maps, [cut]), net.semantic_loss(maps, [full]))
    with pytest.raises(InputError, match="no images"):
        model.stack([])


def test_official_images_are_bgr_less_the_mean():
    grey = model.bgr(torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1))
    torch.testing.assert_close(grey.flatten(), torch.tensor([30 - 103.53, 20 - 116.28, 10 - 123.675]))


@pytest.mark.parametrize("mode", MODES)
def test_predictions_have_the_size_asked_for(mode):
    net = narrow.network(void_mode=mode, score_threshold=0.0).eval()
    own, larger = net.predict(narrow.images(1))[0], net.predict(narrow.images(1), [(128, 192)])[0]
    assert own.semantic.shape == narrow.SIZE
    assert larger.semantic.shape == (128, 192)
    assert len(own.masks) == len(own.detections.boxes) > 0
    torch.testing.assert_close(larger.detections.boxes, 2 * own.detections.boxes)
    assert all(patch.top + patch.pixels.shape[0] <= 128 for patch in larger.masks)


def test_prediction_does_not_depend_on_the_rest_of_the_batch():
    net, batch = narrow.network(score_threshold=0.1).eval(), narrow.images(2)
    alone, together = net.predict(model.Batch(batch.images[1:], batch.sizes[1:])), net.predict(batch)
    torch.testing.assert_close(alone[0].detections.boxes, together[1].detections.boxes, rtol=1e-4, atol=1e-3)
    assert torch.equal(alone[0].semantic, together[1].semantic)


def test_semantic_classes_are_those_of_the_plain_order_of_operations():
    logits = torch.randn(1, 7, 16, 24)
    large = torch.nn.functional.interpolate(logits, scale_factor=4, mode="bilinear")
    assert torch.equal(classes(logits[0], 4, (64, 96), (64, 96)), large.argmax(1)[0])
    smaller = torch.nn.functional.interpolate(large[:, :, :60, :90], (33, 44), mode="bilinear")
    assert torch.equal(classes(logits[0], 4, (60, 90), (33, 44)), smaller.argmax(1)[0])


def test_the_semantic_head_brings_all_levels_to_the_first():
    head = SemanticHead(("p2", "p3", "p5"), (4, 8, 32), 6, 5, channels=32)
    maps = {f"p{k}": torch.randn(1, 6, 64 // 2**k, 64 // 2**k) for k in (2, 3, 5)}
    assert head(maps).shape == (1, 5, 16, 16)
    assert [len(level) // 2 for level in (head.p2, head.p3, head.p5)] == [1, 1, 3]


# --- proposals --------------------------------------------------------------------------------------------


def one_level(boxes: list[list[float]], scores: list[float]) -> RPNOutput:
    anchors = torch.tensor(boxes)
    return RPNOutput([anchors], [torch.tensor([scores])], [torch.zeros(1, len(boxes), 4)])


def test_proposals_are_the_best_of_each_level_then_of_all():
    apart = [[0.0, 0, 8, 8], [20, 20, 28, 28], [40, 40, 48, 48]]
    first, second = one_level(apart, [3.0, 2, 1]), one_level(apart, [6.0, 5, 4])
    both = RPNOutput(*(one + other for one, other in zip(first, second, strict=True)))
    (found,) = propose(both, [(64, 64)], pre_nms=2, post_nms=3, iou=0.7)
    assert found.objectness.tolist() == [6, 5, 3]  # two per level; the same box of another level stays


def test_proposals_are_clipped_and_the_empty_ones_go_but_no_small_ones():
    output = one_level(
        [[-9.0, -9, 5, 5], [70, 70, 90, 90], [5, 5, 5, 9], [1, 1, 1.0005, 9]], [4.0, 3, 2, float("nan")]
    )
    output.objectness[0][0, 3] = 1
    (found,) = propose(output, [(64, 64)], 10, 10, 0.7)
    assert found.boxes.tolist() == [[0, 0, 5, 5], [1, 1, pytest.approx(1.0005), 9]]


def test_levels_may_have_different_numbers_of_anchors():
    net = narrow.network(anchor_sizes=((8, 12), (16,), (32,), (64,), (128,)))
    batch = narrow.images(1)
    output = net.rpn(net.trunk(batch.images))
    assert [len(anchors) for anchors in output.anchors] == [
        6 * 16 * 24,
        3 * 8 * 12,
        3 * 4 * 6,
        3 * 2 * 3,
        3 * 2,
    ]
    assert [scores.shape[1] for scores in output.objectness] == [len(anchors) for anchors in output.anchors]
