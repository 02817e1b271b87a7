"""Mining: void proposals that look like another image's exemplar join the pseudo ground truth (section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_area, nms

from cvpr21lib.eopsn.clustering import Rules
from cvpr21lib.eopsn.kmeans import require_finite
from cvpr21lib.eopsn.memory import MIN_AREA, NO_OVERLAP, VoidProposals
from cvpr21lib.eopsn.pseudo_truth import Rows, relative


@torch.no_grad()
def mine(
    exemplars: Tensor,
    labels: Tensor,
    images: Sequence[VoidProposals],
    rules: Rules,
    pseudo_boxes: int,
    min_area: float = MIN_AREA,
) -> tuple[Rows, list[Tensor]]:
    """What the images of a batch have in common with the exemplars of the image that was appended to it.

    For each exemplar, the most similar void proposal of an image is mined if their cosine distance is below
    τ = `rules.mining_distance`; of mined proposals that overlap, the more similar one stays.

    Args:
        exemplars: their features (e, D).
        labels: (e,) int64, their unknown classes.
        images: the rest of the batch.
        rules: those of `clustering.discover`.
        pseudo_boxes: n_pgt, boxes in the pseudo ground truth when it was last merged.
        min_area: smaller proposals are passed over, in square pixels of the network's input.

    Returns:
        The new rows, image after image, the most similar first; and for each image the class (n,) int64 of
        its proposals, -1 for those not mined.

    Raises:
        InputError: features that are not finite.
    """
    require_finite(exemplars, "the features of the exemplars")
    distance, wanted = rules.mining_distance(pseudo_boxes), rules.centred(exemplars)
    rows, mined = [], []
    for void in images:
        require_finite(
            void.features, f"the features of the void proposals in the image at place {void.image}"
        )
        centred = void._replace(features=rules.centred(void.features))
        which, which_exemplar = _most_similar(wanted, centred, distance, min_area)
        classes = labels.new_full((len(void.boxes),), -1)
        classes[which] = labels[which_exemplar]
        mined.append(classes)
        box = relative(void.boxes[which], void.size, void.flipped)
        rows.append(Rows(torch.full_like(which, void.image), classes[which], box))
    if not rows:
        return Rows(labels[:0], labels[:0], exemplars.new_zeros(0, 4)), []
    return Rows(*(torch.cat(columns) for columns in zip(*rows, strict=True))), mined


def _most_similar(
    exemplars: Tensor, void: VoidProposals, distance: float, min_area: float
) -> tuple[Tensor, Tensor]:
    """The mined proposals of one image, and the exemplar of each."""
    large = (box_area(void.boxes) > min_area).nonzero()[:, 0]
    if not len(large) or not len(exemplars):
        return large[:0], large[:0]
    with torch.autocast(exemplars.device.type, enabled=False):
        unit = F.normalize(exemplars.float(), dim=1), F.normalize(void.features[large].float(), dim=1)
        cosine, best = (unit[0] @ unit[1].T).max(1)
    alike = (cosine > 1 - distance).nonzero()[:, 0]
    which, cosine = large[best[alike]], cosine[alike]
    kept = nms(void.boxes[which].float(), cosine, NO_OVERLAP)
    return which[kept], alike[kept]
