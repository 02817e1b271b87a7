"""`cvpr21 evaluate ctrl_uda`: a checkpoint and a data root in, tables out."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from cvpr21lib import cli
from cvpr21lib.ctrl_uda import evaluate, label_maps
from cvpr21lib.ctrl_uda.model import CTRL
from cvpr21lib.errors import InputError


@pytest.fixture
def checkpoint(tmp_path):
    net = CTRL(7, width_div=64)
    for name, bias in net.head_dep.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.constant_(bias, 10.0)  # so that depth is somewhere in front of the camera
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_a_checkpoint_is_measured_class_by_class_and_in_depth(checkpoint, miniature_streets, capsys):
    root = miniature_streets(depth=True)
    words = [
        "evaluate",
        "ctrl_uda",
        str(checkpoint),
        "--data-root",
        str(root),
        "--resolution",
        "low",
        "--depth",
    ]
    assert cli.main([*words, "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "mIoU, 7 classes" in shown
    assert "2 images" in shown
    assert "abs_rel@80m" in shown
    assert all(name in shown for name in label_maps.CLASSES[7])


def test_what_no_experiment_has_is_refused(checkpoint, tmp_path):
    save_file(CTRL(16, width_div=64).state_dict(), tmp_path / "sixteen.safetensors")
    with pytest.raises(
        InputError, match="16 classes; there is no experiment on mapillary with these in full"
    ):
        evaluate.command(tmp_path / "sixteen.safetensors", tmp_path, "mapillary")
    with pytest.raises(InputError, match="mapillary has no depth"):
        evaluate.command(checkpoint, tmp_path, "mapillary", depth=True)
