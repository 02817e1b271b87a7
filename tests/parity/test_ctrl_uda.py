"""CTRL-UDA against numbers made by the official code (susaha/ctrl-uda) on a CPU in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cvpr21lib.ctrl_uda import cross_task, evaluation, losses, pseudo_labels
from cvpr21lib.ctrl_uda.label_maps import CLASSES
from cvpr21lib.segmentation import metrics
from tests.parity.official import Official

torch.set_num_threads(1)


class Fixture(Official):
    paper = "ctrl_uda"


@pytest.mark.parametrize("k", [15, 8])
@pytest.mark.parametrize("kind", ["SID", "SID2"])
def test_bins(kind, k):
    fixture, found = Fixture("bins"), cross_task.bins(kind, k)
    key = f"out/{kind}_{k}"
    fixture.expect(f"{key}/metres", torch.tensor(found.metres, dtype=torch.float64), rtol=1e-9)
    fixture.expect(f"{key}/inverse", found.inverse, rtol=1e-6)


@pytest.mark.parametrize("case", range(2))
def test_cross_task_relation_layer(case):
    fixture = Fixture("ctrl_layer")
    notes = fixture.meta["cases"][case]
    bins = cross_task.bins(notes["kind"], notes["K"])
    assert bins.sigma == notes["sigma"]
    given = [fixture[f"in/{case}/{name}"].requires_grad_() for name in ("sem", "depth", "srh")]
    fixture.expect(f"out/{case}/depth_prob", cross_task.quantise(given[1], bins), atol=1e-5)

    fused = cross_task.joint_map(*given, bins=bins)
    fixture.expect(f"out/{case}/fused", fused, atol=1e-6)
    gradients = torch.autograd.grad((fused * fixture[f"in/{case}/w"]).sum(), given)
    for name, gradient in zip(("g_sem", "g_depth", "g_srh"), gradients, strict=True):
        fixture.expect(f"out/{case}/{name}", gradient, rtol=1e-4, atol=1e-4)

    literal = torch.cat(
        [
            cross_task.self_information(p)
            for p in (given[0].softmax(1), cross_task.quantise(given[1], bins), given[2].softmax(1))
        ],
        1,
    )
    fixture.expect(f"out/{case}/fused", literal, atol=1e-6)


@pytest.mark.parametrize("case", range(2))
def test_cross_entropy(case):
    fixture = Fixture("losses")
    logits = fixture[f"in/ce{case}/logits"].requires_grad_()
    check(fixture, f"out/ce{case}", losses.cross_entropy(logits, fixture[f"in/ce{case}/label"]), logits)


@pytest.mark.parametrize("case", range(2))
def test_berhu(case):
    fixture = Fixture("losses")
    pred = fixture[f"in/berhu{case}/pred"].requires_grad_()
    check(fixture, f"out/berhu{case}", losses.berhu(pred, fixture[f"in/berhu{case}/target"]), pred)


@pytest.mark.parametrize(("domain", "number"), [("source", 0), ("target", 1)])
def test_adversarial_labels(domain, number):
    fixture = Fixture("losses")
    logits = fixture["in/bce/logits"].requires_grad_()
    check(fixture, f"out/bce{number}", losses.adversarial(logits, domain), logits)


def check(fixture: Fixture, key: str, loss: Tensor, given: Tensor) -> None:
    fixture.expect(f"{key}/loss", loss, rtol=1e-5)
    (gradient,) = torch.autograd.grad(loss, given)
    fixture.expect(f"{key}/grad", gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("case", "classes"), [(0, 16), (1, 7)])
def test_scores(case, classes):
    fixture = Fixture("metrics_schedule_pseudo")
    label, pred = (fixture.arrays[f"in/{case}/{name}"][None] for name in ("label", "pred"))
    confusion = evaluation.count(label, pred, CLASSES[classes])
    np.testing.assert_array_equal(confusion, fixture.arrays[f"out/{case}/hist"])
    np.testing.assert_allclose(metrics.scores(confusion).iou, fixture.arrays[f"out/{case}/iou"], rtol=1e-12)
    numbers = evaluation.Report(confusion, CLASSES[classes], 1).numbers
    assert numbers["miou"] == pytest.approx(float(fixture.arrays[f"out/{case}/miou"]), rel=1e-12)
    assert ("miou13" in numbers) == (classes == 16)
    if classes == 16:
        assert numbers["miou13"] == pytest.approx(float(fixture.arrays["out/0/miou13"]), rel=1e-12)


def test_pseudo_labels_and_predictions_after_upsampling():
    fixture = Fixture("metrics_schedule_pseudo")
    logits, size = fixture["in/pl_logits"], fixture.meta["up_size"]
    fixture.expect("out/pl", pseudo_labels.confident(logits, size)[0])
    np.testing.assert_array_equal(
        evaluation.predict(logits, tuple(size))[0], fixture.arrays["out/eval_argmax"]
    )
