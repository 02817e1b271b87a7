"""The official schedules drop when the official code drops."""

from __future__ import annotations

import pytest

from cvpr21lib.prosgan import schedules


def test_hash_nets_drop_in_epochs_34_and_67():
    factors = [schedules.hash_net(epoch) for epoch in range(100)]
    assert factors == pytest.approx([1] * 34 + [0.1] * 33 + [0.01] * 33)


def test_prototype_nets_drop_after_15000_and_22500_steps():
    at = {14_999: 1, 15_000: 0.1, 22_499: 0.1, 22_500: 0.01}
    assert {step: pytest.approx(schedules.prototype_net(step)) for step in at} == at


def test_the_generators_rate_falls_to_the_last_epoch_and_never_to_zero():
    factors = [schedules.gan(epoch) for epoch in range(100)]
    assert factors[:50] == [1] * 50
    assert factors[50] == pytest.approx(50 / 51)
    assert factors[99] == pytest.approx(1 / 51)


def test_schedules_of_a_few_epochs_are_defined():
    assert [schedules.hash_net(epoch, 2) for epoch in range(2)] == [1, 1]
    assert schedules.gan(0, 0, 1) == 0.5
