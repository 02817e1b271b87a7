"""PPR10K against numbers made by the official code (csjliang/PPR10K, HuiZeng/Image-Adaptive-3DLUT)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cvpr21lib.ppr10k import losses, lut, table, weights
from cvpr21lib.ppr10k.model import LightPredictor, ResNet18Predictor, Retoucher
from cvpr21lib.ppr10k.retouch import look, retouch

torch.set_num_threads(1)

FIXTURES = Path(__file__).parent / "ppr10k"


class Fixture:
    """One file: arrays by their key as float32 tensors, and the notes under `meta`."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta = json.loads(str(self.arrays.pop("meta")))

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def group(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): self[key] for key in self.arrays if key.startswith(prefix)}

    def expect(self, key: str, actual: Tensor, rtol: float = 0.0, atol: float = 0.0) -> None:
        torch.testing.assert_close(
            actual.detach(), self[key], rtol=rtol, atol=atol, msg=lambda text: f"{key}: {text}"
        )


def fixture(name: str) -> Fixture:
    return Fixture(FIXTURES / f"{name}.npz")


# --- networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [0, 1], ids=["one, 40 x 60", "two, 33 x 47"])
def test_light_classifier(image):
    official = fixture("light_classifier")
    predictor = LightPredictor(3).eval()
    predictor.load_state_dict(official.group("sd/"))
    out = predictor(official[f"in/img{image}"])
    official.expect(f"out/pred{image}", out[..., None, None], atol=official.meta["atol"])


def by_recipe(state: dict[str, Tensor], offset: int) -> dict[str, Tensor]:
    """The weights that the fixture's recipe makes (they would be 45 MB)."""
    made = {}
    for index, key in enumerate(sorted(state)):
        if key.endswith("num_batches_tracked"):
            made[key] = state[key]
            continue
        shape = tuple(state[key].shape)
        s = np.random.RandomState(offset + index).standard_normal(int(np.prod(shape))).reshape(shape)
        if len(shape) == 4:
            s = s * np.sqrt(2 / np.prod(shape[1:]))
        elif len(shape) == 2:
            s = s * np.sqrt(1 / shape[1])
        elif key.endswith("running_var"):
            s = 1 + 0.25 * np.abs(s)
        elif key.endswith("weight"):
            s = 1 + 0.1 * s
        else:  # biases and running means
            s = 0.05 * s
        made[key] = torch.from_numpy(s.astype(np.float32))
    return made


def test_resnet18_classifier():
    official = fixture("resnet18_classifier")
    predictor = ResNet18Predictor(5).eval()
    assert sorted(predictor.state_dict()) == official.meta["keys"]
    predictor.load_state_dict(by_recipe(predictor.state_dict(), official.meta["offset"]))
    for image in (0, 1):
        out = predictor(official[f"in/img{image}"])
        official.expect(f"out/pred{image}", out, official.meta["rtol"], official.meta["atol"])


class Given(torch.nn.Module):
    """A predictor whose answer is known."""

    thumbnail = 8

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer, self.num_luts = answer, answer.shape[1]

    def forward(self, image: Tensor) -> Tensor:
        return self.answer


def test_fusion():
    official = fixture("fusion")
    network = Retoucher(Given(official["in/weights"]), lut_size=9)
    network.luts.data.copy_(official["in/luts"])
    official.expect("out/fused_lut", network.look(official["in/img"]), atol=2e-6)
    official.expect("out/img", network(official["in/img"]), atol=official.meta["atol"])
    official.expect("out/weights_norm", losses.weight_norm(official["in/weights"]), rtol=1e-6)


# --- losses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 9])
@pytest.mark.parametrize("name", ["tv", "mn"])
def test_total_variation_and_monotonicity(name, size):
    official = fixture("tv_mn")
    one = official[f"in/lut_d{size}"].requires_grad_()
    value = {"tv": losses.total_variation, "mn": losses.monotonicity}[name](one)
    value.backward()
    official.expect(f"out/{name}_d{size}", value, rtol=official.meta["rtol"])
    gradient = official[f"out/grad_{name}_d{size}"]
    official.expect(f"out/grad_{name}_d{size}", one.grad, atol=1e-5 * gradient.abs().max().item())


def test_regularisers_of_the_identity():
    official = fixture("tv_mn")
    official.expect("out/tv_identity33", losses.total_variation(lut.identity(33)), rtol=1e-5)
    official.expect("out/mn_identity33", losses.monotonicity(lut.identity(33)), atol=1e-9)


@pytest.mark.parametrize("human", [True, False], ids=["hrp", "plain"])
def test_the_whole_loss_and_its_gradients(human):
    official = fixture("losses")
    pred, luts = official["in/pred"].requires_grad_(), official["in/luts"].requires_grad_()
    out = lut.apply(lut.fuse(luts, pred), official["in/img"])
    official.expect("out/fake", out, atol=2e-5)
    mask = official["in/mask"] if human else torch.zeros_like(official["in/mask"])
    pixel = losses.hrp(out, official["in/target"], mask, official.meta["hrp_weight"])
    total = pixel + losses.regulariser(pred, luts)
    close = {"rtol": official.meta["rtol"]}
    official.expect("out/mse_hrp" if human else "out/mse", pixel, **close)
    official.expect("out/weights_norm", losses.weight_norm(pred), **close)
    official.expect("out/tv", losses.total_variation(luts), **close)
    official.expect("out/mn", losses.monotonicity(luts), **close)
    official.expect("out/total_hrp" if human else "out/total_nomask", total, **close)
    if human:
        total.backward()
        for key, gradient in (("out/grad_pred", pred.grad), ("out/grad_luts", luts.grad)):
            official.expect(key, gradient, atol=2e-4 * official[key].abs().max().item())


def test_group_level_consistency():
    official = fixture("glc")
    first, second = official["in/fake1"].requires_grad_(), official["in/fake2"].requires_grad_()
    corners = official["in/offsets_h1w1h2w2"]
    for key, boxes in zip(("coi1", "coi2"), losses.overlap(corners, official.meta["crop"]), strict=True):
        numbers = [[rows.start, rows.stop, columns.start, columns.stop] for rows, columns in boxes]
        assert numbers == official[f"out/{key}_h0h1w0w1"].tolist()
    value = losses.glc(first, second, corners, official.meta["batch_size_option"])
    value.backward()
    official.expect("out/glc", value, rtol=official.meta["rtol"])
    for key, gradient in (("out/grad_fake1", first.grad), ("out/grad_fake2", second.grad)):
        official.expect(key, gradient, atol=1e-5 * official[key].abs().max().item())


# --- the public weights of Image-Adaptive-3DLUT -----------------------------------------------------------


def published() -> Path | None:
    """Third-party data that the project does not hold: $CVPR21_REAL, or shared/real near the checkout."""
    named = os.environ.get("CVPR21_REAL")
    near = [folder / "shared" / "real" for folder in Path(__file__).resolve().parents[3:5]]
    folders = [Path(named)] if named else near
    return next((f / "3dlut_srgb.npz" for f in folders if (f / "3dlut_srgb.npz").is_file()), None)


@pytest.fixture(scope="module")
def real() -> Fixture:
    path = published()
    if path is None:
        pytest.skip("the published sRGB weights (3dlut_srgb.npz) are not in $CVPR21_REAL or ../shared/real")
    return Fixture(path)


@pytest.fixture(scope="module")
def official_pair(real, tmp_path_factory) -> tuple[Path, Path]:
    """The two files as they are published: legacy pickles."""
    folder = tmp_path_factory.mktemp("3dlut")
    luts = {key: {"LUT": real[f"sd/LUTs/{key}/LUT"]} for key in ("2", "0", "1")}
    for name, content in (("LUTs", luts), ("classifier", real.group("sd/classifier/"))):
        torch.save(content, folder / f"{name}.pth", _use_new_zipfile_serialization=False)
    return folder / "LUTs.pth", folder / "classifier.pth"


def test_published_weights_retouch_the_recorded_photograph(real, official_pair):
    network = weights.load_official(*official_pair)
    photo = real.arrays["in/img_small_uint8"]
    tensor = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    real.expect("out/pred_small", network.weights(tensor)[0], atol=real.meta["atol"])
    recorded = real.arrays["out/img_small_uint8"].astype(int)
    floats = (retouch(tensor, network)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    for out in (floats, table.apply(look(photo, network), photo)):
        assert np.abs(out - recorded).max() <= 1
        assert (out != recorded).any(2).mean() <= 1e-3
    # small photographs of 8 bits may go through Pillow's fixed point
    assert np.abs(retouch(photo, network) - recorded).max() <= 1


def test_published_luts_retouch_the_recorded_crop(real, official_pair):
    """The whole photograph is not stored, but its weights and a crop of it are."""
    network = weights.load_official(*official_pair)
    crop = torch.from_numpy(real.arrays["in/crop_full_uint8"]).permute(2, 0, 1)[None] / 255
    mixed = lut.fuse(network.luts, real["out/pred_full"][None])
    real.expect("out/crop_full_float", lut.apply(mixed, crop)[0], atol=real.meta["atol"])


def test_regularisers_of_the_published_luts(real, official_pair):
    for number, one in enumerate(weights.load_official(*official_pair).luts):
        real.expect(f"out/tv_{number}", losses.total_variation(one), rtol=1e-5)
        real.expect(f"out/mn_{number}", losses.monotonicity(one), rtol=1e-5, atol=1e-9)
