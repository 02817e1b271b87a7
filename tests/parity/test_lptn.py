"""LPTN against numbers made by the official code (csjliang/LPTN) on a CPU in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cvpr21lib.lptn import discriminator, losses, model, pyramid

torch.set_num_threads(1)

FIXTURES = Path(__file__).parent / "lptn"
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


class Fixture:
    """One file: arrays by their key, in the wanted precision, and the notes under `meta`."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        with np.load(FIXTURES / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta = json.loads(str(self.arrays.pop("meta")))
        self.dtype = dtype

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key].astype(np.float64)).to(self.dtype)

    def group(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): self[key] for key in self.arrays if key.startswith(prefix)}

    def expect(self, key: str, actual: Tensor, f64: float, f32: float, relative: bool = False) -> None:
        tolerance = f64 if self.dtype == torch.float64 else f32
        expected = torch.from_numpy(self.arrays[key].astype(np.float64))
        torch.testing.assert_close(
            actual.detach().double(),
            expected,
            rtol=tolerance if relative else 0,
            atol=1e-12 if relative else tolerance,
            msg=lambda text: f"{key}: {text}",
        )


@PRECISIONS
@pytest.mark.parametrize("case", [0, 1])
def test_down_and_up(dtype, case):
    fixture = Fixture("updown", dtype)
    x = fixture[f"case{case}/in/x"]
    small = pyramid.down(x)
    fixture.expect(f"case{case}/out/down", small, 1e-12, 1e-6)
    fixture.expect(f"case{case}/out/up", pyramid.up(x, [2 * s for s in x.shape[-2:]]), 1e-12, 1e-6)


@PRECISIONS
@pytest.mark.parametrize("case", [0, 1])
def test_pyramid(dtype, case):
    fixture = Fixture("pyramid", dtype)
    x = fixture[f"case{case}/in/x"]
    num_high = fixture.meta["cases"][case]["num_high"]
    parts = pyramid.decompose(x, num_high)
    for level, part in enumerate(parts):
        fixture.expect(f"case{case}/out/pyr{level}", part, 1e-12, 1e-6)
    fixture.expect(f"case{case}/out/recons", pyramid.reconstruct(parts), 1e-12, 1e-6)
    changed = [fixture[f"case{case}/in/mod_pyr{level}"] for level in range(num_high + 1)]
    fixture.expect(f"case{case}/out/recons_mod", pyramid.reconstruct(changed), 1e-12, 1e-6)


def official_lptn(fixture: Fixture) -> model.LPTN:
    weights = fixture.group("sd/")
    alias = "trans_high.trans_mask_block."
    net = model.LPTN(
        num_high=fixture.meta["num_high"],
        nrb_low=fixture.meta["nrb_low"],
        nrb_high=fixture.meta["nrb_high"],
        arch={"LPTN": "released", "LPTNPaper": "paper"}[fixture.meta["class"]],
    ).to(fixture.dtype)
    net.load_state_dict({key: value for key, value in weights.items() if not key.startswith(alias)})
    return net


@PRECISIONS
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", ["lptn_L3", "lptn_L2_odd", "lptn_paper_L3", "lptn_paper_L2_odd"])
def test_lptn_forward(name, grad, dtype):
    fixture = Fixture(name, dtype)
    net = official_lptn(fixture)
    assert sum(p.numel() for p in net.parameters()) == fixture.meta["n_params"]
    with torch.set_grad_enabled(grad):
        steps = net.explain(fixture["in/x"])
        output = net(fixture["in/x"])
    fixture.expect("out/y", output, 1e-10, 2e-5)
    fixture.expect("out/y", steps.output, 1e-10, 2e-5)
    # the intermediate results were stored in float32
    fixture.expect("out/fake_low", steps.translated_low, 1e-6, 2e-5)
    fixture.expect("out/high_in", steps.base_input, 1e-6, 2e-5)
    translated_pyramid = [*steps.refined_bands, steps.translated_low]
    for level, part in enumerate(translated_pyramid):
        fixture.expect(f"out/pyr_trans{level}", part, 3e-6, 2e-5)
    if net.arch == "released":
        fixture.expect("out/base_mask", steps.masks[0], 3e-6, 2e-5)
    else:  # the base mask is what the first block of the paper's masking reads
        base_mask = net.trans_high.model(steps.base_input)
        fixture.expect("out/base_mask", base_mask, 3e-6, 2e-5)
        torch.testing.assert_close(net.trans_high.block(0)(base_mask), steps.masks[0])


@PRECISIONS
@pytest.mark.parametrize("name", ["lptn_L2_odd", "lptn_paper_L2_odd"])
def test_lptn_gradients(name, dtype):
    fixture = Fixture(name, dtype)
    net = official_lptn(fixture)
    x = fixture["in/x"].requires_grad_()
    loss = 1000 * losses.mse(net(x), fixture["in/target"])
    loss.backward()
    fixture.expect("out/loss_1000mse", loss, 1e-10, 1e-5, relative=True)
    scale = np.abs(fixture.arrays["out/grad_x"]).max()
    fixture.expect("out/grad_x", x.grad, 1e-6 * scale, 1e-3 * scale)  # stored in float32
    expected = fixture.meta["grad_norms"]
    assert expected.keys() == dict(net.named_parameters()).keys()
    for key, parameter in net.named_parameters():
        # the bias before the instance norm has no effect: its gradient is rounding around zero
        floor = 1e-10 if dtype == torch.float64 else 1e-2
        assert parameter.grad.norm().item() == pytest.approx(
            expected[key], rel=1e-8 if dtype == torch.float64 else 1e-3, abs=floor
        ), key


def official_discriminator(fixture: Fixture) -> discriminator.Discriminator:
    critic = discriminator.Discriminator().to(fixture.dtype)
    critic.load_state_dict(fixture.group("sd/"))
    assert sum(p.numel() for p in critic.parameters()) == fixture.meta["n_params"]
    return critic


@PRECISIONS
def test_discriminator_and_its_losses(dtype):
    fixture = Fixture("discriminator_gp", dtype)
    critic = official_discriminator(fixture)
    fixture.expect("out/y0", critic(fixture["in/x0"]), 1e-9, 1e-3, relative=True)
    fixture.expect("out/y1", critic(fixture["in/x1"]), 1e-9, 1e-3, relative=True)

    real, fake = fixture["in/gp_real"], fixture["in/gp_fake"]
    alpha = torch.from_numpy(
        fixture.arrays["in/gp_alpha"]
    )  # float32 in every precision, as the official draw
    d_real, d_fake = critic(real), critic(fake)
    fixture.expect("out/d_real", d_real, 1e-9, 1e-3, relative=True)
    fixture.expect("out/d_fake", d_fake, 1e-9, 1e-3, relative=True)
    l_real = losses.adversarial(d_real, real=True, for_discriminator=True)
    l_fake = losses.adversarial(d_fake, real=False, for_discriminator=True)
    penalty = losses.gradient_penalty(critic, real, fake, alpha)
    fixture.expect("out/l_d_real", l_real, 1e-9, 1e-3, relative=True)
    fixture.expect("out/l_d_fake", l_fake, 1e-9, 1e-3, relative=True)
    fixture.expect("out/gp", penalty, 1e-9, 1e-3, relative=True)
    fixture.expect("out/l_d_total", l_real + l_fake + 100 * penalty, 1e-9, 1e-3, relative=True)
    l_g = losses.adversarial(d_fake, real=True, for_discriminator=False)
    fixture.expect("out/l_g_gan", l_g, 1e-9, 1e-3, relative=True)


@PRECISIONS
def test_gradient_penalty_through_both_backward_passes(dtype):
    fixture = Fixture("discriminator_gp", dtype)
    critic = official_discriminator(fixture)
    alpha = torch.from_numpy(fixture.arrays["in/gp_alpha"])
    losses.gradient_penalty(critic, fixture["in/gp_real"], fixture["in/gp_fake"], alpha).backward()
    expected = fixture.meta["gp_param_grad_norms"]
    for key, parameter in critic.named_parameters():
        if key not in expected:  # the last bias: the gradient with respect to the image does not know it
            assert parameter.grad is None or parameter.grad.norm() == 0
            continue
        relative = 1e-9 if dtype == torch.float64 else 1e-3
        assert parameter.grad.norm().item() == pytest.approx(expected[key], rel=relative, abs=1e-12), key


@PRECISIONS
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", ["mse", "l1", "charbonnier"])
def test_pixel_losses(name, weighted, reduction, dtype):
    fixture = Fixture("losses", dtype)
    weight = fixture["in/weight"] if weighted else None
    value = getattr(losses, name)(fixture["in/pred"], fixture["in/target"], weight, reduction)
    if reduction == "none" and weighted:  # not in the fixture: the plain map times the weights
        plain = getattr(losses, name)(fixture["in/pred"], fixture["in/target"], None, "none")
        torch.testing.assert_close(value, plain * weight)
        return
    key = f"out/{name}_{reduction}" + ("_weighted" if weighted else "")
    fixture.expect(key, fixture.meta["loss_weight"] * value, 1e-12, 1e-5, relative=True)


@PRECISIONS
def test_total_variation(dtype):
    fixture = Fixture("losses", dtype)
    value = losses.total_variation(fixture["in/pred"], fixture["in/weight"])
    fixture.expect("out/tv", fixture.meta["tv_weight"] * value, 1e-12, 1e-5, relative=True)


@PRECISIONS
@pytest.mark.parametrize("for_discriminator", [True, False], ids=["critic", "generator"])
@pytest.mark.parametrize("real", [True, False], ids=["real", "fake"])
@pytest.mark.parametrize("kind", ["standard", "vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"])
def test_adversarial_losses(kind, real, for_discriminator, dtype):
    fixture = Fixture("losses", dtype)
    value = losses.adversarial(fixture["in/logits"], real, for_discriminator, kind)
    factor = 1 if for_discriminator else fixture.meta["gan_loss_weight"]
    key = f"out/gan_{kind}_real{int(real)}_disc{int(for_discriminator)}"
    fixture.expect(key, factor * value, 1e-12, 1e-5, relative=True)
