"""The joint map in the order of the official code, operation by operation; the library's must equal it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def joint_map(semantic: Tensor, depth: Tensor, refined: Tensor, beta: Tensor) -> Tensor:
    """Softmaxes, then five passes over each map, then one tensor of the three."""
    p, q = F.softmax(semantic, 1), quantise(depth, beta)
    r = F.softmax(refined, 1)
    r = r / r.sum(1, keepdim=True)
    return torch.cat([entropy(p), entropy(q), entropy(r)], 1)


def quantise(depth: Tensor, beta: Tensor) -> Tensor:
    """One tensor a bin."""
    logits = [-((depth - centre) ** 2) for centre in beta]
    return F.softmax(torch.cat(logits, 1), 1)


def entropy(probability: Tensor) -> Tensor:
    return -torch.mul(probability, torch.log2(probability + 1e-30)) / math.log2(probability.shape[1])
