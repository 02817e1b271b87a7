"""The PrototypeNet's layout and its codes."""

from __future__ import annotations

import pytest
import torch

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan.prototype import PrototypeNet


@pytest.mark.parametrize(
    ("classes", "bits", "parameters"),
    [(21, 12, 2_204_705), (21, 48, 2_223_173), (38, 32, 2_293_318), (80, 32, 2_486_896)],
)
def test_official_sizes(classes, bits, parameters):
    with torch.device("meta"):
        net = PrototypeNet(classes, bits)
    assert sum(p.numel() for p in net.parameters()) == parameters
    layers = ("feature.0", "feature.2", "hashing.0", "classifier.0")
    assert list(net.state_dict()) == [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]


def test_ranges_and_codes():
    net = PrototypeNet(5, 8, hidden=16, features=7)
    made = net(torch.eye(5))
    assert made.feature.shape == (5, 7)
    assert made.output.abs().max() < 1
    assert ((made.label > 0) & (made.label < 1)).all()
    assert torch.equal(net.code(torch.eye(5)), made.output.sign())


def test_an_output_of_zero_is_a_bit_of_one():
    net = PrototypeNet(3, 4, hidden=8, features=6)
    torch.nn.init.zeros_(net.hashing[0].weight)
    torch.nn.init.zeros_(net.hashing[0].bias)
    assert net.code(torch.eye(3)).tolist() == [[1] * 4] * 3


def test_labels_of_other_classes_are_refused():
    with pytest.raises(InputError, match=r"\(1, 4\); expected \(N, 5\)"):
        PrototypeNet(5, 8, 16, 7)(torch.zeros(1, 4))
