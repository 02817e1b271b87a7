from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import nn

from cvpr21lib.ctrl_uda import pseudo_labels
from cvpr21lib.ctrl_uda.label_maps import PALETTES
from cvpr21lib.errors import InputError

torch.set_num_threads(1)

NAMES = ["aachen/one", "aachen/two", "bochum/three"]


class Toy(nn.Module):
    """Seven classes from a picture's colours, at half of its size."""

    def __init__(self, seed: int = 0, classes: int = 7) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Conv2d(3, classes, 2, stride=2)
        self.calls = 0

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, None]:
        assert not self.training
        self.calls += 1
        return 20 * self.head(image), None


def image(name: str) -> torch.Tensor:
    return torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(NAMES.index(name)))


def make(root: Path, network: nn.Module, **changed: object) -> Path:
    given = {"names": NAMES, "image": image, "fabric": Fabric(accelerator="cpu"), "progress": False}
    return pseudo_labels.make(root, network, **given | changed)


def test_sure_pixels_keep_their_class_and_all_others_become_void():
    probability = torch.tensor([[0.9001, 0.0999], [0.8999, 0.1001], [0.02, 0.98], [0.5, 0.5]])
    logits = probability.log().T[None, :, None]
    assert pseudo_labels.confident(logits, (1, 4)).tolist() == [[[0, 255, 1, 255]]]
    assert pseudo_labels.confident(logits, (1, 4), threshold=0.5).tolist() == [[[0, 0, 1, 0]]]


def test_a_probability_of_exactly_the_threshold_is_enough():
    assert pseudo_labels.confident(torch.zeros(1, 2, 1, 1), (1, 1), threshold=0.5).item() == 0
    assert pseudo_labels.confident(torch.zeros(1, 4, 1, 1), (1, 1), threshold=0.2501).item() == 255


def test_every_image_of_a_batch_is_labelled():
    logits = 5 * torch.randn(3, 7, 4, 5, generator=torch.Generator().manual_seed(0))
    together = pseudo_labels.confident(logits, (13, 17))
    assert together.shape == (3, 13, 17)
    for index in range(3):
        assert torch.equal(pseudo_labels.confident(logits[index : index + 1], (13, 17))[0], together[index])
    assert 0 < (together == 255).float().mean() < 1


@pytest.mark.parametrize("threshold", [0.0, -1, 1.01, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(InputError, match="expected a probability"):
        pseudo_labels.confident(torch.zeros(1, 2, 1, 1), (1, 1), threshold=threshold)


def test_labels_are_what_the_network_is_sure_of(tmp_path):
    network = Toy().train()
    folder = make(tmp_path / "labels", network)
    assert network.training
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")) == [
        f"{name}.png" for name in NAMES
    ]
    for name in NAMES:
        expected = pseudo_labels.confident(network.eval()(image(name)[None])[0], (12, 16))[0]
        np.testing.assert_array_equal(pseudo_labels.read(folder, name, 7), expected)
        assert 0 < (expected == 255).float().mean() < 1


@pytest.mark.parametrize("classes", [7, 16])
def test_files_are_palette_pngs_in_the_colours_of_cityscapes(tmp_path, classes):
    folder = make(tmp_path, Toy(classes=classes))
    with Image.open(folder / f"{NAMES[0]}.png") as picture:
        assert (picture.mode, picture.format) == ("P", "PNG")
        shown, label = np.asarray(picture.convert("RGB")), np.asarray(picture)
    sure = label != 255
    np.testing.assert_array_equal(shown[sure], PALETTES[classes][label[sure]])
    assert not shown[~sure].any()


def test_a_real_size_takes_kilobytes(tmp_path):
    label = np.kron(np.random.default_rng(0).integers(0, 7, (16, 32)), np.ones((32, 32))).astype(np.uint8)
    pseudo_labels.write(tmp_path / "a.png", label, 7, "x")
    assert (tmp_path / "a.png").stat().st_size < label.size / 40


def test_the_same_model_does_not_work_twice_and_another_makes_its_own(tmp_path):
    network = Toy()
    folder = make(tmp_path, network)
    assert network.calls == 3
    assert make(tmp_path, network) == folder
    assert network.calls == 3
    others = {
        make(tmp_path, Toy(seed=1)),
        make(tmp_path, network, threshold=0.8),
        make(tmp_path, network, names=NAMES[:2]),
        make(tmp_path, network, settings={"size": (512, 1024)}),
        folder,
    }
    assert len(others) == 5
    assert all(each.is_dir() for each in others)


def test_an_interrupted_call_leaves_no_folder_and_the_next_one_continues(tmp_path):
    def stopped(name: str) -> torch.Tensor:
        if name == NAMES[1]:
            raise KeyboardInterrupt
        return image(name)

    network = Toy()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, network, image=stopped)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    folder = make(tmp_path, network)
    assert network.calls == 3  # the first image was not labelled again
    assert list(tmp_path.iterdir()) == [folder]
    fresh = make(tmp_path / "fresh", network)
    for name in NAMES:
        np.testing.assert_array_equal(pseudo_labels.read(folder, name, 7), pseudo_labels.read(fresh, name, 7))


def test_a_label_of_another_model_is_refused(tmp_path):
    mine, other = make(tmp_path, Toy()), make(tmp_path, Toy(seed=1))
    (other / f"{NAMES[0]}.png").replace(mine / f"{NAMES[0]}.png")
    with pytest.raises(InputError, match=f"was made by {other.name}, not by {mine.name}"):
        pseudo_labels.read(mine, NAMES[0], 7)
    Image.new("L", (16, 12)).save(mine / f"{NAMES[1]}.png")
    with pytest.raises(InputError, match="was made by an unknown model"):
        pseudo_labels.read(mine, NAMES[1], 7)


def test_missing_damaged_and_foreign_labels_are_named(tmp_path):
    folder = make(tmp_path, Toy())
    with pytest.raises(InputError, match=r"no pseudo-label .*four\.png"):
        pseudo_labels.read(folder, "bochum/four", 7)
    with pytest.raises(InputError, match="expected the classes 0 to 1"):
        pseudo_labels.read(folder, NAMES[0], 2)
    path = folder / f"{NAMES[2]}.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"three\.png is damaged or cut short"):
        pseudo_labels.read(folder, NAMES[2], 7)


@pytest.mark.parametrize("name", ["../outside", "/outside", "aachen/../../outside"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    with pytest.raises(InputError, match="inside its folder"):
        make(tmp_path, Toy(), names=[name])
    assert not (tmp_path.parent / "outside.png").exists()


def test_the_fingerprint_is_of_weights_and_buffers():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = pseudo_labels.fingerprint(network)
    assert pseudo_labels.fingerprint(network.eval().train()) == before
    network(torch.randn(2, 3, 4, 4))  # moves the running statistics
    after = pseudo_labels.fingerprint(network)
    assert after != before
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] += 1e-6
    assert pseudo_labels.fingerprint(network) not in (before, after)
