"""From the memory to new classes and exemplars."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cvpr21lib.eopsn.clustering import Calibrated, Discovery, Quantiles, Schedule, Selection, discover
from cvpr21lib.eopsn.kmeans import cosine_kmeans
from cvpr21lib.eopsn.memory import Remembered
from cvpr21lib.errors import InputError

EACH = 8
GOOD, SPARSE, DIM, ONE_IMAGE, MIXED = range(5)
START = torch.arange(5) * EACH
RULES = Schedule(clusters=5, density_rank=5)  # all but the sparsest


def groups(width: int = 16) -> Remembered:
    """Five groups of eight members, one for each thing that can be wrong with a cluster."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(5).repeat_interleave(EACH)
    spread = torch.tensor([0.02, 0.5, 0.02, 0.02, 0.02])[group]
    features = torch.eye(5, width)[group] * 3
    features += 3 * spread[:, None] * torch.rand(len(group), width, generator=generator)
    objectness = torch.tensor([0.98, 0.98, 0.6, 0.98, 0.98])[group]
    objectness[MIXED * EACH + 1 :: 2] = 0.92
    image = torch.arange(len(group))
    image[group == ONE_IMAGE] = 100
    return Remembered(features, objectness, image, torch.rand(len(group), 4, generator=generator))


def found(memory: Remembered, rules: Schedule | Calibrated = RULES, **given) -> Discovery:
    discovery = discover(memory, rules, start=START, **given)
    assert discovery is not None
    return discovery


def exemplars(discovery: Discovery) -> dict[int, int]:
    """How many of each group."""
    groups, counts = (discovery.exemplars // EACH).unique(return_counts=True)
    return dict(zip(groups.tolist(), counts.tolist(), strict=True))


def test_all_rules_together_keep_what_is_dense_and_object_like_and_recurs():
    memory = groups()
    discovery = found(memory)
    assert exemplars(discovery) == {GOOD: 8, MIXED: 4}
    assert (memory.objectness[discovery.exemplars] > 0.95).all()
    assert discovery.selected.tolist() == [MIXED, ONE_IMAGE, GOOD]
    assert discovery.rows.label.tolist() == [0] * 4 + [1] * 8  # the last cluster first
    assert torch.equal(discovery.rows.image, memory.image[discovery.exemplars])
    assert torch.equal(discovery.rows.box, memory.box[discovery.exemplars])


@pytest.mark.parametrize(
    ("selection", "selected", "expected"),
    [
        # some of the sparse group's pairs are close
        (Selection(density=False), {GOOD, SPARSE, ONE_IMAGE, MIXED}, {GOOD: 8, SPARSE: 6, MIXED: 4}),
        # the dim group passes, its members do not
        (Selection(objectness=False), {GOOD, DIM, ONE_IMAGE, MIXED}, {GOOD: 8, MIXED: 4}),
        (Selection(members=False), {GOOD, ONE_IMAGE, MIXED}, {GOOD: 8, MIXED: 8}),
        (Selection(pairs=False), {GOOD, ONE_IMAGE, MIXED}, {GOOD: 8, ONE_IMAGE: 8, MIXED: 4}),
        (Selection(False, False, False, False), set(range(5)), dict.fromkeys(range(5), 8)),
    ],
    ids=["density", "objectness", "members", "pairs", "all"],
)
def test_each_rule_can_be_left_out(selection, selected, expected):
    discovery = found(groups(), selection=selection)
    assert set(discovery.selected.tolist()) == selected
    assert exemplars(discovery) == expected


def test_official_empty_clusters_leave_no_rank_to_real_ones():
    memory = groups()
    memory.features[:EACH] = memory.features[0]
    start = torch.tensor([0, 1, SPARSE * EACH, DIM * EACH, MIXED * EACH])  # the second cluster stays empty
    rules = {"clusters": 5, "density_rank": 3}
    official, ours = (
        discover(memory, Schedule(**rules, official=way), start=start, selection=Selection(objectness=False))
        for way in (True, False)
    )
    assert (ours.clusters.sizes == 0).tolist() == [False, True, False, False, False]
    assert official.selected.tolist() == [0]
    assert ours.selected.tolist() == [4, 0]


def test_where_no_cluster_has_the_rank_all_are_dense():
    discovery = found(groups(), Schedule(clusters=5))
    assert discovery.thresholds.density == inf
    assert SPARSE in discovery.selected


def test_new_classes_follow_the_known_ones_until_none_is_free():
    memory, rules = groups(), Schedule(known=1000, clusters=5, density_rank=5)
    assert found(memory, rules, classes=3).rows.label.unique().tolist() == [3, 4]
    last = found(memory, rules, classes=4)
    assert last.rows.label.unique().tolist() == [4]
    assert exemplars(last) == {MIXED: 4}
    assert discover(memory, rules, classes=5) is None


def schedule(classes: int, boxes: int, highest: float = 1.0) -> tuple[float, ...]:
    memory = groups()
    memory.objectness[0] = highest
    rules = Schedule()
    clusters = cosine_kmeans(memory.features, 5, start=START)
    return *rules.thresholds(memory, clusters, classes, boxes)[1:], rules.mining_distance(boxes)


def test_thresholds_grow_stricter_as_the_paper_has_it():
    # C + 1 + M = 64 + 1 + 128 = 193
    assert schedule(0, 0) == pytest.approx((0.90, 0.95, 0.15, 0.15))
    assert schedule(10, 300) == pytest.approx((0.90 * 203 / 193, 0.98, 0.15 * 183 / 193, 0.135))
    assert schedule(100, 2000) == pytest.approx((0.99, 0.99, 0.15 * 93 / 193, 0.05))
    assert schedule(193, 10**5) == pytest.approx((0.99, 0.99, 0.01, 0.01))


def test_where_nothing_scores_high_the_best_of_the_memory_is_the_bar():
    memory = groups()
    memory.objectness.mul_(0.9)
    clusters = cosine_kmeans(memory.features, 5, start=START)
    assert Schedule().thresholds(memory, clusters, 0, 100).member_objectness == pytest.approx(0.892)


def test_nothing_to_do_is_none():
    memory = groups()
    nothing = memory.take(torch.zeros(0, dtype=torch.long))
    one_image = memory._replace(image=torch.zeros_like(memory.image))
    for rules in (RULES, Calibrated()):
        for empty in (None, nothing, one_image):
            assert discover(empty, rules) is None
        assert rules.state_dict().get("mean") is None


@pytest.mark.parametrize("rules", [Schedule(), Calibrated(Quantiles(clusters=128))])
def test_fewer_proposals_than_clusters_find_nothing_and_break_nothing(rules):
    discovery = discover(groups(), rules, generator=torch.Generator().manual_seed(0))
    assert len(discovery.clusters.sizes) == 5 * EACH
    assert len(discovery.rows.label) == 0


def test_features_that_are_not_finite_are_named():
    memory = groups()
    memory.features[4, 2] = float("nan")
    for rules in (RULES, Calibrated()):
        with pytest.raises(InputError, match="the features in the memory hold NaN or infinity in 1 of 40"):
            discover(memory, rules)


def test_the_generator_decides():
    runs = [discover(groups(), RULES, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    for one, other in zip(runs[0].rows, runs[1].rows, strict=True):
        assert torch.equal(one, other)


QUANTILES = Quantiles(clusters=5, pair=0.1, objectness=0.25, density=0.5)


def test_calibration_reads_its_thresholds_off_the_first_memory():
    memory, rules = groups(), Calibrated(QUANTILES)
    discovery = found(memory, rules)
    centred = memory.features - memory.features.mean(0)
    apart = 1 - F.cosine_similarity(centred[:, None], centred[None], dim=2)
    between = [float(apart[i, j]) for i in range(40) for j in range(i) if memory.image[i] != memory.image[j]]
    assert rules.distance == pytest.approx(np.quantile(between, 0.1), abs=1e-5)
    assert rules.objectness == pytest.approx(np.quantile(memory.objectness, 0.25))
    assert rules.density == discovery.clusters.distance.sort().values[2]
    assert discovery.thresholds == (rules.density, rules.objectness, rules.objectness, rules.distance)
    assert rules.mining_distance(10**6) == rules.distance


def test_calibration_is_kept_also_through_a_checkpoint(tmp_path):
    rules, resumed = Calibrated(QUANTILES), Calibrated(QUANTILES)
    first = found(groups(), rules).thresholds
    torch.save(rules.state_dict(), tmp_path / "rules.pt")
    resumed.load_state_dict(torch.load(tmp_path / "rules.pt", weights_only=True))
    later = groups()._replace(objectness=torch.rand(40), features=torch.rand(40, 16))
    for each in (rules, resumed):
        assert found(later, each, classes=2, pseudo_boxes=500).thresholds == first
    assert torch.equal(resumed.centred(later.features), rules.centred(later.features))


def test_calibrated_rules_do_not_see_what_all_features_share():
    memory = groups()
    shifted = memory._replace(features=memory.features + 5)
    plain, moved = (found(each, Calibrated(QUANTILES)) for each in (memory, shifted))
    assert torch.equal(plain.exemplars, moved.exemplars)
    assert len(plain.exemplars) > 0
    assert len(found(shifted, RULES, selection=Selection(density=False)).exemplars) != len(plain.exemplars)


def test_small_clusters_set_no_bound_on_density():
    memory = groups()
    few = memory.take(torch.cat([torch.arange(3) + EACH * group for group in range(5)]))
    rules = Calibrated(QUANTILES)
    assert len(discover(few, rules, start=torch.arange(5) * 3).selected) == 0
    mean = rules.mean
    assert len(found(memory, rules).selected) > 0
    assert rules.mean is mean
