from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from cvpr21lib.errors import InputError
from cvpr21lib.lptn import losses
from cvpr21lib.lptn.branches import LowBranch, enlarge
from cvpr21lib.lptn.discriminator import Discriminator, MultiScaleDiscriminator, Pix2PixHDDiscriminator
from cvpr21lib.lptn.model import LPTN, FullResolution, load_official
from cvpr21lib.lptn.pyramid import decompose, minimum_size

torch.set_num_threads(1)

ARCHS = ["released", "paper", "no_masking"]


def small(arch: str = "released", num_high: int = 3, seed: int = 0, width: int = 8) -> LPTN:
    torch.manual_seed(seed)
    return LPTN(num_high=num_high, nrb_low=2, nrb_high=1, width=width, arch=arch)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("arch", "counts"),
    [
        ("released", [617337, 617452, 617567, 617682, 617797]),
        ("paper", [616117, 616166, 616215, 616264, 616313]),
        ("no_masking", [388675] * 5),
    ],
)
def test_parameter_counts_are_the_official_ones(arch, counts):
    assert [count(LPTN(num_high=levels, arch=arch)) for levels in range(1, 6)] == counts


def test_the_chapters_small_networks_have_the_sheets_size():
    settings = {"nrb_low": 3, "nrb_high": 2, "width": 16}
    assert count(LPTN(**settings)) == 30815
    assert count(LPTN(**settings, arch="paper")) == 30327
    assert count(LPTN(**settings, arch="no_masking")) == count(FullResolution(3, 16)) == 19443


def test_discriminators_have_the_official_sizes_and_shapes():
    image = torch.rand(2, 3, 96, 128)
    assert count(Discriminator()) == 253249
    assert Discriminator()(image).shape == (2, 1, 1, 1)
    assert count(MultiScaleDiscriminator()) == 759747
    assert [tuple(x.shape) for x in MultiScaleDiscriminator()(image)] == [(2, 1, 1, 1)] * 3
    assert count(Pix2PixHDDiscriminator()) == 8283459
    shapes = [tuple(x.shape) for x in Pix2PixHDDiscriminator()(image)]
    assert shapes == [(2, 1, 6, 8), (2, 1, 3, 4), (2, 1, 1, 2)]
    assert {key.split(".")[1] for key in MultiScaleDiscriminator().state_dict()} == {
        "disc_0",
        "disc_1",
        "disc_2",
    }
    assert "models.disc_2.12.weight" in MultiScaleDiscriminator().state_dict()


def test_three_scales_see_the_image_halved():
    critic = MultiScaleDiscriminator(input_size=64)
    for name in ("disc_1", "disc_2"):  # the same weights at every scale leave only the scale as a difference
        critic.models[name].load_state_dict(critic.models["disc_0"].state_dict())
    image = torch.rand(1, 3, 64, 64)
    halved = F.avg_pool2d(image, 3, 2, 1, count_include_pad=False)
    finest, middle, _ = critic(image)
    assert not torch.allclose(finest, middle)
    torch.testing.assert_close(middle, critic(halved)[0])


def test_small_discriminators_and_the_one_without_norm():
    image = torch.rand(1, 3, 128, 128)
    critic = Discriminator(input_size=128)
    assert critic.model[12].kernel_size == (4, 4)
    assert critic(image).shape == (1, 1, 1, 1)
    without = Discriminator(input_size=128, norm=False)
    assert count(critic) - count(without) == 32
    assert without.state_dict().keys() < critic.state_dict().keys()
    with pytest.raises(InputError, match="multiple of 32"):
        Discriminator(input_size=100)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("num_high", [1, 2, 3, 4])
def test_any_size_works_and_training_equals_inference(arch, num_high):
    net = small(arch, num_high)
    least = minimum_size(num_high)
    for size in [(least, least), (least, least + 6), (61, 50), (40, 2 * least + 1)]:
        if min(size) < least:
            continue
        image = torch.rand(2, 3, *size)
        trained = net(image)
        with torch.inference_mode():
            inferred = net(image)
        assert inferred.shape == image.shape
        torch.testing.assert_close(inferred, trained.detach(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("grad", [False, True])
def test_forward_is_what_explain_explains(arch, grad):
    net = small(arch)
    image = torch.rand(2, 3, 45, 38)
    with torch.set_grad_enabled(grad):
        steps = net.explain(image)
        output = net(image)
    assert torch.equal(steps.output, output)
    *bands, low = decompose(image, 3)
    assert torch.equal(steps.low, low)
    for ours, band in zip(steps.bands, bands, strict=True):  # explaining must not overwrite what it shows
        torch.testing.assert_close(ours, band, rtol=0, atol=1e-6)
    assert len(steps.masks) == (0 if arch == "no_masking" else 3)
    for mask, band in zip(steps.masks, reversed(steps.bands), strict=False):
        assert mask.shape[-2:] == band.shape[-2:]
    for level, (mask, band) in enumerate(zip(steps.masks, reversed(steps.bands), strict=False)):
        refined = steps.refined_bands[2 - level]
        by_definition = band * mask if arch == "paper" else net.trans_high.block(level)(band * mask + band)
        torch.testing.assert_close(refined, by_definition, rtol=0, atol=2e-6)


def test_paper_masks_are_refined_level_by_level():
    net = small("paper")
    steps = net.explain(torch.rand(1, 3, 45, 38))
    # the paper's order, written out: enlarge the previous level's mask first, then apply the block to it
    mask = net.trans_high.model(steps.base_input)
    for level, band in enumerate(reversed(steps.bands)):
        mask = net.trans_high.block(level)(mask if level == 0 else enlarge(mask, 2, band))
        torch.testing.assert_close(steps.masks[level], mask)


def test_row_blocks_do_not_show(monkeypatch):
    net, image = small().eval(), torch.rand(2, 3, 133, 70)
    with torch.inference_mode():
        whole = net(image)
        monkeypatch.setattr("cvpr21lib.lptn.branches._values_at_once", lambda device: 1)
        in_rows = net(image)
    torch.testing.assert_close(in_rows, whole, rtol=0, atol=1e-6)


def test_no_masking_passes_the_bands_unchanged():
    net, image = small("no_masking"), torch.rand(1, 3, 40, 50)
    steps = net.explain(image)
    assert steps.base_input is None
    assert steps.refined_bands is steps.bands or all(map(torch.equal, steps.refined_bands, steps.bands))
    assert not hasattr(net, "trans_high")


@pytest.mark.parametrize("arch", ARCHS)
def test_identity_start_passes_the_bands_unchanged(arch):
    net, image = small(arch, width=16), torch.rand(1, 3, 45, 38)
    before = copy.deepcopy(net.trans_low.state_dict())
    net.start_from_identity()
    steps = net.explain(image)
    for band, refined in zip(steps.bands, steps.refined_bands, strict=True):
        torch.testing.assert_close(refined, band, rtol=0, atol=1e-6)
    assert all(torch.equal(before[key], value) for key, value in net.trans_low.state_dict().items())


@pytest.mark.parametrize("arch", ["released", "paper"])
def test_identity_start_is_a_start_that_can_learn(arch):
    net, image = small(arch, width=16), torch.rand(1, 3, 45, 38)
    net.start_from_identity()
    losses.mse(net(image), image.flip(1)).backward()
    # the masks' last convolution and every block receive gradients, the blocks' spare hidden units included
    assert net.trans_high.model[-1].weight.grad.abs().sum() > 0
    for level in range(3):
        hidden, _, output = net.trans_high.block(level)
        assert hidden.weight.grad.abs().sum() > 0
        assert (output.weight.grad.abs().sum(dim=0) > 0).all()


def test_default_start_is_not_the_identity():
    steps = small().explain(torch.rand(1, 3, 45, 38))
    assert (steps.refined_bands[0] - steps.bands[0]).abs().max() > 1e-2


def test_instance_norm_takes_statistics_over_the_whole_image():
    torch.manual_seed(0)
    branch, image = LowBranch(1, 8), torch.rand(1, 3, 32, 64)
    brighter = image.clone()
    brighter[..., 48:] += 0.5  # far outside the reach of any convolution at the left border
    change = (branch(image) - branch(brighter)).abs()[..., :16]
    assert change.max() > 1e-3, "a tile would have given the same result"
    features = branch.model[:2](image)
    torch.testing.assert_close(features.mean((2, 3)), torch.zeros(1, 16), rtol=0, atol=1e-5)
    torch.testing.assert_close(features.var((2, 3), correction=0), torch.ones(1, 16), rtol=0, atol=1e-2)


def test_full_resolution_is_the_low_branch_on_the_photograph():
    torch.manual_seed(0)
    baseline, image = FullResolution(nrb_low=2, width=8), torch.rand(1, 3, 32, 40)
    torch.testing.assert_close(baseline(image), baseline.trans_low(image))
    assert baseline.state_dict().keys() == small("no_masking").state_dict().keys()


def test_forward_leaves_no_trace_on_the_module():
    net, image = small(), torch.rand(1, 3, 32, 40)
    keys, attributes, given = list(net.state_dict()), dict(vars(net.trans_high)), image.clone()
    first = net(image)
    with torch.inference_mode():
        net(image)
    assert list(net.state_dict()) == keys
    assert vars(net.trans_high).keys() == attributes.keys()
    assert torch.equal(image, given)
    assert torch.equal(net(image), first)


def test_detached_critic_step_has_the_official_gradients():
    """The official step lets the critic's loss flow back through the generator too: wasted, and harmless."""
    torch.manual_seed(0)
    net, critic = small().double(), Discriminator(input_size=64).double()
    source, target = torch.rand(2, 2, 3, 64, 64, dtype=torch.float64)
    alpha = torch.rand(2, 1, 1, 1, dtype=torch.float64)

    def critic_gradients(fake: torch.Tensor) -> list[torch.Tensor]:
        critic.zero_grad()
        loss = losses.adversarial(critic(target), real=True, for_discriminator=True)
        loss = loss + losses.adversarial(critic(fake), real=False, for_discriminator=True)
        loss = loss + 100 * losses.gradient_penalty(critic, target, fake, alpha)
        loss.backward()
        return [parameter.grad.clone() for parameter in critic.parameters()]

    net.zero_grad()
    attached = critic_gradients(net(source))
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters()), "the wasted backward"
    net.zero_grad(set_to_none=True)
    detached = critic_gradients(net(source).detach())
    assert all(p.grad is None for p in net.parameters())
    for a, b in zip(attached, detached, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("arch", ["released", "paper"])
def test_gradients_agree_with_finite_differences(arch):
    net = small(arch, num_high=2, width=4).double()
    image = torch.rand(1, 3, 9, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, image, fast_mode=True)


def test_half_precision_is_close(monkeypatch):
    net, image = small().eval(), torch.rand(1, 3, 64, 70)
    with torch.inference_mode():
        full = net(image)
        low = copy.deepcopy(net).bfloat16()(image.bfloat16()).float()
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(image)
    assert mixed.dtype == torch.float32
    assert 0 < (low - full).abs().mean() < 2e-2
    assert 0 < (mixed - full).abs().mean() < 5e-3


def test_mixed_precision_trains_and_keeps_the_pyramid_exact():
    net, image = small(), torch.rand(1, 3, 64, 70)
    with torch.autocast("cpu", torch.bfloat16):
        losses.mse(net(image), image).backward()
        parts = decompose(image.requires_grad_(), 2)
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    for part, exact in zip(parts, decompose(image.detach(), 2), strict=True):
        torch.testing.assert_close(part.detach(), exact, rtol=0, atol=1e-6)


def test_image_too_small_for_the_levels_is_named():
    with pytest.raises(
        InputError, match=r"8 × 30 pixels is too small for a pyramid of 3 levels.*num_high <= 2"
    ):
        small()(torch.rand(1, 3, 8, 30))


def test_what_is_not_a_batch_of_rgb_is_named():
    with pytest.raises(InputError, match=r"has 4 channels.*RGB"):
        small()(torch.rand(1, 4, 32, 32))
    with pytest.raises(InputError, match=r"shape \(3, 32, 32\).*expected \(N, C, H, W\)"):
        small()(torch.rand(3, 32, 32))
    with pytest.raises(InputError, match="uint8; expected"):
        small()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_the_compiled_network_is_the_same():
    net, image = small("released"), torch.rand(1, 3, 45, 38)
    with torch.no_grad():
        expected = net(image)
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(image), expected, rtol=0, atol=2e-6)


def test_wrong_settings_are_named():
    with pytest.raises(InputError, match="'released', 'paper' or 'no_masking'"):
        LPTN(arch="published")
    with pytest.raises(InputError, match="at least 1 level"):
        LPTN(num_high=0)


# Official checkpoints


def official_state(arch: str = "released", levels: int = 3, alias: bool = True, **settings) -> dict:
    torch.manual_seed(0)
    net = LPTN(num_high=levels, arch=arch, **settings)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    if alias:
        finest = f"trans_high.trans_mask_block_{levels - 1}."
        state |= {
            key.replace(finest, "trans_high.trans_mask_block."): value.clone()
            for key, value in state.items()
            if key.startswith(finest)
        }
    return state


@pytest.mark.parametrize("arch", ["released", "paper"])
@pytest.mark.parametrize("levels", [1, 3, 5])
@pytest.mark.parametrize("alias", [False, True])
def test_official_layouts_load_and_their_settings_are_read_off_them(tmp_path, arch, levels, alias):
    state = official_state(arch, levels, alias, nrb_low=4, nrb_high=2, width=24)
    torch.save(state, tmp_path / "net_g_latest.pth")
    net = load_official(tmp_path / "net_g_latest.pth")
    assert (net.arch, net.num_high, net.training) == (arch, levels, False)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    torch.manual_seed(0)
    direct = LPTN(levels, nrb_low=4, nrb_high=2, width=24, arch=arch)
    image = torch.rand(1, 3, 64, 50)
    torch.testing.assert_close(net(image), direct(image))


def test_official_default_has_56_names_and_60_with_the_alias(tmp_path):
    assert len(official_state(alias=False)) == 56
    assert len(official_state(alias=True)) == 60
    save_file(official_state(), tmp_path / "ours.safetensors")
    assert len(load_official(tmp_path / "ours.safetensors").state_dict()) == 56


def test_wrong_checkpoints_are_named(tmp_path):
    def refuse(state: dict, message: str) -> None:
        torch.save(state, tmp_path / "net.pth")
        with pytest.raises(InputError, match=message):
            load_official(tmp_path / "net.pth")

    settings = {"nrb_low": 1, "nrb_high": 1, "width": 8}
    good = official_state(**settings)
    finest_alias = "trans_high.trans_mask_block.0.weight"
    refuse(Discriminator().state_dict(), "LPTN's discriminator")
    refuse(MultiScaleDiscriminator().state_dict(), "three-scale discriminator")
    refuse(FullResolution(1, 8).state_dict(), "network without masks")
    refuse(torch.nn.Linear(2, 2).state_dict(), "another network .*weight, bias")
    refuse({k: v for k, v in good.items() if "block_1" not in k}, "none for level 1")
    refuse(good | {finest_alias: good[finest_alias] + 1}, "contradicts itself: trans_high.trans_mask_block.0")
    refuse(
        {k: v for k, v in good.items() if k != "trans_low.model.8.bias"},
        r"1 missing \(trans_low.model.8.bias\)",
    )
    refuse(
        {k: v for k, v in good.items() if k != "trans_low.model.3.weight"}, "without trans_low.model.3.weight"
    )
    refuse(good | {"trans_low.model.8.bias": torch.zeros(4)}, "of another shape .*is 4 there, 3 here")
    refuse(good | {"extra.weight": torch.zeros(4)}, r"1 unexpected \(extra.weight\)")
    refuse({k: v for k, v in good.items() if "trans_low" not in k}, "only its high branch")
    refuse(good | {"trans_high.trans_mask_block_0.2.weight": torch.zeros(2, 16, 1, 1)}, "masks of 2 channels")
