"""The Cross-Task Relation Layer (section 3): semantics and depth in one map that a discriminator can judge.

Inverse depth D becomes a distribution q over K bins, as the logits P and R are distributions over C classes.
Each distribution p of n channels turns into its weighted self-information, channel by channel,

    E(p)_c = -p_c log2(p_c + 1e-30) / log2 n,

in [0, 0.5307 / log2 n]. The joint map is E(softmax P), E(q) and E(softmax R), in this order. The baselines
show their discriminators less: AdvEnt E(softmax P), and DADA E(softmax P) · D.

Depth is inverse depth, D = 65536 / (100 z + 1), z in metres: 649 at 1 m, 66 at 10 m, 1.0 at 655 m.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cvpr21lib.errors import InputError

Kind = Literal["SID", "SID2", "log"]


def joint_map(
    semantic: Tensor | None = None,
    depth: Tensor | None = None,
    refined: Tensor | None = None,
    bins: Bins | None = None,
) -> Tensor:
    """F = cat[E(softmax P), E(q(D)), E(softmax R)]: (N, C + K + C, H, W), without what is not given.

    Equal to 1e-6 to `self_information` of softmax and `quantise`, several times faster, and with next to no
    memory between the passes: gradients are computed anew from the arguments. Arguments that need no
    gradient, like the detached ones of the discriminator's step, leave no graph behind.

    Args:
        semantic: logits P (N, C, H, W).
        depth: inverse depth D (N, 1, H, W), any real number; the networks' may be negative.
        refined: logits R (N, C, H, W) of the depth-conditioned head.
        bins: for `depth`; the released configurations' (`bins("SID", 15)`) unless given.

    Finite arguments never give NaN. Half precision is computed, and returned, in float32.
    """
    given = {"semantic": semantic, "depth": depth, "refined": refined}
    _check(given)
    chosen = bins or _OFFICIAL
    exact = [None if part is None else _at_least_float32(part) for part in given.values()]
    if exact[1] is not None:
        exact[1] = chosen.position(exact[1])
    return _JointMap.apply(*exact, chosen)


def advent_map(semantic: Tensor) -> Tensor:
    """What AdvEnt shows its discriminator: E(softmax P), (N, C, H, W)."""
    return joint_map(semantic)


def dada_map(semantic: Tensor, depth: Tensor) -> Tensor:
    """What DADA shows its discriminator: E(softmax P) · D, (N, C, H, W), for D (N, 1, H, W) as it is."""
    _check({"semantic": semantic, "depth": depth})
    return joint_map(semantic) * _at_least_float32(depth)


def quantise(depth: Tensor, bins: Bins) -> Tensor:
    """q: the share of each bin in inverse depth D (N, 1, H, W), (N, K, H, W); channel 0 is the nearest.

    q_i = softmax_i(-(D - β_i)² / σ), or of -(ln D - ln β_i)² / σ in the log kernel.
    """
    _check({"depth": depth})
    position = bins.position(_at_least_float32(depth))
    return (-(position - bins.centres(position)).square() / bins.sigma).softmax(1)


def self_information(probability: Tensor) -> Tensor:
    """E(p), as written above, of distributions over dimension 1: same shape."""
    channels = probability.shape[1]
    if channels < 2:
        raise InputError(f"a distribution over {channels} channel has no entropy; expected 2 or more.")
    return -probability * torch.log2(probability + 1e-30) / math.log2(channels)


def bins(kind: Kind = "SID", k: int = 15) -> Bins:
    """K depth bins.

        SID    what all released configurations use: the near ends of K parts of 1 to 655.36 m whose lengths
               grow geometrically, rounded up to whole metres: 1, 2, 3, 4, 6, 9, 14, ... 426 m
        SID2   the paper's, by a comment in the official code: the geometric middles of the same parts
        log    the chapter's, for scenes of 3 to 60 m: geometric middles over 2 to 300 m, compared by ln D
               with σ = 0.1 (not the paper's formula)

    All but the last compare D itself, with σ = 1: apart from the far bins, whose β are close together, q is
    one-hot nearly everywhere (see `activity`).
    """
    if kind not in get_args(Kind):
        raise InputError(f"the bins are {kind!r}; expected one of {', '.join(get_args(Kind))}.")
    if k < 2:
        raise InputError(f"there are {k} depth bins; expected 2 or more.")
    if kind == "log":
        return Bins(tuple(_geometric(2, 300, (i + 0.5) / k) for i in range(k)), sigma=0.1, kernel="log")
    if kind == "SID2":
        return Bins(tuple(_geometric(1, FARTHEST, (i + 0.5) / k) for i in range(k)))
    return Bins(tuple(float(math.ceil(_geometric(1, FARTHEST, i / k))) for i in range(k)))


FARTHEST = 655.36
"""Metres: the range of SYNTHIA's 16-bit depth, which is in centimetres."""


@dataclass(frozen=True)
class Bins:
    """Bins of depth, nearest first."""

    metres: tuple[float, ...]
    """The K centres."""
    sigma: float = 1.0
    """σ: the smaller, the closer is q to one-hot."""
    kernel: Literal["linear", "log"] = "linear"
    """What is compared with the centres: inverse depth, or its logarithm."""
    unit: float = 1.0
    """Of the depths that are given: 100 where a network predicts D / 100."""

    def __post_init__(self) -> None:
        if len(self.metres) < 2 or list(self.metres) != sorted(self.metres) or self.metres[0] <= 0:
            raise InputError(
                f"the bins' centres are {self.metres} m; expected 2 or more, above 0, ascending."
            )
        if self.metres[0] == self.metres[-1]:
            raise InputError(f"the bins' centres are all at {self.metres[0]} m; expected different ones.")
        for name, value in (("σ", self.sigma), ("unit", self.unit)):
            if not 0 < value < math.inf:
                raise InputError(f"the bins' {name} is {value}; expected a number above 0.")

    def __len__(self) -> int:
        return len(self.metres)

    @property
    def inverse(self) -> Tensor:
        """β (K,): the centres as inverse depth, descending; float32, as in the official code."""
        return (65536 / (100 * torch.tensor(self.metres, dtype=torch.float64) + 1)).float()

    def centres(self, like: Tensor) -> Tensor:
        """β, or ln β in the log kernel: (K, 1, 1), of the type and on the device of `like`."""
        beta = self.inverse.to(like)[:, None, None]
        return beta.log() if self.kernel == "log" else beta

    def position(self, depth: Tensor) -> Tensor:
        """What is compared with `centres`: D, or ln D in the log kernel; same shape.

        It is limited to where q still changes: farther out squares would overflow, and their differences
        drown in rounding.
        """
        depth = depth if self.unit == 1 else depth * self.unit
        if self.kernel == "log":
            return depth.clamp(NEXT_TO_NOTHING, 1 / NEXT_TO_NOTHING).log()
        return depth.clamp(*self._limits())

    def _limits(self) -> tuple[float, float]:
        """Inverse depths beyond which the farthest, or nearest, bins have all of q, even in float64.

        Two neighbours at the distances x and x + g differ by (2 x g + g²) / σ in their logits.
        """
        beta = self.inverse.unique().tolist()  # ascending; bins that were rounded to one centre share q
        far, near = beta[1] - beta[0], beta[-1] - beta[-2]
        return beta[0] - 375 * self.sigma / far, beta[-1] + 375 * self.sigma / near


NEXT_TO_NOTHING = 1e-3
"""The least inverse depth (of 655 km) that the log kernel tells from less, which includes negative ones."""


def _geometric(near: float, far: float, share: float) -> float:
    """The depth that lies `share` of the way from near to far, by ratios."""
    return near * (far / near) ** share


class Band(NamedTuple):
    """Inverse depths between two depths."""

    near: float  # m
    far: float  # m
    share: float  # in [0, 1], how many of them are active


class Activity(NamedTuple):
    """Where depth gives any gradient at all."""

    share: float  # in [0, 1], of all inverse depths
    beyond_50m: float  # in [0, 1], of the active ones
    bands: tuple[Band, ...]
    metres: Tensor  # (samples,) ascending
    strongest: Tensor  # (samples,) the largest channel of E(q) at each depth


def activity(bins: Bins, threshold: float = 0.01, samples: int = 200_001) -> Activity:
    """How many inverse depths give any channel of E(q) above `threshold`; D even in ln D from 1 to 403.

    A channel of a one-hot q is 0 and has no gradient: there the discriminator cannot see depth change. Of the
    official bins (SID, K = 15), 37 % are active, and 96 % of those lie beyond 50 m.
    """
    depth = torch.linspace(math.log(403), 0, samples, dtype=torch.float64).exp()
    metres = (65536 / depth - 1) / 100
    strongest = joint_map(depth=depth[None, None, None] / bins.unit, bins=bins)[0, :, 0].amax(0)
    active = strongest > threshold
    bands = []
    for near, far in ((1, 5), (5, 20), (20, 50), (50, 100), (100, FARTHEST)):
        inside = (metres >= near) & (metres < far)
        bands.append(Band(near, far, active[inside].double().mean().item()))
    beyond = active[metres >= 50].sum() / active.sum()
    return Activity(active.double().mean().item(), beyond.item(), tuple(bands), metres, strongest)


class _JointMap(torch.autograd.Function):
    """E of the softmax of up to three maps, side by side in one tensor; the second map is a position.

    With l = log softmax: E = -e^l l / ln n, and from gradients G, with h = -e^l (l + 1) G / ln n, those of
    the logits are h - e^l Σ h.
    """

    @staticmethod
    def forward(
        ctx: Any, semantic: Tensor | None, position: Tensor | None, refined: Tensor | None, bins: Bins
    ) -> Tensor:
        maps = (semantic, position, refined)
        ctx.save_for_backward(*maps)
        ctx.bins = bins
        sizes = _sizes(maps, bins)
        first = next(part for part in maps if part is not None)
        out = first.new_empty(len(first), sum(sizes), *first.shape[2:])
        for rows in _blocks(out):
            for index, joint in enumerate(out[:, :, rows].split(sizes, 1)):
                part = maps[index]
                if part is not None:
                    p, logs = _softmax(part[:, :, rows], bins if index == DEPTH else None)
                    torch.mul(p, logs, out=joint).mul_(-1 / math.log(sizes[index]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        maps, bins = ctx.saved_tensors, ctx.bins
        sizes = _sizes(maps, bins)
        made = [
            torch.empty_like(part) if needed else None
            for part, needed in zip(maps, ctx.needs_input_grad, strict=False)
        ]
        for rows in _blocks(grad):
            for index, upstream in enumerate(grad[:, :, rows].split(sizes, 1)):
                out = made[index]
                if out is None:
                    continue
                part = maps[index][:, :, rows]
                p, logs = _softmax(part, bins if index == DEPTH else None)
                inner = logs.add_(1).mul_(p).mul_(upstream)
                inner.sub_(p.mul_(inner.sum(1, keepdim=True))).mul_(-1 / math.log(sizes[index]))
                if index == DEPTH:
                    inner = inner.mul_(part - bins.centres(part)).sum(1, keepdim=True).mul_(-2 / bins.sigma)
                out[:, :, rows] = inner
        return (*made, None)


DEPTH = 1
"""The place of the depth among the three maps."""


def _softmax(part: Tensor, bins: Bins | None) -> tuple[Tensor, Tensor]:
    """The softmax of logits, or of those that the bins give a position (N, 1, h, W), and its logarithm.

    Probabilities end at the 1e-30 of E, so nothing is 0 · log 0; and exp is slow where it underflows.
    """
    if bins is not None:
        part = (part - bins.centres(part)).square_().mul_(-1 / bins.sigma)
    logs = (part - part.amax(1, keepdim=True)).clamp_(min=math.log(1e-30))
    probability = logs.exp()
    total = probability.sum(1, keepdim=True)
    return probability.div_(total), logs.sub_(total.log_())


def _sizes(maps: Sequence[Tensor | None], bins: Bins) -> list[int]:
    """The number of channels of each map in the joint one."""
    return [
        0 if part is None else len(bins) if index == DEPTH else part.shape[1]
        for index, part in enumerate(maps)
    ]


def _blocks(joint: Tensor) -> Iterator[slice]:
    """Slices of rows. On a CPU they are few enough for their temporaries to stay in its cache."""
    height, width = joint.shape[2:]
    step = max(1, PIXELS * torch.get_num_threads() // width) if joint.device.type == "cpu" else height
    for top in range(0, height, step):
        yield slice(top, top + step)


PIXELS = 16384
"""Of a block, for each thread: 1 MB a map of 16 channels."""

_OFFICIAL = bins()


def _at_least_float32(part: Tensor) -> Tensor:
    return part if part.dtype == torch.float64 else part.float()


def _check(given: dict[str, Tensor | None]) -> None:
    """`InputError` unless all that is given fits together."""
    parts = {name: part for name, part in given.items() if part is not None}
    if not parts:
        raise InputError(f"there is nothing to relate; give at least one of {', '.join(given)}.")
    for name, part in parts.items():
        channels = part.shape[1] if part.ndim == 4 else 0
        if channels < 1 or (channels != 1 if name == "depth" else channels < 2):
            expected = "(N, 1, H, W)" if name == "depth" else "(N, C, H, W), C at least 2"
            raise InputError(f"the {name} map has the shape {tuple(part.shape)}; expected {expected}.")
    shapes = {name: (len(part), *part.shape[2:]) for name, part in parts.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {tuple(parts[name].shape)}" for name in parts)
        raise InputError(f"maps of different sizes cannot be joined: {listed}; resize them to the image's.")
