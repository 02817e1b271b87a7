"""The pseudo ground truth: the boxes of unknown classes found so far (section 3). It only grows.

An image is a number to tensors, its place in the data set's list of images, which is the same in every
process; its own id, a number or a name, stands in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torchvision.ops import box_iou

from cvpr21lib.errors import InputError

#: From this IoU on, two boxes of one image are the same object: as proposals are matched.
SAME = 0.5


class Rows(NamedTuple):
    """n boxes of unknown classes."""

    image: Tensor  # (n,) int64: place in the data set's list of images
    label: Tensor  # (n,) int64: unknown class u = 0, 1, ...; officially 81 + u; its logit is C + 1 + u
    box: Tensor  # (n, 4) float32: x1, y1, x2, y2 in [0, 1] of the image as it is stored, not flipped

    def take(self, which: Tensor | slice) -> Rows:
        """The rows that an index, a mask or a slice picks."""
        return Rows(*(column[which] for column in self))


def no_rows() -> Rows:
    return Rows(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))


class PseudoTruth:
    """The table of one process.

    Args:
        images: the ids of the data set's images, numbers or names, in its order.
        official: keep boxes of an object that has one already, as the official code does.
    """

    def __init__(self, images: Sequence[str | int], official: bool = False) -> None:
        self.images = list(images)
        self.official = official
        self._place = {image: place for place, image in enumerate(self.images)}
        if len(self._place) < len(self.images):
            twice = next(image for place, image in enumerate(self.images) if self._place[image] != place)
            raise InputError(
                f"two images have the id {twice!r}; expected an id of its own for each, for pseudo boxes are "
                "kept by it: remove one of them from the annotations."
            )
        self.rows = no_rows()
        self.merged = 0
        """So many rows, the first ones, are those of every process: the count that thresholds go by."""

    def __len__(self) -> int:
        return len(self.rows.image)

    @property
    def classes(self) -> int:
        """How many unknown classes were found; they are 0 .. classes - 1, and the next one is `classes`."""
        return int(self.rows.label.max()) + 1 if len(self) else 0

    def add(self, new: Rows) -> None:
        """Append rows, each unless its object, of any label, has a box already (see `SAME`)."""
        new = Rows(*(column.detach().cpu() for column in new))
        known = len(self.images)
        if len(new.image) and not 0 <= int(new.image.min()) <= int(new.image.max()) < known:
            raise InputError(
                f"pseudo boxes are of images {int(new.image.min())} to {int(new.image.max())}; expected "
                f"places in the list of {known} images, 0 to {known - 1}."
            )
        if not self.official:
            new = new.take(self._unseen(new))
        self.rows = _joined([self.rows, new])

    def of(self, image: int) -> Rows:
        """The rows of one image."""
        return self.rows.take(self.rows.image == image)

    def images_with_boxes(self) -> list[int]:
        return self.rows.image.unique().tolist()

    def another_image(self, batch: Sequence[int], generator: torch.Generator | None = None) -> int | None:
        """A random image with pseudo boxes that is not in the batch; None if there is none."""
        others = sorted(set(self.images_with_boxes()) - set(batch))
        if not others:
            return None
        return others[int(torch.randint(len(others), (), generator=generator))]

    def class_weight(self, known: int, clusters: int) -> Tensor:
        """Weights (known + 1 + clusters,) of the logits in the box head's loss: 0 until a class is found."""
        weight = torch.zeros(known + 1 + clusters)
        weight[: known + 1] = 1
        weight[known + 1 + self.rows.label.unique()] = 1
        return weight

    def merge(self, fabric: Fabric) -> None:
        """Make the table the same in every process: what each added since the last time, in order of rank."""
        new = self.rows.take(slice(self.merged, None))
        self.rows = self.rows.take(slice(self.merged))
        flat = torch.cat([new.image[:, None], new.label[:, None], new.box], 1).double()
        flat = gathered(fabric, flat).cpu()
        self.add(Rows(flat[:, 0].long(), flat[:, 1].long(), flat[:, 2:].float()))
        self.merged = len(self)

    def state_dict(self) -> dict[str, Any]:
        return {
            "ids": [self.images[place] for place in self.rows.image.tolist()],
            "label": self.rows.label,
            "box": self.rows.box,
            "merged": self.merged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises InputError where the data set lacks an image that has pseudo boxes."""
        for image in state["ids"]:
            if image not in self._place:
                raise InputError(
                    f"the checkpoint has pseudo boxes in image {image!r}, which is not among the "
                    f"{len(self.images)} images of this data set; use the data set that it was trained on, "
                    "or start anew."
                )
        places = torch.tensor([self._place[image] for image in state["ids"]], dtype=torch.long)
        self.rows = Rows(places, state["label"], state["box"])
        self.merged = state["merged"]

    def _unseen(self, new: Rows) -> Tensor:
        """The new rows whose object has no box, neither in the table nor among the new ones before."""
        kept: list[int] = []
        images = set(new.image.tolist())
        boxes = {image: list(self.of(image).box) for image in images}
        for row, (image, box) in enumerate(zip(new.image.tolist(), new.box, strict=True)):
            if boxes[image] and box_iou(box[None], torch.stack(boxes[image])).max() >= SAME:
                continue
            boxes[image].append(box)
            kept.append(row)
        return torch.tensor(kept, dtype=torch.long)


def relative(boxes: Tensor, size: tuple[int, int], flipped: bool = False) -> Tensor:
    """Boxes (n, 4) in pixels of the network's input of `size` (height, width) as the table has them.

    They are in [0, 1] of the stored image, of which a `flipped` input is the mirror image.
    """
    scaled = boxes / boxes.new_tensor([size[1], size[0], size[1], size[0]])
    return _mirrored(scaled) if flipped else scaled


def absolute(boxes: Tensor, size: tuple[int, int], flipped: bool = False) -> Tensor:
    """The inverse of `relative`: from the table to pixels of the network's input."""
    placed = _mirrored(boxes) if flipped else boxes
    return placed * boxes.new_tensor([size[1], size[0], size[1], size[0]])


def _mirrored(boxes: Tensor) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([1 - x2, y1, 1 - x1, y2], 1)


def gathered(fabric: Fabric, rows: Tensor) -> Tensor:
    """The rows (n, ...) of all processes, of which each may have another n, in order of rank."""
    if fabric.world_size == 1:
        return rows
    rows = rows.to(fabric.device)
    counts: Any = fabric.all_gather(torch.tensor(len(rows), device=fabric.device))
    padded = rows.new_zeros(int(counts.max()), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts: Any = fabric.all_gather(padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)])


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
