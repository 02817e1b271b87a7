"""The PrototypeNet (section 3.3): what code should an image have to be found under a given label?"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from cvpr21lib.errors import InputError
from cvpr21lib.prosgan.hashing import binary


class Prototype(NamedTuple):
    """What a label vector becomes."""

    feature: Tensor
    """f (N, F): what the generator is told of the label."""
    output: Tensor
    """h (N, K) in (-1, 1); its signs are the prototype code."""
    label: Tensor
    """c (N, C) in (0, 1): the label read back from f."""


class PrototypeNet(nn.Module):
    """Label vectors (N, C) of 0 and 1 to a `Prototype`. Parameter names are the official ones.

    f = W_2 relu(W_1 y), h = tanh(W_3 f), c = sigmoid(W_4 f), each with a bias.

    Args:
        classes: C.
        bits: K.
        hidden, features: widths of the two layers; official 4096 and 512.
    """

    def __init__(self, classes: int, bits: int, hidden: int = 4096, features: int = 512) -> None:
        super().__init__()
        self.classes = classes
        self.feature = nn.Sequential(nn.Linear(classes, hidden), nn.ReLU(), nn.Linear(hidden, features))
        self.hashing = nn.Sequential(nn.Linear(features, bits), nn.Tanh())
        self.classifier = nn.Sequential(nn.Linear(features, classes), nn.Sigmoid())

    def forward(self, labels: Tensor) -> Prototype:
        if labels.ndim != 2 or labels.shape[1] != self.classes:
            raise InputError(
                f"label vectors of the shape {tuple(labels.shape)}; expected (N, {self.classes}), as this "
                f"PrototypeNet knows {self.classes} classes."
            )
        feature = self.feature(labels)
        return Prototype(feature, self.hashing(feature), self.classifier(feature))

    def code(self, labels: Tensor) -> Tensor:
        """The prototype code (N, K) of +1 and -1."""
        return binary(self(labels).output)
