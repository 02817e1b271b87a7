"""The demo's network and its trained start: small, whole, and made by the recipe that stands here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cvpr21lib import checkpoints, runs, scalars
from cvpr21lib.eopsn import small, start
from cvpr21lib.eopsn.model import Batch
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options
from cvpr21lib.scenes import unknown_objects

FIRST_LOSSES = {
    "loss_cls": (2.6183, 2.5753),
    "loss_void_neg": (0.9685, 0.9619),
    "loss_sem_seg": (2.0285, 1.6416),
    "loss_mask": (0.6932, 0.6930),
}
"""Of the first two steps of start 0."""


def losses(net: torch.nn.Module, scenes: list[unknown_objects.Scene]) -> dict[str, float]:
    batch = Batch(small.images(scenes), [(96, 96)] * len(scenes))
    with torch.no_grad():
        found = net(batch, [small.truth(scene) for scene in scenes]).losses
    return {name: float(value) for name, value in found.items()}


def test_the_network_has_half_a_million_parameters_and_maps_of_the_strides_it_names():
    net = small.network()
    assert sum(parameter.numel() for parameter in net.parameters()) == 540_474
    maps = net.trunk(torch.zeros(2, 3, 96, 96))
    assert {name: tuple(values.shape) for name, values in maps.items()} == {
        "p2": (2, 40, 24, 24),
        "p3": (2, 40, 12, 12),
        "p4": (2, 40, 6, 6),
    }
    assert dict(zip(net.config.rpn_levels, net.config.strides, strict=True)) == {"p2": 4, "p3": 8}


def test_what_is_known_of_a_scene_leaves_out_unknown_things_and_clutter():
    scene = unknown_objects.scene(0, 3)
    truth = small.truth(scene)
    assert len(truth.objects.boxes) == len(truth.masks) == len(scene.of_kind("known"))
    assert truth.objects.labels.max() < small.CONFIG.known
    void = (truth.semantic == small.CONFIG.void_label).numpy()
    np.testing.assert_array_equal(void, scene.void)
    image = small.images([scene])[0]
    assert (image.min() >= -0.5) & (image.max() <= 0.5)


def test_making_a_start_again_begins_as_it_did(tmp_path):
    """The whole training takes minutes; its first two steps are made again here."""
    options = Options(output_dir=tmp_path, max_steps=2, log_every=1, accelerator="cpu", progress=False)
    runs.run(start.recipe(options), options)
    for name, wanted in FIRST_LOSSES.items():
        assert scalars.read(tmp_path, name)[1][:2] == pytest.approx(wanted, rel=2e-3), name


def test_the_weights_are_kept_in_half_the_bits_and_give_the_same_losses(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = small.network().eval()
    path = tmp_path / "base.safetensors"
    start.write(path, net)
    assert path.stat().st_size < 1.2e6
    monkeypatch.setattr(small, "base_path", lambda seed: path)
    scenes = unknown_objects.scenes(5, 4)
    torch.manual_seed(1)
    expected = losses(net, scenes)
    torch.manual_seed(1)
    assert losses(small.load_base(0), scenes) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("seed", range(small.BASES))
def test_the_shipped_starts_know_the_scenes_that_they_were_trained_on(seed):
    path = small.base_path(seed)
    assert path.stat().st_size < 1.2e6
    net = small.load_base(seed)
    own = losses(net, unknown_objects.scenes(start.FIRST_WORLD + seed, 24))
    assert own["loss_cls"] < 0.1
    assert own["loss_void_neg"] < 0.1
    others = losses(net, unknown_objects.scenes(start.FIRST_WORLD + 500, 24))
    assert own["loss_cls"] < others["loss_cls"] < 1.5


def test_a_missing_or_foreign_start_is_refused_with_the_remedy(tmp_path, monkeypatch):
    path = tmp_path / "base-1.safetensors"
    monkeypatch.setattr(small, "base_path", lambda seed: path)
    with pytest.raises(
        InputError, match=r"base-1\.safetensors is not there.*cvpr21 run eopsn-start --seed 1"
    ):
        small.load_base(4)
    start.write(path, torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="do not fit PanopticFPN"):
        small.load_base(1)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="damaged"):
        small.load_base(1)


def test_starts_lie_beside_the_record_whatever_folder_one_is_in(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert (
        small.base_path(4) == Path(checkpoints.__file__).parents[1] / "book/records/eopsn/base-1.safetensors"
    )
