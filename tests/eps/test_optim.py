from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from cvpr21lib import runs
from cvpr21lib.eps import EPS, ResNet38, losses, optim
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options

torch.set_num_threads(1)


def small_backbone() -> nn.Module:
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    backbone.channels = 6
    return backbone


@pytest.mark.parametrize(("momentum", "value"), [("official", 5e-4), ("corrected", 0.9)])
def test_both_momenta(momentum, value):
    optimizer = optim.sgd(EPS(small_backbone(), 3), momentum=momentum)
    assert {group["momentum"] for group in optimizer.param_groups} == {value}
    with pytest.raises(InputError, match="'nesterov'; expected 'official'"):
        optim.sgd(EPS(small_backbone(), 3), momentum="nesterov")


def test_four_groups_with_their_rates_and_decays():
    net = EPS(small_backbone(), 3)
    groups = optim.parameter_groups(net, lr=0.01, weight_decay=5e-4)
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.02, 0.1, 0.2])
    assert [group["weight_decay"] for group in groups] == [5e-4, 0, 5e-4, 0]
    convolution, norm, _ = net.backbone
    expected = [[convolution.weight], [norm.weight, norm.bias], [net.fc8.weight], []]
    assert [list(map(id, group["params"])) for group in groups] == [list(map(id, ps)) for ps in expected]


def test_what_is_frozen_is_in_no_group():
    net = EPS(ResNet38(width_div=64), 3)
    groups = optim.parameter_groups(net, 0.01, 5e-4)
    assert [len(group["params"]) for group in groups] == [
        35,
        0,
        1,
        0,
    ]  # 43 convolutions, 8 of them in the stem
    assert all(parameter.requires_grad for group in groups for parameter in group["params"])


def rate_after(steps: int, schedule_steps: int, lr: float = 0.01) -> float:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)
    schedule = optim.poly(optimizer, schedule_steps)
    schedule.base_lrs, schedule.last_epoch = [lr], steps - 1
    optimizer.step()
    schedule.step()
    return optimizer.param_groups[0]["lr"]


def test_schedule_of_the_coco_logs():
    """The published logs print .0039 at step 50,000 and .0011 at 70,000, and go on long after the end."""
    assert round(rate_after(50_000, 76_950), 4) == 0.0039
    assert round(rate_after(70_000, 76_950), 4) == 0.0011
    assert rate_after(76_949, 76_950) == rate_after(256_500, 76_950) == pytest.approx(4.0e-7, rel=0.01)


class Noise:
    def __len__(self):
        return 8

    def __getitem__(self, draw):
        generator = torch.Generator().manual_seed(draw.seed % 2**32)
        label = torch.zeros(3)
        label[draw.index % 3] = 1
        image = torch.randn(3, 16, 16, generator=generator)
        return {"image": image, "saliency": torch.rand(1, 16, 16, generator=generator), "label": label}


@dataclass(frozen=True)
class Training(runs.Recipe):
    paper: str = "eps"
    name: str = "noise"
    steps: int = 6
    batch_size: int = 4
    checkpoint_every: int = 100

    def settings(self):
        return {"steps": self.steps}

    def networks(self):
        return {"net": EPS(ResNet38(width_div=64), 3)}

    def optimizers(self, networks):
        return {"net": optim.sgd(networks["net"])}

    def schedulers(self, optimizers):
        return {"net": optim.poly(optimizers["net"], self.steps)}

    def data(self):
        return Noise()

    def phases(self):
        return [runs.Phase("net", self.loss)]

    def loss(self, step):
        pred, cam = step.networks["net"](step.batch["image"])
        label = step.batch["label"]
        return runs.Loss(
            {
                "L_cls": losses.classification(pred, label),
                "L_sal": losses.saliency(cam, step.batch["saliency"], label),
            }
        )

    def evaluate(self, networks, fabric):
        return {"size": float(networks["net"].fc8.weight.norm())}


def test_a_run_stops_and_resumes_with_optimiser_and_schedule(tmp_path):
    def train(folder, **options):
        return runs.run(
            Training(), Options(output_dir=tmp_path / folder, progress=False, log_every=1, **options)
        )

    whole = train("whole")
    train("parts", max_steps=3)
    parts = train("parts")
    assert whole.numbers == parts.numbers
    expected = [0.01 * (1 - step / 6) ** 0.9 for step in (1, 2, 3, 4, 5, 5)]  # the rate of the step to come
    lines = (tmp_path / "parts" / "scalars.csv").read_text().splitlines()
    rates = [float(line.split(",")[2]) for line in lines if line.split(",")[1] == "lr_net"]
    assert rates == pytest.approx(expected)


def test_training_leaves_frozen_parts_as_they_are(tmp_path):
    runs.run(Training(), Options(output_dir=tmp_path / "run", progress=False))
    trained = runs.weights(Training(), tmp_path / "run")["net"].state_dict()
    torch.manual_seed(runs.mix(0, "networks"))
    before = EPS(ResNet38(width_div=64), 3).state_dict()
    moved = {name for name, value in trained.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "conv_" in name and not name.startswith(("b2.", "b2_"))} | {
        "fc8.weight"
    }
