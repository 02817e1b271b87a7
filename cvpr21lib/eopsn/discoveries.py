"""What the discovered classes really are, for the log alone: training never sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from cvpr21lib.eopsn.data import Training
from cvpr21lib.eopsn.pseudo_truth import Rows, no_rows
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import coco2017

IOU = 0.5
"""A pseudo box is on the hidden object that it overlaps most, if by more than this."""
NOTHING = 0
"""Instead of a category: the box is on no hidden object."""


class Hidden(NamedTuple):
    """The n objects of unknown classes in the training images."""

    image: Tensor  # (n,) int64: place in the data set's list of images
    box: Tensor  # (n, 4) float32 in [0, 1] of the stored image
    category: list[int]  # COCO's number


def hidden(training: Training) -> Hidden | None:
    """From COCO's own instances, without crowds; None where the data set does not have them.

    Raises:
        InputError: the annotations are damaged.
    """
    path, unknown = training.layout.instances("train"), training.classes.unknown
    if not path.is_file():
        return None
    files = training.instances.images
    place = {one.id: number for number, one in enumerate(files)}
    found: list[tuple[int, list[float], int]] = []
    try:
        for one in coco2017.read_json(path)["annotations"]:
            if one["category_id"] in unknown and not one.get("iscrowd", 0) and one["image_id"] in place:
                image = place[one["image_id"]]
                found.append((image, _relative(one, files[image].size), one["category_id"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not in the format of COCO's instances ({error!r}).") from error
    return Hidden(
        torch.tensor([image for image, _, _ in found], dtype=torch.long),
        torch.tensor([box for _, box, _ in found]).view(-1, 4),
        [number for _, _, number in found],
    )


def _relative(annotation: Mapping[str, Any], size: tuple[int, int]) -> list[float]:
    x, y, width, height = map(float, annotation["bbox"])
    return [x / size[1], y / size[0], (x + width) / size[1], (y + height) / size[0]]


class Discoveries:
    """Says of every pseudo box on which hidden object it is, once, as the table only grows."""

    def __init__(self, hidden: Hidden) -> None:
        self.hidden = hidden
        self.what: list[int] = []
        """Of each row of the table, its hidden object, or -1."""
        self._judged = no_rows()
        order = hidden.image.argsort(stable=True)
        images, counts = hidden.image[order].unique_consecutive(return_counts=True)
        self._of = dict(zip(images.tolist(), order.split(counts.tolist()), strict=True))

    def summary(self, rows: Rows) -> dict[str, float]:
        """`purity`: share of the pseudo boxes that are on a hidden object; `exemplar_recall`: share of the
        hidden objects that have one; both in %, without what has nothing to divide by."""
        self._judge(rows)
        on = [which for which in self.what if which >= 0]
        numbers = {"purity": _percent(len(on), len(self.what))} if self.what else {}
        hidden = len(self.hidden.category)
        return numbers | ({"exemplar_recall": _percent(len(set(on)), hidden)} if hidden else {})

    def details(self, rows: Rows) -> dict[str, float]:
        """For the record: what `summary` says, and by classes.

        exemplars/<name>             pseudo boxes on each hidden class that has objects, and on "nothing"
        exemplar_recall/<name>       share of its objects that have one, %
        purity/<label>               of a discovered class: the share of its most frequent hidden class, %,
        class/<label>                and which that is, by COCO's number (0 for nothing)
        """
        numbers, real = self.summary(rows), self.hidden.category
        on = [real[which] if which >= 0 else NOTHING for which in self.what]
        found = [real[which] for which in {which for which in self.what if which >= 0}]
        numbers["exemplars/nothing"] = float(on.count(NOTHING))
        for number in sorted(set(real)):
            name = coco2017.CATEGORIES[number].name
            numbers[f"exemplars/{name}"] = float(on.count(number))
            numbers[f"exemplar_recall/{name}"] = _percent(found.count(number), real.count(number))
        for label in rows.label.unique().tolist():
            own = [number for number, its in zip(on, rows.label.tolist(), strict=True) if its == label]
            most = max(sorted(set(own)), key=own.count)
            numbers |= {
                f"purity/{label}": _percent(own.count(most), len(own)),
                f"class/{label}": float(most),
            }
        return numbers

    def _judge(self, rows: Rows) -> None:
        before = rows.take(slice(len(self.what)))
        if not all(map(torch.equal, before, self._judged)):  # the table of another run
            self.what = []
        for place, box in list(zip(rows.image.tolist(), rows.box, strict=True))[len(self.what) :]:
            which = -1
            if place in self._of:
                iou, best = box_iou(box[None], self.hidden.box[self._of[place]])[0].max(0)
                if iou > IOU:
                    which = int(self._of[place][best])
            self.what.append(which)
        self._judged = rows


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole
