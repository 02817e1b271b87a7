"""A notebook's parameters are checked by name and by value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from cvpr21lib.errors import InputError
from cvpr21lib.options import Options, from_parameters


@dataclass(frozen=True)
class Knobs:
    arch: str = "released"
    num_high: int = 3


def test_parameters_become_options_and_knobs():
    import numpy as module

    namespace = {
        "profile": "full", "data_root": "~/data", "seed": 3, "arch": "paper", "devices": 2,
        "In": [""], "Out": {}, "_i": "", "module": module, "num_high": module, "__name__": "__main__",
        "Knobs": Knobs,
    }  # fmt: skip
    options, knobs = from_parameters(namespace, Knobs)
    assert options == Options(profile="full", data_root=Path.home() / "data", seed=3, devices=2)
    assert knobs == Knobs(arch="paper")


def test_a_misspelt_parameter_is_named_with_the_nearest_right_one():
    with pytest.raises(
        InputError, match=r"no parameter 'num_hihg'; did you mean num_high\?.*it knows .*arch"
    ):
        from_parameters({"num_hihg": 4}, Knobs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "ful"}, r"profile is 'ful'; it can be \"demo\" or \"full\""),
        ({"devices": 0}, "devices is 0; it must be a whole number of at least 1"),
        ({"devices": "4"}, "devices is '4'"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"accelerator": "gpu0"}, "accelerator is 'gpu0'"),
    ],
)
def test_values_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        Options(**changes)


def test_runs_go_below_the_folder_that_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.setenv("CVPR21_RUNS", str(tmp_path))
    assert Options(seed=4).folder("lptn", "arm") == tmp_path / "lptn" / "demo" / "arm-seed4"
    assert Options(output_dir=Path("mine")).folder("lptn", "arm") == Path("mine")
