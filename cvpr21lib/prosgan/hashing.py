"""How the victims learn: the pairwise losses of DPSH, DPH and HashNet, and the state that they keep.

A hash network maps an image to u in (-1, 1)^K, whose signs are its code. All three losses compare the outputs
u (m, K) of a batch with U (N, K), the latest output for *every* training image, and ask that u and U agree
where two images share a label. The sums over pairs are means here, as in the official code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpr21lib.errors import InputError

Method = Literal["DPSH", "DPH", "HashNet"]
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def dpsh(u: Tensor, memory: Tensor, y: Tensor, labels: Tensor, eta: float = 50.0) -> Tensor:
    """`likelihood` + eta / (N m) sum_i |sign(u_i) - u_i|^2 (Li et al., IJCAI 2016).

    As in the official code the second term is divided by N as well, so an image's weight is eta / N.

    Args:
        u, memory: outputs of the batch (m, K) and of all training images (N, K).
        y, labels: their label vectors (m, C) and (N, C), of 0 and 1.
        eta: weight of the quantisation term, official 50.
    """
    quantisation = (u.sign() - u).square().sum() / (len(u) * len(memory))
    return likelihood(u, memory, similarity(y, labels)) + eta * quantisation


def dph(u: Tensor, memory: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    """Mean over pairs of (u_i . U_j / K - S_ij)^2, S = 1 for similar pairs and -1 for others; as `dpsh`."""
    cosine = u @ memory.T / u.shape[1]
    return (cosine - (2 * similarity(y, labels) - 1)).square().mean()


def hashnet(u: Tensor, memory: Tensor, y: Tensor, labels: Tensor, gain: float = 0.1) -> Tensor:
    """Mean of l over similar pairs + mean of l over others, l = log(1 + e^p) - s p, p = gain u . U.

    This is Cao et al.'s (ICCV 2017) weighing of the rare similar pairs by S / S_1 and of the others by
    S / S_0. A kind without pairs contributes nothing. Arguments as of `dpsh`.
    """
    s = similarity(y, labels)
    p = gain * u @ memory.T
    loss = F.softplus(p) - s * p
    return sum((loss * kind).sum() / kind.sum().clamp(min=1) for kind in (s, 1 - s))  # type: ignore[return-value]


LOSSES: dict[str, Loss] = {"DPSH": dpsh, "DPH": dph, "HashNet": hashnet}


def likelihood(u: Tensor, codes: Tensor, s: Tensor) -> Tensor:
    """Negative log-likelihood of the similarities: mean of log(1 + e^theta) - s theta, theta = u . code / 2.

    `u` (m, K), `codes` (N, K), `s` (m, N) of 0 and 1. The PrototypeNet learns by it, too.
    """
    theta = u @ codes.T / 2
    return (F.softplus(theta) - s * theta).mean()


def similarity(y: Tensor, labels: Tensor) -> Tensor:
    """(m, N) of 0 and 1: do the label vectors (m, C) and (N, C) share a label? An empty one never does."""
    if y.ndim != 2 or labels.ndim != 2 or y.shape[1] != labels.shape[1]:
        raise InputError(
            f"label vectors of the shapes {tuple(y.shape)} and {tuple(labels.shape)} cannot be compared; "
            "expected (m, C) and (N, C) with the same C classes."
        )
    return (y.float() @ labels.float().T > 0).float()


def binary(u: Tensor) -> Tensor:
    """The code of u: +1 where u >= 0, else -1, so that a code never holds a zero (torch's sign(0) is 0)."""
    return torch.where(u >= 0, 1.0, -1.0).to(u)


class Memory(nn.Module):
    """U: the latest output for each of `length` training images, zero at first; kept in checkpoints.

    Official order: `update` with the batch's rows, then the loss. With several processes, gather the rows of
    all of them first.
    """

    outputs: Tensor

    def __init__(self, length: int, bits: int) -> None:
        super().__init__()
        self.register_buffer("outputs", torch.zeros(length, bits))

    def update(self, index: Tensor, u: Tensor) -> Tensor:
        """Replace the rows `index` (m,) by `u` (m, K), which carry no gradient there; returns U (N, K)."""
        self.outputs[index] = u.detach().to(self.outputs)
        return self.outputs


class Continuation(nn.Module):
    """HashNet's way from a smooth output to a binary one: z (N, K) times a scale that grows in training.

    scale = sqrt(1 + 0.005 n), looked up anew at every 200th training forward n. Officially n and the scale
    are plain attributes that no state dict holds; here they are buffers, so that a resumed training goes on.
    """

    iterations: Tensor
    scale: Tensor

    def __init__(self, growth: float = 0.005, every: int = 200) -> None:
        super().__init__()
        self.growth, self.every = growth, every
        self.register_buffer("iterations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        if self.training:
            iterations = self.iterations + 1
            grown = (1 + self.growth * iterations).sqrt()
            scale = torch.where(iterations % self.every == 0, grown, self.scale)
            self.iterations, self.scale = (
                iterations,
                scale,
            )  # new tensors: graphs that hold the old stay valid
        return self.scale * z
