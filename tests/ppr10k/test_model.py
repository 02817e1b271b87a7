from __future__ import annotations

import re
import urllib.error

import pytest
import torch
import torch.nn.functional as F
import torchvision

from cvpr21lib.errors import InputError
from cvpr21lib.ppr10k import lut
from cvpr21lib.ppr10k.model import LightPredictor, ResNet18Predictor, Retoucher, resize

torch.set_num_threads(1)


def small(num_luts: int = 3, unpaired: bool = False, seed: int = 0) -> LightPredictor:
    torch.manual_seed(seed)
    return LightPredictor(num_luts, thumbnail=16, widths=(8, 8, 16), unpaired=unpaired)


def retoucher(num_luts: int = 3, size: int = 5, seed: int = 0, identity_start: bool = False) -> Retoucher:
    """Arbitrary LUTs, unless it starts from the identity."""
    network = Retoucher(small(num_luts, seed=seed), size, identity_start)
    if not identity_start:
        torch.nn.init.normal_(network.luts)
    return network.eval()


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- what the networks are --------------------------------------------------------------------------------


def test_parameter_counts_are_the_official_ones():
    assert count(LightPredictor(3)) == 270_083
    assert count(LightPredictor(5)) == 286_469
    assert count(Retoucher(LightPredictor(3))) == 593_516  # "less than 600 K"
    assert count(ResNet18Predictor()) == 11_179_077
    assert count(Retoucher(ResNet18Predictor())) == 11_718_132


def layers(predictor: LightPredictor) -> list[int]:
    return sorted({int(name.split(".")[1]) for name in predictor.state_dict()})


def test_layers_have_the_numbers_of_the_official_checkpoints():
    assert layers(LightPredictor()) == [1, 3, 4, 6, 7, 9, 10, 12, 13, 16]
    assert layers(LightPredictor(unpaired=True)) == [1, 3, 4, 6, 8, 10, 12]
    names = ResNet18Predictor(5).state_dict()
    assert len(names) == 122
    assert {"model.conv1.weight", "model.layer4.1.bn2.running_var", "model.fc.bias"} < names.keys()


@pytest.mark.parametrize("unpaired", [False, True])
def test_dropout_belongs_to_paired_training_only(unpaired):
    predictor, image = small(unpaired=unpaired).train(), torch.rand(1, 3, 20, 20)
    assert torch.equal(predictor(image), predictor(image)) == unpaired
    predictor.eval()
    assert torch.equal(predictor(image), predictor(image))


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (7, 90), (224, 224), (300, 40)])
def test_any_size_of_photograph_gives_its_weights(shape):
    image = torch.rand(2, 3, *shape)
    for predictor in (small(4), small(4, unpaired=True)):
        assert predictor.eval()(image).shape == (2, 4)


def test_weights_have_no_softmax():
    predictor = small(3).eval()
    with torch.no_grad():
        predictor.last.bias.copy_(torch.tensor([-3.0, 0.5, 9.0]))
    weights = predictor(torch.rand(2, 3, 20, 20))
    assert weights.min() < 0
    assert not torch.allclose(weights.sum(1), torch.ones(2))


def test_photographs_are_judged_one_by_one():
    predictor = small().eval()
    images = torch.rand(3, 3, 20, 20)
    together = predictor(images)
    torch.testing.assert_close(together, torch.cat([predictor(image[None]) for image in images]))


def test_the_thumbnail_is_bilinear_without_antialiasing():
    image = torch.zeros(1, 3, 64, 64)
    image[..., 0::8] = 1  # every eighth column; the samples fall between columns 3 and 4 of each eight
    assert resize(image, 8).max() == 0
    assert F.interpolate(image, (8, 8), mode="bilinear", antialias=True).max() > 0.05
    assert torch.equal(
        resize(image, 24), F.interpolate(image, (24, 24), mode="bilinear", align_corners=False)
    )


def test_a_thumbnail_made_beforehand_is_used_as_it_is():
    image = torch.rand(1, 3, 40, 52)
    for predictor in (small().eval(), ResNet18Predictor(3).eval()):
        weights = predictor(image)
        assert torch.equal(predictor(resize(image, predictor.thumbnail)), weights)


# --- how they start ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("unpaired", [False, True])
def test_light_predictors_start_as_the_official_ones(unpaired):
    torch.manual_seed(0)
    predictor = LightPredictor(3, unpaired=unpaired)
    torch.testing.assert_close(predictor.last.bias, torch.ones(3))
    conv = predictor.model[4]
    xavier = (2 / (9 * (conv.in_channels + conv.out_channels))) ** 0.5
    assert conv.weight.std().item() == pytest.approx(xavier, rel=0.05)
    norm = predictor.model[3]
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert 0.01 < norm.weight.std() < 0.03
    assert not norm.bias.any()


def test_resnet_starts_with_a_default_head():
    torch.manual_seed(0)
    head = ResNet18Predictor(5).last
    assert head.weight.abs().max() <= 512**-0.5
    assert head.bias.abs().max() <= 512**-0.5


def test_at_first_the_output_is_the_input_times_its_first_weight():
    network = Retoucher(small(), 9).eval()
    image = torch.rand(2, 3, 12, 17)
    torch.testing.assert_close(network.luts[0], lut.identity(9))
    assert not network.luts[1:].any()
    first = network.weights(image)[:, 0].view(2, 1, 1, 1)
    torch.testing.assert_close(network(image), first * image, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("kind", ["light", "unpaired", "resnet18"])
def test_identity_start_changes_no_photograph(kind, mode):
    predictor = ResNet18Predictor(3) if kind == "resnet18" else small(unpaired=kind == "unpaired")
    network = Retoucher(predictor, 9, identity_start=True).train(mode == "training")
    image = torch.rand(2, 3, 12, 17)
    torch.testing.assert_close(network(image), image, rtol=0, atol=2e-6)


def test_after_an_identity_start_every_lut_learns_something_of_its_own():
    network = Retoucher(small(), 5, identity_start=True)
    out = network(torch.rand(4, 3, 12, 12))
    F.mse_loss(out, torch.rand(4, 3, 12, 12)).backward()
    gradients = network.luts.grad
    assert all(gradient.any() for gradient in gradients)
    assert network.predictor.last.weight.grad[0].any()
    assert not torch.allclose(gradients[1] / gradients[1].norm(), gradients[2] / gradients[2].norm())


# --- mixing and applying ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 5, 33])
def test_fused_luts_equal_the_unfused_mixture(size):
    network = retoucher(size=size)
    image = torch.rand(2, 3, 14, 19)
    weights = network.weights(image)
    unfused = sum(
        weights[:, k].view(2, 1, 1, 1) * lut.apply(network.luts[k], image) for k in range(len(network.luts))
    )
    torch.testing.assert_close(network(image), unfused, rtol=0, atol=1e-5)


def test_a_thumbnail_decides_and_the_whole_photograph_is_retouched():
    network = retoucher()
    full = torch.rand(2, 3, 40, 31)
    seen = torch.rand(2, 3, 9, 9)
    out, weights = network(seen, full, with_weights=True)
    assert torch.equal(weights, network.weights(seen))
    torch.testing.assert_close(out, lut.apply(network.look(seen), full))
    torch.testing.assert_close(network(full, full), network(full))


def test_one_photograph_has_one_colour_map():
    """Two pixels of one colour come out in one colour, wherever they are."""
    network = retoucher()
    image = torch.rand(1, 3, 20, 20)
    image[..., 3, 5] = image[..., 17, 2]
    out = network(image)
    torch.testing.assert_close(out[..., 3, 5], out[..., 17, 2])
    shuffled = image.flatten(2)[..., torch.randperm(400)].view_as(image)
    assert not torch.allclose(network.look(shuffled), network.look(image))  # though the map sees the scene


def test_training_reaches_luts_and_predictor():
    for predictor in (small(), ResNet18Predictor(3)):
        network = Retoucher(predictor, 5)
        torch.nn.init.normal_(network.luts)
        network(torch.rand(2, 3, 24, 24)).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        assert network.luts.grad.any()


# --- ImageNet ---------------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Torchvision's cache in an empty folder, and no way to the network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"


def test_imagenet_weights_fill_all_but_the_head(offline):
    torch.manual_seed(1)
    kept = torchvision.models.resnet18().state_dict()
    offline.parent.mkdir(parents=True)
    torch.save(kept, offline)
    predictor = ResNet18Predictor(5, pretrained=True)
    for name, value in predictor.model.state_dict().items():
        assert name.startswith("fc.") or torch.equal(value, kept[name]), name
    assert predictor.last.weight.shape == (5, 512)


@pytest.mark.parametrize("cached", ["nothing", "half"])
def test_missing_imagenet_weights_are_one_clear_error(offline, cached):
    if cached == "half":
        offline.parent.mkdir(parents=True)
        torch.save(torchvision.models.resnet18().state_dict(), offline)
        offline.write_bytes(offline.read_bytes()[:100_000])
    with pytest.raises(InputError, match=re.escape(str(offline))) as caught:
        ResNet18Predictor(5, pretrained=True)
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(caught.value)
    assert "pretrained=False" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- what does not fit ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: LightPredictor(0), "num_luts is 0"),
        (lambda: ResNet18Predictor(0), "num_luts is 0"),
        (lambda: LightPredictor(thumbnail=100), "thumbnail is 100; .* a multiple of 32"),
        (lambda: LightPredictor(thumbnail=0), "thumbnail is 0"),
        (lambda: LightPredictor(widths=()), "thumbnail is 256; 0 convolutions"),
        (lambda: Retoucher(small(), 1), "lut_size is 1; a LUT needs at least 2"),
    ],
)
def test_impossible_settings_are_named(make, complaint):
    with pytest.raises(InputError, match=complaint):
        make()


@pytest.mark.parametrize("shape", [(3, 20, 20), (1, 4, 20, 20), (1, 1, 20, 20), (1, 3, 0, 20)])
def test_what_is_not_rgb_is_named(shape):
    for predictor in (small(), ResNet18Predictor(3)):
        with pytest.raises(InputError, match=re.escape(f"got the shape {shape}")):
            predictor(torch.rand(shape))
