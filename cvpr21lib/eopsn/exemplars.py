"""Which members of a cluster become exemplars: the closest pairs across images (section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Rows of the matrix of distances that are held at a time, and the fewest pairs that are walked at a time.
CHUNK = 2048


@torch.no_grad()
def coupled(features: Tensor, image: Tensor, distance: float) -> Tensor:
    """The chosen members (2p,) int64, pair after pair, the closest pair first.

    Pairs are walked by increasing cosine distance, up to and with `distance`. A pair is taken if its images
    differ and neither gave a member before, so an image gives at most one.

    Args:
        features: (n, D) of the members.
        image: (n,) int64, the image of each.
    """
    unit = F.normalize(features.float(), dim=1)
    found = [_close_pairs(unit, image, first, distance) for first in range(0, len(unit), CHUNK)]
    if not found:
        return image.new_zeros(0)
    pairs, apart = (torch.cat(parts) for parts in zip(*found, strict=True))
    pairs = pairs[apart.sort(stable=True).indices].cpu()
    images, used, chosen = image.tolist(), set[int](), list[int]()
    while len(pairs):
        walked = max(CHUNK, len(pairs) // 16)
        for one, other in pairs[:walked].tolist():
            if images[one] not in used and images[other] not in used:
                used.update((images[one], images[other]))
                chosen += [one, other]
        free = torch.tensor([place not in used for place in images])
        pairs = pairs[walked:]
        pairs = pairs[free[pairs].all(1)]  # a large cluster has millions of pairs, nearly all used up by now
    return torch.tensor(chosen, dtype=torch.long, device=image.device)


def _close_pairs(unit: Tensor, image: Tensor, first: int, distance: float) -> tuple[Tensor, Tensor]:
    """Pairs (p, 2) of `CHUNK` rows from `first` on with later rows, and their distances (p,)."""
    rows = slice(first, first + CHUNK)
    with torch.autocast(unit.device.type, enabled=False):
        apart = 1 - unit[rows] @ unit.T
    close = (apart <= distance) & (image[rows, None] != image)
    one, other = close.triu(first + 1).nonzero(as_tuple=True)
    return torch.stack([one + first, other], 1), apart[one, other]
