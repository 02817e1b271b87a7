"""EOPSN and its baselines train on COCO as published, find classes, and can be stopped and continued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from cvpr21lib import record, runs, scalars
from cvpr21lib.eopsn import data, demo, mining, open_set, trained, weights
from cvpr21lib.eopsn import recipe as eopsn
from cvpr21lib.eopsn.clustering import Schedule, Selection
from cvpr21lib.eopsn.memory import VoidProposals
from cvpr21lib.eopsn.open_set import AsIs, OpenSet
from cvpr21lib.eopsn.pseudo_truth import Rows, absolute
from cvpr21lib.eopsn.recipe import BASELINE, EOPSN, Knobs, OpenSetCOCO
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.sampling import Batches, Draw, mix

Make = Callable[..., Path]
SMALL: dict[str, Any] = {"weights": "random", "width_div": 16, "batch_size": 2, "side": 64}
FINDS: dict[str, Any] = SMALL | {
    "batch_size": 3,  # of two images at least that have void, as one of the five has none
    "side": 160,  # so that void proposals are large enough
    "interval": 1,
    "clusters": 4,
    "density": False,
    "objectness": False,
    "pair_distance": 1.0,
    "mine_distance": 1.0,
}
"""An untrained network whose void proposals become classes at the first clustering."""


def options(folder: Path, root: Path, **changes: Any) -> Options:
    usual = {"profile": "full", "workers": 0, "max_steps": 2, "accelerator": "cpu", "log_every": 1}
    return Options(output_dir=folder, data_root=root, progress=False, **(usual | changes))


def recipe(options: Options, **knobs: Any) -> OpenSetCOCO:
    made = eopsn.recipe(options, Knobs(**knobs))
    assert isinstance(made, OpenSetCOCO)
    return made


def run(options: Options, **knobs: Any) -> record.Record:
    return runs.run(recipe(options, **knobs), options)


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def root(miniature_coco2017: Make) -> Path:
    return miniature_coco2017(val=1)


# --- the whole run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["background", "ignorance", "suppression", "train"])
def test_two_steps_of_every_treatment_of_void_end_in_a_record(tmp_path, root, method):
    made = run(options(tmp_path / "run", root), method=method, k=10, **SMALL)
    assert (made.name, made.steps) == (f"{method}-K10", 2)
    groups = [f"{group}/{number}" for group in ("known", "unknown", "stuff") for number in ("pq", "sq", "rq")]
    assert {*groups, "known_things/pq", "unknown/recall"} <= made.numbers.keys()
    logged = {row.split(",")[1] for row in (tmp_path / "run/scalars.csv").read_text().splitlines()}
    assert ("loss_void_neg" in logged) == (method == "suppression")
    assert {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc", "loss_sem_seg"} <= logged
    saved = runs.weights(recipe(options(tmp_path, root), method=method, k=10, **SMALL), tmp_path / "run")
    assert len(saved["net"].box_head.cls_score.weight) == (74 if method == "train" else 73)


def test_eopsn_discovers_classes_and_the_log_says_what_they_are(tmp_path, root):
    made = run(options(tmp_path / "run", root), **FINDS)
    steps, labels = scalars.read(tmp_path / "run", "labels")
    assert steps[:2] == [1, 2]
    assert labels[0] == 0 < labels[1] <= 4
    assert scalars.read(tmp_path / "run", "exemplars")[1][1] >= 2 * labels[1]
    for name in ("purity", "exemplar_recall"):
        assert 0 <= scalars.read(tmp_path / "run", name)[1][0] <= 100
    found = runs.weights(recipe(options(tmp_path, root), **FINDS), tmp_path / "run")
    table = found["search"].table
    assert made.numbers["labels"] == table.classes == labels[1]
    assert made.numbers["exemplars"] == len(table)
    assert {"exemplar_recall/car", "exemplars/nothing", "purity/0", "class/0"} <= made.numbers.keys()
    weight = found["net"].class_weight
    assert weight[:65].tolist() == [1] * 65
    assert weight[65:].sum() == labels[1], "only discovered classes count in the loss"


def test_a_run_that_was_killed_between_two_clusterings_finds_the_same(tmp_path, root, monkeypatch):
    knobs, loss = FINDS | {"interval": 2}, OpenSetCOCO._loss
    whole = run(options(tmp_path / "whole", root, max_steps=5), **knobs)

    def killed(self: OpenSetCOCO, step: runs.Step) -> runs.Loss:
        if step.number == 3:  # one after a clustering, one before the next
            raise KilledError
        return loss(self, step)

    parts = options(tmp_path / "parts", root, max_steps=5, checkpoint_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(OpenSetCOCO, "_loss", killed)
        with pytest.raises(KilledError):
            run(parts, **knobs)
    again = run(parts, **knobs)
    one, two = (
        runs.weights(recipe(options(tmp_path, root), **knobs), tmp_path / part) for part in ("whole", "parts")
    )
    assert len(one["search"].table) > 0
    for first, second in zip(one["search"].table.rows, two["search"].table.rows, strict=True):
        assert torch.equal(first, second)
    assert len(one["search"].memory) == len(two["search"].memory) > 0
    for name, value in one["net"].state_dict().items():
        assert torch.equal(value, two["net"].state_dict()[name]), name
    assert again.numbers == whole.numbers


def test_without_cocos_own_instances_the_log_counts_but_does_not_judge(tmp_path, root):
    (root / "COCO2017/annotations/instances_train2017.json").unlink()
    made = run(options(tmp_path / "run", root), **FINDS)
    assert made.numbers["labels"] > 0
    assert "purity" not in made.numbers


def test_mixed_precision_and_micro_batches_discover_classes_too(tmp_path, root):
    here = options(tmp_path / "run", root, precision="bf16-mixed", accumulate=2)
    assert run(here, **FINDS | {"batch_size": 4}).numbers["labels"] > 0


# --- many processes ---------------------------------------------------------------------------------------


def test_two_processes_discover_together_and_begin_with_the_mean_of_what_each_sees(tmp_path, root):
    """Proposals to train on are drawn in each process by itself; the semantic loss knows no such draw."""
    here = options(tmp_path / "two", root, devices=2)
    knobs = FINDS | {"batch_size": 4}
    assert run(here, **knobs).numbers["labels"] > 0
    alone = recipe(here, **knobs)
    torch.default_generator.manual_seed(mix(0, "networks"))
    net, losses = alone.networks()["net"].train(), []
    for rank in range(2):
        draws = next(iter(Batches(len(alone.training), 2, seed=0, last=1, rank=rank, world=2)))
        seen = data.collate([alone.training[draw] for draw in draws])
        losses.append(net(seen.batch, seen.truths).losses["loss_sem_seg"].item())
    logged = scalars.read(tmp_path / "two", "loss_sem_seg")[1][0]
    assert logged == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_every_process_has_all_that_any_of_them_found(tmp_path):
    mp.start_processes(_process, (tmp_path,), nprocs=2, start_method="fork")
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.equal(*(state["before"] for state in states))
    assert torch.equal(*(state["after"] for state in states))
    found = open_search()
    found.set_extra_state(states[0]["before"])
    assert found.table.rows.image.tolist() == [0, 1], "in order of rank"
    assert found.memory.content().image.unique().tolist() == [2, 3, 4, 5]
    found.set_extra_state(states[0]["after"])
    assert len(found.memory) == 0
    assert found.table.classes > 1
    assert found.table.merged == len(found.table)


def _process(rank: int, folder: Path) -> None:
    """One of two: it finds a box, remembers void proposals of two images, and helps to cluster."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    found, cpu = open_search(), torch.device("cpu")
    found.share(rows([rank]), cpu)
    generator = torch.Generator().manual_seed(rank)
    void = [proposals(2 + 2 * rank + i, generator) for i in range(2)]
    found.memory.collect(void, [torch.full((3,), -1)] * 2)
    before = found.get_extra_state()
    found.begin(1, 1, LOOSE, cpu)
    torch.save({"before": before, "after": found.get_extra_state()}, folder / f"{rank}.pt")
    dist.destroy_process_group()


LOOSE = Selection(density=False, objectness=False, members=False)


def open_search() -> OpenSet:
    return OpenSet(range(8), Schedule(known=3, clusters=4, pair_distance=2.0), sample=20)


def rows(images: Sequence[int]) -> Rows:
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5]]).repeat(len(images), 1)
    return Rows(torch.tensor(images), torch.zeros(len(images), dtype=torch.long), boxes)


def proposals(place: int, generator: torch.Generator) -> VoidProposals:
    boxes = torch.tensor([[0.0, 0, 50, 50], [60, 0, 110, 50], [120, 0, 170, 50]])
    return VoidProposals(
        place, boxes, torch.zeros(3), torch.rand(3, 6, generator=generator), (64, 200), flipped=False
    )


# --- a step -----------------------------------------------------------------------------------------------


def test_a_step_of_several_micro_batches_clusters_once():
    found, cpu = open_search(), torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 3):
        for part in range(2):
            found.begin(step, 2, LOOSE, cpu)
            images = [proposals(2 * part + i, generator) for i in range(2)]
            found.memory.collect(images, [torch.full((3,), -1)] * 2)
    assert found.table.classes > 0
    assert len(found.memory) == 12, "both parts of step 2, which the clustering before it did not see"


def test_official_bugs_are_asked_for_in_all_places_at_once(tmp_path, root):
    for official in (False, True):
        found = recipe(options(tmp_path, root), **SMALL, official=official).networks()["search"]
        assert [part.official for part in (found.table, found.memory, found.rules)] == [official] * 3


def test_thresholds_go_by_the_count_of_every_hundredth_step():
    found, cpu = open_search(), torch.device("cpu")
    found.share(rows([0, 1]), cpu)
    counts = []
    for step in (99, 100, 101):
        found.begin(step, 1000, LOOSE, cpu)
        counts.append(found.table.merged)
        found.share(rows([step - 97]), cpu)
    assert counts == [0, 3, 3]


def test_the_exemplars_of_another_image_bring_in_their_look_alikes(tmp_path, root):
    here = recipe(options(tmp_path, root), **FINDS)
    torch.manual_seed(0)
    parts = here.networks()
    net, found = parts["net"].train(), parts["search"]
    found.share(rows([3]), torch.device("cpu"))
    batch = data.collate([here.training[Draw(place, place)] for place in (0, 1)])
    asked: list[int] = []

    def another(place: int) -> data.Example:
        asked.append(place)
        return here.training[Draw(place, 1)]

    before = torch.default_generator.get_state()
    open_set.learn(net, found, batch, another, mining=False)
    assert len(found.table) == 1
    torch.default_generator.set_state(before)
    open_set.learn(net, found, batch, another)
    assert asked == [3, 3]
    assert set(found.table.rows.image.tolist()) == {0, 1, 3}
    assert set(found.table.rows.label.tolist()) == {0}
    mined = [absolute(found.table.of(place).box, batch.batch.sizes[place]) for place in (0, 1)]
    assert all(len(boxes) >= 1 and (boxes >= 0).all() for boxes in mined)


def test_the_features_of_exemplars_are_those_of_their_own_image(tmp_path, root, monkeypatch):
    here = recipe(options(tmp_path, root), **FINDS)
    net, found = here.networks()["net"].train(), open_search()
    found.share(rows([3]), torch.device("cpu"))
    batch, other = data.collate([here.training[Draw(0, 0)]]), here.training[Draw(3, 5)]
    seen: list[Tensor] = []

    def mine(features: Tensor, *others: Any) -> Any:
        seen.append(features)
        return mining.mine(features, *others)

    monkeypatch.setattr(open_set, "mine", mine)
    open_set.learn(net, found, batch, lambda place: other)
    boxes = absolute(rows([3]).box, other.truth.semantic.shape, other.flipped)
    with torch.no_grad():
        maps = net.trunk(batch.plus(other).batch.images[1:])
        expected = net.box_output(maps, [boxes]).features
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)
    assert not net.trunk._forward_hooks


def test_fabric_does_not_round_the_boxes_of_a_truth(tmp_path, root):
    example = recipe(options(tmp_path, root), **SMALL).training[Draw(0, 0)]
    images, truths = MixedPrecision("bf16-mixed", "cpu").convert_input((example.image, AsIs([example.truth])))
    assert images.dtype == torch.bfloat16
    assert truths[0].objects.boxes.dtype == torch.float32


def test_fabric_moves_a_batch_to_its_device_whole(tmp_path, root):
    training = recipe(options(tmp_path, root), **SMALL).training
    batch = data.collate([training[Draw(place, 0)] for place in (0, 1)])
    moved = move_data_to_device(batch, torch.device("meta"))
    tensors = [moved.batch.images, *(truth.semantic for truth in moved.truths)]
    tensors += [column for truth in moved.truths for column in truth.objects]
    assert all(tensor.is_meta for tensor in tensors)
    assert moved.batch.sizes == batch.batch.sizes


# --- the recipe -------------------------------------------------------------------------------------------


def test_the_recipes_are_the_papers():
    assert (BASELINE.steps, BASELINE.batch_size, BASELINE.lr) == (45_000, 32, 0.04)
    assert (BASELINE.milestones, BASELINE.warmup) == ((30_000, 40_000), 1000)
    assert (EOPSN.steps, EOPSN.batch_size, EOPSN.lr, EOPSN.milestones) == (30_000, 32, 4e-4, ())
    for settings in (BASELINE, EOPSN):
        assert (settings.momentum, settings.weight_decay) == (0.9, 1e-4)
    assert (EOPSN.clusters, EOPSN.interval, EOPSN.remembered) == (128, 200, 20)
    assert (EOPSN.cluster_objectness, EOPSN.member_objectness) == (0.90, 0.95)
    assert (EOPSN.pair_distance, EOPSN.mine_distance) == (0.15, 0.15)
    assert int(EOPSN.density_rank * EOPSN.clusters) + 1 == Schedule().density_rank == 13
    assert EOPSN.augmentation.sides == (640, 672, 704, 736, 768, 800)


@pytest.mark.parametrize(("k", "known"), [(5, 76), (10, 72), (20, 64)])
def test_logits_are_those_of_the_known_things_and_what_the_method_adds(k, known):
    for method, logits in (("suppression", known + 1), ("train", known + 2), ("eopsn", known + 129)):
        assert trained.config(method, k).logits == logits


def test_the_rate_grows_for_1000_steps_and_falls_at_the_milestones():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.04)
    factor = eopsn.warmup_multistep(optimizer, 1000, (30_000, 40_000)).lr_lambdas[0]
    at = {0: 0.001, 500: 0.5005, 1000: 1, 29_999: 1, 30_000: 0.1, 39_999: 0.1, 40_000: 0.01}
    assert {step: factor(step) for step in at} == pytest.approx(at)


def test_the_rate_follows_the_batch_unless_it_is_given(tmp_path, root):
    here = options(tmp_path, root)
    assert recipe(here, **SMALL | {"batch_size": 8}).chosen.lr == pytest.approx(1e-4)
    assert recipe(here, method="train", **SMALL | {"batch_size": 8}).chosen.lr == pytest.approx(0.01)
    assert recipe(here, **SMALL, lr=0.5).chosen.lr == 0.5


def test_normalisations_do_not_decay_and_frozen_weights_are_not_trained(tmp_path, root):
    here = recipe(options(tmp_path, root), method="suppression", **SMALL)
    networks = here.networks()
    decaying, others = here.optimizers(networks)["net"].param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (1e-4, 0)
    names = {id(parameter): name for name, parameter in networks["net"].named_parameters()}
    assert all(names[id(each)].startswith("semantic_head.p") for each in others["params"])
    assert len(others["params"]) == 2 * 7
    trained_names = {names[id(each)] for each in decaying["params"] + others["params"]}
    frozen = set(names.values()) - trained_names
    assert frozen
    assert all(name.startswith(("trunk.body.conv1", "trunk.body.layer1")) for name in frozen)


def test_the_demo_is_reached_through_the_same_door():
    for arm in demo.ARMS.values():
        assert eopsn.recipe(Options(), Knobs(**vars(arm))) == demo.recipe(Options(), arm)


# --- where it starts --------------------------------------------------------------------------------------


@pytest.fixture
def suppressed(tmp_path: Path, root: Path) -> Callable[..., Path]:
    """Makes the file that a run leaves, or that the official code would."""

    def make(k: int = 20, method: str = "suppression", official: bool = False) -> Path:
        torch.manual_seed(1)
        net: Any = recipe(options(tmp_path, root), method=method, k=k, **SMALL).networks()["net"]
        path = tmp_path / f"{method}{k}{official}.pth"
        torch.save({"model": weights.to_official(net)} if official else net.state_dict(), path)
        return path

    return make


@pytest.mark.parametrize("official", [False, True])
def test_eopsn_starts_from_what_suppression_left_with_new_logits_at_zero(
    tmp_path, root, suppressed, official
):
    path = suppressed(official=official)
    here = recipe(options(tmp_path, root), **SMALL | {"weights": str(path)})
    assert here.settings()["weights"].startswith(f"{path.name} (sha256 ")
    net = here.networks()["net"]
    before: dict[str, Tensor] = torch.load(suppressed(), weights_only=True)
    for name, value in before.items():
        there = net.state_dict()[name]
        torch.testing.assert_close(there[: len(value)] if value.ndim else there, value)
    assert len(net.box_head.cls_score.weight) == 193
    assert not net.box_head.cls_score.weight[65:].any()
    assert not net.class_weight[65:].any()


def test_a_start_that_the_official_converter_widened_is_the_same_start(tmp_path, root, suppressed):
    narrow = suppressed(official=True)
    state = torch.load(narrow, weights_only=True)["model"]
    for name in ("weight", "bias"):
        value = state[f"roi_heads.box_predictor.cls_score.{name}"]
        new = value.new_zeros(128, *value.shape[1:])
        state[f"roi_heads.box_predictor.cls_score.{name}"] = torch.cat([value, new])
    state[weights.CLASS_WEIGHT] = torch.tensor([1.0] * 65 + [0.0] * 128)
    torch.save({"model": state}, tmp_path / "wide.pth")
    one, two = (
        recipe(options(tmp_path, root), **SMALL | {"weights": str(path)}).networks()["net"].state_dict()
        for path in (narrow, tmp_path / "wide.pth")
    )
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 10}, r"73 logits .* as void suppression with K = 10; expected 65, .* with K = 20"),
        ({"method": "train"}, r"66 logits per box, as void train with K = 20; expected 65, for void supp"),
        ({"method": "ignorance"}, r"do not fit PanopticFPN.*semantic_head.predictor.weight"),
    ],
)
def test_weights_of_another_k_or_method_are_refused_before_anything_runs(
    tmp_path, root, suppressed, wrong, message
):
    path = suppressed(**wrong)
    with pytest.raises(InputError, match=message):
        recipe(options(tmp_path, root), **SMALL | {"weights": str(path)})


def test_a_file_of_something_else_is_refused(tmp_path, root):
    torch.save({"model": {"layer.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other.pth holds no weights of a panoptic network"):
        recipe(options(tmp_path, root), **SMALL | {"weights": str(tmp_path / "other.pth")})


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"method": "void"}, "method is 'void'; it can be background, ignorance, suppression, train, eopsn"),
        ({"k": 15}, "k is 15; it can be 5, 10, 20"),
        ({"interval": 0}, "interval is 0; it must be above 0"),
        ({"pair_distance": 1.5}, "pair_distance is 1.5; it must be in"),
        ({"cluster_objectness": -0.1}, "cluster_objectness is -0.1"),
        ({"width_div": 5}, "width_div is 5; it must be a divisor of 64"),
        ({"weights": None}, "weights is not set: EOPSN starts from what void suppression left"),
        ({"weights": "nowhere.pth"}, "there are no weights at nowhere.pth"),
        ({"weights": None, "method": "train"}, r"there are no weights at .*R-50.pkl"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(tmp_path, root, knobs, message):
    with pytest.raises(InputError, match=message):
        recipe(options(tmp_path, root), **SMALL | knobs)


def test_missing_ground_truth_of_the_test_is_named_before_the_training(tmp_path, root):
    path = next((root / "COCO2017/annotations/panoptic_val2017").glob("*.png"))
    path.unlink()
    with pytest.raises(InputError, match=f"1 of 2 panoptic annotations are missing in .*: {path.name}"):
        recipe(options(tmp_path, root), **SMALL)


def test_missing_data_are_named_with_their_remedy(tmp_path):
    with pytest.raises(InputError, match=r"COCO2017 was not found.*data_scripts.coco_panoptic"):
        recipe(options(tmp_path, tmp_path / "nothing"), **SMALL)


def test_another_start_in_the_same_folder_is_another_run(tmp_path, root, suppressed):
    run(options(tmp_path / "run", root, max_steps=1), **SMALL)
    with pytest.raises(InputError, match=r"other settings .*weights"):
        run(options(tmp_path / "run", root, max_steps=1), **SMALL | {"weights": str(suppressed())})
