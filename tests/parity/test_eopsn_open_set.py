"""The open-set parts of EOPSN against numbers made by the official code (jd730/EOPSN) on a CPU in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cvpr21lib.eopsn import clustering, kmeans, memory, mining, void
from cvpr21lib.eopsn.pseudo_truth import PseudoTruth
from tests.parity.official import Official

torch.set_num_threads(1)


#: The official label of unknown class 0.
FIRST_LABEL = 81


class Fixture(Official):
    paper = "eopsn"


def test_void_test():
    fixture = Fixture("void_test")
    integral = void.integral(fixture["in/sem"] == fixture.meta["void_label"])
    assert torch.equal(integral.float(), fixture["out/integral"])
    background = fixture["in/classes"] == fixture.meta["bg"]
    is_void = background & void.majority(integral, fixture["in/boxes"])
    assert torch.equal(~is_void, fixture["out/not_void"])
    assert torch.equal(is_void, fixture["out/classes"] == 80)
    assert torch.equal(background & ~is_void, fixture["out/classes"] == 81)


def test_cosine_kmeans():
    fixture = Fixture("kmeans_cos")
    clusters = kmeans.cosine_kmeans(
        fixture["in/X"],
        fixture.meta["K"],
        start=fixture["in/init_index"],
        tolerance=fixture.meta["tol"],
        iterations=fixture.meta["max_iter"],
    )
    assert torch.equal(clusters.assignment, fixture["out/ids"])
    torch.testing.assert_close(clusters.centres, fixture["out/centroids"], rtol=0, atol=1e-5)
    torch.testing.assert_close(clusters.distance, fixture["out/mean_cos_dist"], rtol=0, atol=1e-5)


def remembered(fixture: Fixture) -> memory.Remembered:
    return memory.Remembered(
        fixture["in/feature"], fixture["in/objectness"], fixture["in/image_id"].long(), fixture["in/boxes"]
    )


def discovered(fixture: Fixture, official: bool) -> clustering.Discovery:
    meta = fixture.meta
    rules = clustering.Schedule(
        known=meta["num_known"],
        clusters=meta["num_centroid"],
        cluster_objectness=meta["cluster_obj_thresh"],
        member_objectness=meta["coupled_obj_thresh"],
        pair_distance=meta["coupled_cos_thresh"],
        official=official,
    )
    found = clustering.discover(
        remembered(fixture),
        rules,
        classes=meta["n_found_before"],
        pseudo_boxes=meta["n_pseudo_gt_before"],
        start=fixture["in/init_index"],
    )
    assert found is not None
    return found


def in_pairs(rows: Tensor) -> Tensor:
    """Which of a pair of exemplars comes first says nothing; the order of the pairs does."""
    pairs = rows.unflatten(0, (-1, 2))
    swap = pairs[:, 0, 0] > pairs[:, 1, 0]
    return torch.where(swap[:, None, None], pairs.flip(1), pairs)


def test_clustering_gives_the_official_exemplars_the_official_labels():
    fixture = Fixture("clustering")
    found, log = discovered(fixture, official=True), fixture.meta["log"]
    label = found.rows.label + FIRST_LABEL
    rows = torch.cat([torch.stack([found.rows.image, label], 1), found.rows.box], 1)
    rows = rows[label.argsort(descending=True, stable=True)]  # the official rows come by cluster
    expected = fixture["out/new_pseudo_gt"]
    torch.testing.assert_close(in_pairs(rows), in_pairs(expected), rtol=0, atol=1e-6)
    assert len(found.selected) == log["exemplar/sel_cluster"]
    bar = found.thresholds
    assert bar.cluster_objectness == pytest.approx(log["exemplar/cluster_obj_th"], abs=1e-6)
    assert bar.member_objectness == pytest.approx(log["exemplar/obj_th"], abs=1e-6)
    assert bar.pair_distance == pytest.approx(log["exemplar/coupled_cos_th"], abs=1e-6)

    table = PseudoTruth(range(1000), official=True)
    table.add(found.rows)
    weight = table.class_weight(fixture.meta["num_known"], fixture.meta["num_centroid"])
    assert torch.equal(weight[:, None], fixture["out/cls_weight"])


def test_officially_empty_clusters_use_up_ranks():
    fixture = Fixture("clustering")
    official, ours = discovered(fixture, official=True), discovered(fixture, official=False)
    empty = int((ours.clusters.sizes == 0).sum())
    assert empty == 2
    dense = [int((found.clusters.distance < found.thresholds.density).sum()) for found in (official, ours)]
    assert dense == [12, 12 + empty]
    assert official.thresholds.density < ours.thresholds.density


def images(fixture: Fixture) -> list[memory.VoidProposals]:
    features = fixture["in/void_feat"].split([len(fixture[f"in/void_boxes_{number}"]) for number in (0, 1)])
    return [
        memory.VoidProposals(
            fixture.meta["image_ids"][number],
            fixture[f"in/void_boxes_{number}"],
            fixture[f"in/objectness_logit_{number}"],
            features[number],
            tuple(fixture["in/sizes"][number].tolist()),
            bool(fixture["in/flips"][number]),
        )
        for number in (0, 1)
    ]


def test_mining():
    fixture = Fixture("mining")
    rules = clustering.Schedule(mine_distance=fixture.meta["cos_thresh"])
    rows, mined = mining.mine(
        fixture["in/exemplar_feat"],
        fixture["in/exemplar_label"] - FIRST_LABEL,
        images(fixture),
        rules,
        fixture.meta["n_pseudo_gt"],
    )
    found = torch.cat([torch.stack([rows.image, rows.label + FIRST_LABEL], 1), rows.box], 1)
    torch.testing.assert_close(found, fixture["out/new_pseudo_gt"], rtol=0, atol=1e-5)
    for number, classes in enumerate(mined):
        expected = fixture[f"out/void_label_{number}"].long()
        assert torch.equal(torch.where(classes < 0, classes, classes + FIRST_LABEL), expected)


@pytest.mark.parametrize("official", [False, True])  # the two count alike in two images
def test_what_may_be_remembered(official):
    fixture = Fixture("mining")
    batch = images(fixture)
    mined = [fixture[f"out/void_label_{number}"].long() for number in (0, 1)]
    there = memory.candidates(batch, mined, official=official)
    index = fixture["out/nms_index"]
    assert torch.equal(there.features, fixture["in/void_feat"][index])
    logits = torch.cat([image.objectness for image in batch])
    assert torch.equal(there.objectness, logits[index].sigmoid())
    assert torch.equal(there.image, fixture["out/nms_image_id"].long())
    torch.testing.assert_close(there.box, fixture["out/nms_boxes_norm"], rtol=0, atol=1e-5)
