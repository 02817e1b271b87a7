"""The void proposals of the last iterations, among which clustering looks for exemplars (section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torchvision.ops import box_area, nms

from cvpr21lib.eopsn.pseudo_truth import gathered, relative
from cvpr21lib.errors import InputError

#: Smaller proposals, in pixels² of the network's input, are neither remembered nor mined (official code).
MIN_AREA = 32.0**2
#: Highest IoU of two proposals that are kept together: in effect, none overlap (official code).
NO_OVERLAP = 1e-7
#: Proposals remembered of each batch. The official code has a setting for it, which never reaches its memory.
SAMPLE = 20


class VoidProposals(NamedTuple):
    """The proposals of one image that lie mostly on void."""

    image: int  # place in the data set's list of images
    boxes: Tensor  # (n, 4) x1, y1, x2, y2 in pixels of the network's input
    objectness: Tensor  # (n,) logits of the region proposal network
    features: Tensor  # (n, D) of the box head's last hidden layer
    size: tuple[int, int]  # height and width of the network's input
    flipped: bool  # whether that input is the mirror image of the stored one


class Remembered(NamedTuple):
    """n void proposals out of many images."""

    features: Tensor  # (n, D)
    objectness: Tensor  # (n,) in [0, 1]
    image: Tensor  # (n,) int64: place in the data set's list of images
    box: Tensor  # (n, 4) in [0, 1] of the stored image, not flipped

    def take(self, which: Tensor) -> Remembered:
        """Those that an index or a mask picks."""
        return Remembered(*(column[which] for column in self))


class Memory:
    """What one process remembers since the last clustering.

    Args:
        sample: proposals kept of each batch, drawn in proportion to their objectness.
        official: count features as the official code does; see `candidates`.
    """

    def __init__(self, sample: int = SAMPLE, min_area: float = MIN_AREA, official: bool = False) -> None:
        self.sample, self.min_area, self.official = sample, min_area, official
        self._parts: list[Remembered] = []

    def __len__(self) -> int:
        return sum(len(part.image) for part in self._parts)

    def collect(
        self,
        images: Sequence[VoidProposals],
        mined: Sequence[Tensor],
        generator: torch.Generator | None = None,
    ) -> None:
        """Remember some of a batch's void proposals; `mined` as in `candidates`, a generator of the CPU."""
        there = candidates(images, mined, self.min_area, official=self.official)
        if there is None or not len(there.image):
            return
        count = min(self.sample, len(there.image))
        chances = there.objectness.float().cpu().clamp(min=torch.finfo(torch.float32).tiny)
        drawn = torch.multinomial(chances, count, generator=generator)
        self._parts.append(there.take(drawn.to(there.image.device)))

    def content(self, fabric: Fabric | None = None) -> Remembered | None:
        """All that is remembered, here or, where every process calls it together, in all; None if nothing is.

        Sorted by image and box: so clustering does not depend on which process remembers what, and a run may
        go on in other processes.
        """
        own = Remembered(*(torch.cat(column) for column in zip(*self._parts, strict=True))) if self else None
        if fabric is None or fabric.world_size == 1:
            return None if own is None else _sorted(own)
        width = 0 if own is None else own.features.shape[1]
        widest: Any = fabric.all_gather(torch.tensor(width, device=fabric.device))
        if not int(widest.max()):
            return None
        if own is None:
            empty = torch.zeros(0, device=fabric.device)
            own = Remembered(empty.view(0, int(widest.max())), empty, empty.long(), empty.view(0, 4))
        return _sorted(Remembered(*(gathered(fabric, column) for column in own)))

    def clear(self) -> None:
        self._parts = []

    def state_dict(self, fabric: Fabric | None = None) -> dict[str, Any]:
        """For one process to go on with, the others with {}; `fabric` as for `content`."""
        content = self.content(fabric)
        return {} if content is None else content._asdict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._parts = [Remembered(**state)] if state else []


@torch.no_grad()
def candidates(
    images: Sequence[VoidProposals],
    mined: Sequence[Tensor],
    min_area: float = MIN_AREA,
    official: bool = False,
) -> Remembered | None:
    """The void proposals of a batch that may be remembered, the most object-like of each image first.

    They are larger than `min_area`, were not mined, and no two of an image overlap. None for no images.

    Args:
        mined: for each image, the class (n,) that `mining.mine` gave its proposals, or -1.
        official: take objectness and feature of a proposal of the third and later images from another image,
            as the official code does: it counts the proposals of one image before, not of all.
    """
    require_aligned(images, mined)
    if not images:
        return None
    rows, boxes, owners, first = [], [], [], 0
    for position, (void, taken) in enumerate(zip(images, mined, strict=True)):
        free = ((box_area(void.boxes) > min_area) & (taken < 0)).nonzero()[:, 0]
        free = free[nms(void.boxes[free].float(), void.objectness[free].float(), NO_OVERLAP)]
        before = len(images[position - 1].boxes) if official and position else first
        rows.append(free + before)
        boxes.append(relative(void.boxes[free], void.size, void.flipped))
        owners.append(torch.full_like(free, void.image))
        first += len(void.boxes)
    which = torch.cat(rows)
    return Remembered(
        torch.cat([void.features for void in images])[which],
        torch.cat([void.objectness for void in images])[which].sigmoid(),
        torch.cat(owners),
        torch.cat(boxes),
    )


def _sorted(there: Remembered) -> Remembered:
    order = torch.arange(len(there.image), device=there.image.device)
    for key in (*there.box.T, there.image):  # stable: the last key counts first
        order = order[key[order].argsort(stable=True)]
    return there.take(order)


def require_aligned(images: Sequence[VoidProposals], mined: Sequence[Tensor]) -> None:
    """Raises InputError where lengths differ."""
    if len(images) != len(mined):
        raise InputError(
            f"there are {len(mined)} tensors of mined classes for {len(images)} images; expected one each."
        )
    for void, taken in zip(images, mined, strict=True):
        lengths = {len(void.boxes), len(void.objectness), len(void.features), len(taken)}
        if len(lengths) > 1:
            raise InputError(
                f"the image at place {void.image} has {len(void.boxes)} void boxes, {len(void.objectness)} "
                f"objectness values, {len(void.features)} features and {len(taken)} mined classes; expected "
                "as many of each."
            )
