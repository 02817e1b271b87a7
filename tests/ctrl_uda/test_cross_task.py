from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from cvpr21lib.ctrl_uda import cross_task
from cvpr21lib.ctrl_uda.cross_task import bins, joint_map, quantise, self_information
from cvpr21lib.errors import InputError
from tests.ctrl_uda import literal_maps

torch.set_num_threads(1)

KINDS = pytest.mark.parametrize("kind", ["SID", "SID2", "log"])


def maps(classes: int = 5, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    random = {"generator": generator, "dtype": dtype}
    return {
        "semantic": 3 * torch.randn(2, classes, 7, 6, **random),
        "depth": (6 * torch.rand(2, 1, 7, 6, **random)).exp(),
        "refined": 3 * torch.randn(2, classes, 7, 6, **random),
    }


def gradients(out: torch.Tensor, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=out.dtype)
    return torch.autograd.grad(out, list(given.values()), weight)


@pytest.mark.parametrize(
    ("dtype", "forward", "backward"), [(torch.float32, 1e-6, 1e-5), (torch.float64, 1e-14, 1e-12)]
)
@pytest.mark.parametrize(("kind", "k", "classes"), [("SID", 15, 16), ("SID2", 8, 7), ("SID", 3, 2)])
def test_the_fast_map_is_the_official_sequence(kind, k, classes, dtype, forward, backward):
    given = {name: part.requires_grad_() for name, part in maps(classes, dtype).items()}
    chosen = bins(kind, k)
    ours, theirs = joint_map(**given, bins=chosen), literal_maps.joint_map(*given.values(), chosen.inverse)
    assert ours.shape == (2, 2 * classes + k, 7, 6)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=forward)
    for mine, official in zip(gradients(ours, given), gradients(theirs, given), strict=True):
        torch.testing.assert_close(mine, official, rtol=backward, atol=backward)


@KINDS
def test_the_three_maps_stand_in_their_order_and_any_may_be_left_out(kind):
    given, chosen = maps(), bins(kind, 6)
    each = {
        "semantic": self_information(given["semantic"].softmax(1)),
        "depth": self_information(quantise(given["depth"], chosen)),
        "refined": self_information(given["refined"].softmax(1)),
    }
    for size in (1, 2, 3):
        for names in itertools.combinations(given, size):
            found = joint_map(**{name: given[name] for name in names}, bins=chosen)
            torch.testing.assert_close(found, torch.cat([each[name] for name in names], 1), rtol=0, atol=1e-6)


@KINDS
def test_gradients_are_right(kind):
    given = {name: part.requires_grad_() for name, part in maps(3, torch.float64).items()}
    given["depth"].data[0, 0, 0] = torch.tensor([0.0, -5, 1.01, 2, 400, 650])
    if kind == "log":  # which has a corner where it stops to tell depths apart, and is flat on both sides
        given["depth"].data[0, 0, 0, :2] = -5
    chosen = bins(kind, 4)
    assert torch.autograd.gradcheck(
        lambda p, d, r: joint_map(p, d, r, chosen), tuple(given.values()), eps=1e-6, atol=1e-5
    )


def test_gradients_flow_to_what_needs_them_alone():
    given = maps()
    given["depth"].requires_grad_()
    joint_map(**given).sum().backward()
    assert given["depth"].grad.abs().sum() > 0
    assert given["semantic"].grad is None
    assert not joint_map(**{name: part.detach() for name, part in given.items()}).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@KINDS
def test_no_depth_and_no_logits_give_nan(kind, dtype):
    largest = torch.finfo(dtype).max
    depth = torch.tensor([0.0, -0.0, -5, -1e9, -largest, 1e-30, 1e6, 1e18, largest, math.inf, -math.inf])
    depth = depth.to(dtype)[None, None, None].requires_grad_()
    logits = torch.zeros(1, 4, 1, depth.numel(), dtype=dtype)
    logits[0, :, 0, 0] = torch.tensor([largest, -largest, 0, 1], dtype=dtype)
    logits[0, :, 0, 1] = torch.tensor([1e4, -1e4, 0, 1])
    logits[0, :, 0, 2] = torch.tensor([-math.inf, 0, 1, 2])  # a class that is ruled out
    logits[0, :, 0, 3] = largest
    given = {"semantic": logits.requires_grad_(), "depth": depth, "refined": logits}
    found = joint_map(**given, bins=bins(kind))
    assert found.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(found, given))
    q = quantise(depth, bins(kind))
    torch.testing.assert_close(q.sum(1), torch.ones_like(q.sum(1)))
    assert q[0, :, 0].argmax(0).tolist() == [14] * 6 + [0, 0, 0, 0, 14]


@KINDS
def test_depths_beyond_the_limit_change_nothing(kind):
    chosen = bins(kind, 40)  # SID then has several bins at one centre
    depth = torch.tensor([-2e3, -1e4, -1e6, 1e5, 1e7], dtype=torch.float64)[None, None, None].requires_grad_()
    q = quantise(depth, chosen)
    assert torch.equal(q[..., 0], q[..., 2])
    assert torch.equal(q[..., 3], q[..., 4])
    (gradient,) = torch.autograd.grad(joint_map(depth=depth, bins=chosen).sum(), depth)
    assert not gradient.any()


def test_a_pixel_is_judged_alone():
    """Neither its place, nor the batch, nor the blocks that the map is computed in make a difference."""
    given = maps()
    whole = joint_map(**given)
    alone = joint_map(**{name: part[1:, :, 3:4, 2:3] for name, part in given.items()})
    torch.testing.assert_close(alone, whole[1:, :, 3:4, 2:3], rtol=0, atol=1e-7)
    turned = joint_map(**{name: part.flip(2, 3) for name, part in given.items()})
    torch.testing.assert_close(turned.flip(2, 3), whole, rtol=0, atol=1e-7)


def test_blocks_of_rows_make_no_difference(monkeypatch):
    given = {name: part.requires_grad_() for name, part in maps().items()}
    found = joint_map(**given)
    monkeypatch.setattr(cross_task, "PIXELS", 18)  # 3 rows of 6, and one of the 7 is left
    blocks = joint_map(**given)
    torch.testing.assert_close(blocks, found, rtol=0, atol=1e-7)
    for one, other in zip(gradients(blocks, given), gradients(found, given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_channels_last_maps_are_the_same():
    given = maps()
    last = {name: part.to(memory_format=torch.channels_last) for name, part in given.items()}
    torch.testing.assert_close(joint_map(**last), joint_map(**given), rtol=0, atol=1e-7)


def test_half_precision_is_computed_in_float32():
    given = {name: part.bfloat16() for name, part in maps().items()}
    expected = joint_map(**{name: part.float() for name, part in given.items()})
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(joint_map(**given), expected)


def test_self_information_peaks_at_one_over_e():
    p = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    found = self_information(torch.stack([p, 1 - p])[None, :, None])[0, 0, 0]
    assert found.max().item() == pytest.approx(math.log2(math.e) / math.e, abs=1e-9)
    assert p[found.argmax()].item() == pytest.approx(1 / math.e, abs=1e-5)
    assert found[0] == found[-1] == 0


def test_a_uniform_distribution_has_an_entropy_of_one():
    found = joint_map(torch.zeros(1, 7, 2, 2), refined=torch.zeros(1, 9, 2, 2))
    torch.testing.assert_close(found[:, :7].sum(1), torch.ones(1, 2, 2))
    torch.testing.assert_close(found[:, 7:].sum(1), torch.ones(1, 2, 2))


def test_what_the_baselines_show():
    given = {name: part.requires_grad_() for name, part in maps().items()}
    entropy = joint_map(given["semantic"])
    assert torch.equal(cross_task.advent_map(given["semantic"]), entropy)
    weighted = cross_task.dada_map(given["semantic"], given["depth"])
    assert torch.equal(weighted, entropy * given["depth"])
    (gradient,) = torch.autograd.grad(weighted.sum(), given["depth"])
    torch.testing.assert_close(gradient, entropy.sum(1, keepdim=True))


@KINDS
def test_every_centre_falls_into_its_bin(kind):
    chosen = bins(kind, 15)
    q = quantise(chosen.inverse[None, None, None], chosen)[0, :, 0]
    assert q.argmax(0).tolist() == list(range(15))


def test_the_log_kernel_has_equally_wide_bins():
    chosen = bins("log")
    assert chosen.metres[0] * chosen.metres[-1] == pytest.approx(600)
    assert chosen.metres[7] == pytest.approx(math.sqrt(600))
    ratios = [b / a for a, b in itertools.pairwise(chosen.metres)]
    assert max(ratios) == pytest.approx(min(ratios)) == pytest.approx(150 ** (1 / 15))
    depth = torch.tensor([20.0])[None, None, None]
    logits = -((depth.log() - chosen.inverse.log()[:, None, None]) ** 2) / 0.1
    torch.testing.assert_close(quantise(depth, chosen), logits.softmax(1), rtol=1e-5, atol=1e-7)


def test_where_depth_gives_any_gradient_with_the_official_bins():
    """The numbers of the figure."""
    found = cross_task.activity(bins("SID"))
    assert round(100 * found.share) == 37
    assert round(100 * found.beyond_50m) == 96
    assert [(band.near, band.far) for band in found.bands][:4] == [(1, 5), (5, 20), (20, 50), (50, 100)]
    shares = [100 * band.share for band in found.bands]
    assert [round(shares[0], 1), *map(round, shares[1:])] == [0.1, 1, 7, 43, 98]


def test_the_log_kernel_sees_depth_where_the_scenes_are():
    official, middles, log = (cross_task.activity(bins(kind)) for kind in ("SID", "SID2", "log"))
    for band in range(3):  # up to 50 m
        assert log.bands[band].share > 0.99
        assert max(official.bands[band].share, middles.bands[band].share) < 0.12
    assert middles.share == pytest.approx(official.share, abs=0.02)
    assert (official.metres.diff() > 0).all()
    assert (official.strongest > 0.01).double().mean().item() == official.share


@KINDS
def test_depth_may_come_in_another_unit(kind):
    chosen = bins(kind)
    hundredth = dataclasses.replace(chosen, unit=100.0)
    depth = maps(dtype=torch.float64)["depth"]
    torch.testing.assert_close(quantise(depth / 100, hundredth), quantise(depth, chosen))
    assert cross_task.activity(hundredth).share == pytest.approx(cross_task.activity(chosen).share, abs=1e-4)


def test_a_wider_kernel_is_less_silent():
    wide = dataclasses.replace(bins("SID"), sigma=100.0)
    assert cross_task.activity(wide).share > cross_task.activity(bins("SID")).share + 0.2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "at least one of semantic, depth, refined"),
        ({"semantic": torch.zeros(2, 4, 3)}, r"semantic map has the shape \(2, 4, 3\)"),
        ({"refined": torch.zeros(1, 1, 3, 3)}, "refined map .* C at least 2"),
        ({"depth": torch.zeros(1, 2, 3, 3)}, r"depth map .* expected \(N, 1, H, W\)"),
        ({"semantic": torch.zeros(1, 4, 3, 3), "depth": torch.zeros(1, 1, 3, 4)}, "different sizes"),
        ({"semantic": torch.zeros(1, 4, 3, 3), "refined": torch.zeros(2, 4, 3, 3)}, "different sizes"),
    ],
)
def test_maps_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        joint_map(**wrong)


def test_bins_that_are_none_are_refused():
    with pytest.raises(InputError, match="'sid'; expected one of SID, SID2, log"):
        bins("sid")
    with pytest.raises(InputError, match="1 depth bins; expected 2 or more"):
        bins("SID", 1)
    for metres in [(1.0,), (2.0, 1.0), (0.0, 1.0)]:
        with pytest.raises(InputError, match="above 0, ascending"):
            cross_task.Bins(metres)
    with pytest.raises(InputError, match=r"all at 3\.0 m"):
        cross_task.Bins((3.0, 3.0))
    with pytest.raises(InputError, match="σ is 0"):
        cross_task.Bins((1.0, 2.0), sigma=0)
    with pytest.raises(InputError, match="unit is -1"):
        cross_task.Bins((1.0, 2.0), unit=-1)
    with pytest.raises(InputError, match="1 channel has no entropy"):
        self_information(torch.ones(1, 1, 2, 2))
