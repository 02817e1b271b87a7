"""Official pairs of files and our own single one: read by what they hold, and named when they are not it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import weights
from cvpr21lib.ppr10k.model import LightPredictor, Predictor, ResNet18Predictor, Retoucher

torch.set_num_threads(1)


def light(num_luts: int = 3, **settings) -> LightPredictor:
    torch.manual_seed(0)
    return LightPredictor(num_luts, **settings)


def small(num_luts: int = 3, **settings) -> LightPredictor:
    return light(num_luts, thumbnail=16, widths=(4, 8, 8), **settings)


def with_luts(predictor: Predictor, size: int = 5) -> Retoucher:
    network = Retoucher(predictor, size)
    nn.init.normal_(network.luts)
    return network.eval()


def official(folder: Path, network: Retoucher, first: int = 0, legacy: bool = True) -> tuple[Path, Path]:
    """The files that the official code would have written; LUTs count from `first`."""
    luts = {str(first + k): {"LUT": one.detach().clone()} for k, one in enumerate(network.luts)}
    paths = folder / "LUTs_9.pth", folder / "classifier_9.pth"
    for path, content in zip(paths, (luts, network.predictor.state_dict()), strict=True):
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return paths


def assert_same(one: Retoucher, other: Retoucher) -> None:
    image = torch.rand(2, 3, 21, 30, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(one(image), other(image))


# --- official files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predictor", "first"),
    [
        (lambda: light(3), 0),  # 3DLUT
        (lambda: light(3, unpaired=True), 0),
        (lambda: ResNet18Predictor(5), 1),  # PPR10K
        (lambda: light(5), 1),
        (lambda: small(2), 1),
        (lambda: small(4, unpaired=True), 0),
    ],
    ids=["light", "unpaired", "resnet18", "light of five", "small", "small unpaired"],
)
def test_official_pairs_load(tmp_path, predictor, first):
    network = with_luts(predictor())
    loaded = weights.load_official(*official(tmp_path, network, first))
    assert type(loaded.predictor) is type(network.predictor)
    assert loaded.predictor.thumbnail == network.predictor.thumbnail
    assert not loaded.training
    assert_same(loaded, network)


def test_legacy_files_with_cuda_storages_load_without_a_gpu(tmp_path, monkeypatch):
    network = with_luts(small())
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    paths = official(tmp_path, network)
    monkeypatch.undo()
    assert all(b"cuda:0" in path.read_bytes() for path in paths)
    loaded = weights.load_official(*paths)
    assert loaded.luts.device.type == "cpu"
    assert_same(loaded, network)


def test_ten_luts_and_more_keep_their_order(tmp_path):
    network = with_luts(small(12), size=2)
    assert_same(weights.load_official(*official(tmp_path, network, first=1)), network)


def test_files_of_parallel_training_and_of_todays_format_load(tmp_path):
    network = with_luts(small())
    luts, classifier = official(tmp_path, network, legacy=False)
    state = {f"module.{name}": value for name, value in network.predictor.state_dict().items()}
    torch.save(state, classifier)
    assert_same(weights.load_official(luts, classifier), network)


def test_half_precision_luts_become_float32(tmp_path):
    network = with_luts(small())
    network.luts.data = network.luts.data.half().float()
    luts, classifier = official(tmp_path, network)
    torch.save({str(k): {"LUT": one.half()} for k, one in enumerate(network.luts.detach())}, luts)
    assert_same(weights.load_official(luts, classifier), network)


def refuse(complaint: str, *paths: Path) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        weights.load_official(*paths)
    assert "\n" not in str(caught.value)


def test_swapped_files_are_told_apart(tmp_path):
    luts, classifier = official(tmp_path, with_luts(small()))
    refuse(r"classifier_9.pth holds a classifier\. Give the file of LUTs", classifier, luts)
    refuse(r"classifier_9.pth holds a classifier\.", classifier, classifier)
    refuse(r"LUTs_9.pth holds LUTs\. .* in their places", luts, luts)


def test_files_of_two_trainings_are_told_apart(tmp_path):
    (tmp_path / "five").mkdir()
    luts, _ = official(tmp_path, with_luts(small(3)))
    _, classifier = official(tmp_path / "five", with_luts(small(5)))
    refuse("predicts 5 weights but .*LUTs_9.pth holds 3 LUTs; take both files from one", luts, classifier)


@pytest.mark.parametrize("names", [("1", "3"), ("2", "3"), ("a", "b"), ("0", "2")])
def test_a_missing_lut_is_named(tmp_path, names):
    luts, classifier = official(tmp_path, with_luts(small(2)))
    torch.save({name: {"LUT": torch.zeros(3, 5, 5, 5)} for name in names}, luts)
    refuse(f"holds LUTs named {', '.join(names)}; they should count from 0 or from 1", luts, classifier)


@pytest.mark.parametrize(
    ("shapes", "complaint"),
    [
        ([(3, 5, 5, 5), (3, 4, 4, 4)], r"LUT 1 has the shape \(3, 4, 4, 4\)"),
        ([(3, 1, 1, 1)] * 2, r"LUT 0 has the shape \(3, 1, 1, 1\)"),
        ([(5, 5, 5, 3)] * 2, r"LUT 0 has the shape \(5, 5, 5, 3\); expected \(3, D, D, D\)"),
        ([(3, 5, 5, 4)] * 2, r"LUT 0 has the shape \(3, 5, 5, 4\)"),
        ([()] * 2, r"LUT 0 has the shape \(\)"),
    ],
)
def test_a_misshapen_lut_is_named(tmp_path, shapes, complaint):
    luts, classifier = official(tmp_path, with_luts(small(2)))
    torch.save({str(k): {"LUT": torch.zeros(shape)} for k, shape in enumerate(shapes)}, luts)
    refuse(complaint, luts, classifier)


def test_a_classifier_with_a_part_missing_is_named(tmp_path):
    network = with_luts(small(2))
    luts, classifier = official(tmp_path, network)
    state = network.predictor.state_dict()
    del state["model.3.bias"]
    torch.save(state, classifier)
    refuse(r"classifier_9.pth do not fit LightPredictor: 1 missing \(model.3.bias\)", luts, classifier)


def test_weights_of_another_network_are_named(tmp_path):
    luts, classifier = official(tmp_path, with_luts(small(2)))
    torch.save(nn.Linear(2, 3).state_dict(), classifier)
    refuse(r"does not hold a classifier .* named weight, bias.*look for classifier_", luts, classifier)
    torch.save(nn.Linear(2, 3).state_dict(), luts)
    refuse(r"LUTs_9.pth does not hold LUTs", luts, classifier)


@pytest.mark.parametrize("damaged", [0, 1], ids=["LUTs", "classifier"])
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "page", "code"])
def test_files_that_cannot_be_read_are_named(tmp_path, damaged, how):
    paths = official(tmp_path, with_luts(small(2)))
    path = paths[damaged]
    if how == "missing":
        path.unlink()
    elif how == "code":
        torch.save({"0": {"LUT": nn.Linear(2, 2)}}, path)
    else:
        path.write_bytes(
            {"empty": b"", "cut": path.read_bytes()[:600], "page": b"<!DOCTYPE html><title>Drive"}[how]
        )
    complaint = {
        "missing": "no such file",
        "empty": "is empty",
        "cut": "damaged or half-written",
        "page": "is a web page",
        "code": "could run code",
    }[how]
    refuse(f"{re.escape(str(path))}.*{complaint}|{complaint}.*{re.escape(str(path))}", *paths)


# --- our own file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_luts(small(3), size=9),
        lambda: with_luts(small(2, unpaired=True), size=2),
        lambda: with_luts(light(4, thumbnail=64, widths=(16, 32, 64, 64)), size=9),
        lambda: with_luts(ResNet18Predictor(5), size=4),
    ],
    ids=["small", "unpaired", "demo", "resnet18"],
)
def test_what_is_saved_loads_with_all_its_sizes(tmp_path, make):
    network = make()
    weights.save(tmp_path / "g.safetensors", network)
    loaded = weights.load(tmp_path / "g.safetensors")
    assert loaded.luts.shape == network.luts.shape
    assert not loaded.training
    assert_same(loaded, network)


def test_what_a_run_leaves_is_what_save_writes(tmp_path):
    network = with_luts(small())
    weights.save(tmp_path / "ours.safetensors", network)
    save_file(network.state_dict(), tmp_path / "run.safetensors")
    ours, run = load_file(tmp_path / "ours.safetensors"), load_file(tmp_path / "run.safetensors")
    assert ours.keys() == run.keys()
    assert_same(weights.load(tmp_path / "run.safetensors"), network)


def test_an_official_pair_loads_by_the_same_face(tmp_path):
    network = with_luts(small())
    luts, classifier = official(tmp_path, network)
    assert_same(weights.load(classifier, luts), network)


def test_half_of_a_pair_asks_for_the_other(tmp_path):
    network = with_luts(small())
    luts, classifier = official(tmp_path, network)
    for path, what in ((luts, "official LUTs"), (classifier, "an official classifier")):
        with pytest.raises(InputError, match=rf"{path.name} holds {what}\. Give .* an official pair"):
            weights.load(path)
    weights.save(tmp_path / "g.safetensors", network)
    refuse("g.safetensors holds a retoucher of ours", luts, tmp_path / "g.safetensors")


def test_another_networks_file_is_named(tmp_path):
    save_file(nn.Linear(2, 3).state_dict(), tmp_path / "g.safetensors")
    with pytest.raises(InputError, match=r"g.safetensors does not hold a retoucher .* named bias, weight"):
        weights.load(tmp_path / "g.safetensors")


def test_a_part_that_does_not_fit_is_named(tmp_path):
    network = with_luts(small(3))
    state = dict(network.state_dict()) | {"luts": torch.zeros(4, 3, 5, 5, 5)}
    save_file(state, tmp_path / "g.safetensors")
    with pytest.raises(InputError, match="luts is 4×3×5×5×5 there, 3×3×5×5×5 here"):
        weights.load(tmp_path / "g.safetensors")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere/g.safetensors cannot be written"):
        weights.save(tmp_path / "nowhere" / "g.safetensors", with_luts(small()))
