"""A small adversarial recipe that trains in milliseconds, for the tests of runs."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass

import torch
from torch import nn

from cvpr21lib import runs


class Points:
    """Items are pairs of points; `noise` is the draw's own random choice."""

    def __init__(self, bad_at: int | None, slow: float) -> None:
        self.x = torch.linspace(-1, 1, 24).reshape(12, 2)
        self.bad_at, self.slow = bad_at, slow

    def __len__(self):
        return len(self.x)

    def __getitem__(self, draw):
        time.sleep(self.slow)
        noise = random.Random(draw.seed).uniform(-0.1, 0.1)
        x = self.x[draw.index] + noise
        if self.bad_at == draw.index:
            x = x * float("nan")
        return {"x": x, "y": torch.stack((x[0] * 2, x[1] - 1))}

    def fingerprint(self):
        return "points"


@dataclass(frozen=True)
class Toy(runs.Recipe):
    paper: str = "toy"
    name: str = "toy"
    steps: int = 12
    batch_size: int = 4
    lr: float = 0.05
    bad_at: int | None = None
    slow: float = 0.0
    dropout: float = 0.5
    signal_at: int | None = None
    signal_number: int = signal.SIGTERM
    checkpoint_every: int = 5

    def settings(self):
        return {"steps": self.steps, "batch_size": self.batch_size, "lr": self.lr, "dropout": self.dropout}

    def networks(self):
        g = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(self.dropout), nn.Linear(8, 2))
        return {"g": g, "d": nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))}

    def optimizers(self, networks):
        return {
            name: torch.optim.Adam(network.parameters(), lr=self.lr) for name, network in networks.items()
        }

    def schedulers(self, optimizers):
        return {"g": torch.optim.lr_scheduler.MultiStepLR(optimizers["g"], [4, 8], gamma=0.5)}

    def data(self):
        return Points(self.bad_at, self.slow)

    def phases(self):
        return [runs.Phase("g", self._generator), runs.Phase("d", self._discriminator)]

    def _generator(self, step):
        if step.number == self.signal_at:
            os.kill(os.getpid(), self.signal_number)
        fake = step.networks["g"](step.batch["x"])
        step.memo["fake"] = fake.detach()
        distance = (fake - step.batch["y"]).square().mean()
        return runs.Loss({"distance": distance, "fool": -0.1 * step.networks["d"](fake).mean()})

    def _discriminator(self, step):
        d, fake = step.networks["d"], step.memo["fake"]
        real_score, fake_score = d(step.batch["y"]), d(fake)
        penalty = 0.1 * (real_score.square() + fake_score.square()).mean()
        return runs.Loss(
            {"critic": fake_score.mean() - real_score.mean(), "penalty": penalty}, {"gap": fake_score.mean()}
        )

    def evaluate(self, networks, fabric):
        x = torch.linspace(-1, 1, 24, device=fabric.device).reshape(12, 2)
        y = networks["g"](x)
        return {"error": float((y - torch.stack((x[:, 0] * 2, x[:, 1] - 1), 1)).abs().mean())}
