"""The two heads on regions of interest: what a box holds and where it really is, and the mask inside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class BoxOutput(NamedTuple):
    """Of n boxes."""

    features: Tensor  # (n, width of the last layer), not negative: what is clustered
    logits: Tensor  # (n, K), ordered as `Config` says
    deltas: Tensor  # (n, 4), one regression for all classes


class BoxHead(nn.Module):
    """Pooled values (n, C, p, p) to a feature vector by fully connected layers, then to logits and deltas."""

    def __init__(self, channels: int, pool: int, widths: Sequence[int], logits: int) -> None:
        super().__init__()
        inputs = channels * pool**2
        self.fc = nn.ModuleList()
        for width in widths:
            self.fc.append(nn.Linear(inputs, width))
            inputs = width
        for layer in self.fc:
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.cls_score, self.bbox_pred = nn.Linear(inputs, logits), nn.Linear(inputs, 4)
        for last, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(last.weight, std=std)
            nn.init.zeros_(last.bias)

    def forward(self, pooled: Tensor) -> BoxOutput:
        x = pooled.flatten(1)
        for layer in self.fc:
            x = F.relu(layer(x), inplace=True)
        return BoxOutput(x, self.cls_score(x), self.bbox_pred(x))


class MaskHead(nn.Module):
    """Pooled values (n, C, p, p) to mask logits (n, 2p, 2p), one mask whatever the class."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for width in widths:
            self.convs.append(nn.Conv2d(channels, width, 3, padding=1))
            channels = width
        self.deconv = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.predictor = nn.Conv2d(channels, 1, 1)
        for layer in (*self.convs, self.deconv):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, pooled: Tensor) -> Tensor:
        x = pooled
        for layer in self.convs:
            x = F.relu(layer(x), inplace=True)
        return self.predictor(F.relu(self.deconv(x), inplace=True))[:, 0]
