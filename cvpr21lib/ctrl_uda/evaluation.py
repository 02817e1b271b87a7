"""mIoU of a network on a target data set, the official way.

One pass an image, in one scale and not flipped. The semantic logits P are enlarged to the label (bilinear,
corners aligned), the first of the largest is the class, and one confusion matrix counts all images. So the
size of the labels is the size of the evaluation: 2048 × 1024 for Cityscapes, whatever the network saw, and
for Mapillary the label as it was padded with void to the network's proportions.

The published models were chosen by this very number, on the images that it is reported for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from cvpr21lib import inference
from cvpr21lib.ctrl_uda.label_maps import THIRTEEN
from cvpr21lib.errors import InputError
from cvpr21lib.papers import pages
from cvpr21lib.segmentation import metrics
from cvpr21lib.segmentation.masks import VOID


def evaluate(
    network: nn.Module,
    samples: Iterable[tuple[Tensor, np.ndarray, str]],
    classes: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Report:
    """The confusion matrix and the scores of `network` on `samples`.

    Args:
        network: on `device`; maps (1, 3, H, W) to logits P (1, C, h, w), first of several outputs.
        samples: image (3, H, W) as the network takes it, label (H', W') of integers, and name. 255 and
            negative labels do not count.
        classes: the C names (`label_maps.CLASSES` by their number).

    Raises:
        InputError: a label that is no class, a network of other classes, or no pixel that counts.
    """
    confusion, images = np.zeros((len(classes), len(classes)), np.int64), 0
    with inference.evaluating(network):
        for image, label, name in tqdm(samples, "Evaluating", leave=False, disable=not progress):
            logits = network(image[None].to(device))[0]
            confusion += count(label, predict(logits, label.shape)[0], classes, name)
            images += 1
    return Report(confusion, tuple(classes), images)


def predict(logits: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """The class of each pixel, uint8 (N, *size), from logits (N, C, h, w); of equals the lowest."""
    enlarged = F.interpolate(logits.float(), size, mode="bilinear", align_corners=True)
    return enlarged.max(1).indices.to(torch.uint8).cpu().numpy()  # on a CPU argmax takes four times as long


def count(label: np.ndarray, pred: np.ndarray, classes: Sequence[str], name: str = "a label") -> np.ndarray:
    """The confusion matrix (C, C) int64 of one image: rows by label, columns by prediction.

    Raises:
        InputError: a label, or a prediction, that is neither a class nor, in labels, 255 or negative.
    """
    found = metrics.confusion(label, pred, len(classes))
    ignored = np.count_nonzero((label == VOID) | (label < 0))
    if found.sum() + ignored < label.size:
        for what, mask in (("the label", label), ("the prediction", pred)):
            strange = np.unique(mask[(mask >= len(classes)) & (mask != VOID)]).tolist()
            if strange:
                raise InputError(
                    f"{name}: {what} holds {', '.join(map(str, strange[:5]))}; expected the {len(classes)} "
                    f"classes 0 to {len(classes) - 1}, and {VOID} for void. Are its data set and the network "
                    "of the same classes?"
                )
    return found


@dataclass(frozen=True)
class Report:
    """What a network scored."""

    confusion: np.ndarray
    """(C, C) int64: rows by label, columns by prediction. Those of parts of a data set may be added."""
    classes: tuple[str, ...]
    images: int

    @property
    def numbers(self) -> dict[str, float]:
        """In %: "miou", with 16 classes "miou13", and "iou/road" and so on.

        Means leave out classes that are neither labelled nor predicted, which have no IoU. The 13 classes are
        scored in the matrix of 16: what is taken for a wall still counts as missed.
        """
        scores = metrics.scores(self.confusion)
        found = {"miou": 100 * scores.miou}
        if len(self.classes) == 16:
            found["miou13"] = 100 * float(np.nanmean(scores.iou[list(THIRTEEN)]))
        found |= {f"iou/{name}": 100 * float(v) for name, v in zip(self.classes, scores.iou, strict=True)}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def table(self) -> str:
        """The numbers as Markdown."""
        heads = {"miou": f"mIoU, {len(self.classes)} classes", "miou13": "mIoU, 13 classes"}
        rows = [(heads.get(name, name.removeprefix("iou/")), f"{v:.1f}") for name, v in self.numbers.items()]
        absent = [name for name in self.classes if f"iou/{name}" not in self.numbers]
        notes = [f"{self.images:,} images, {self.confusion.sum():,} pixels"]
        if absent:
            notes.append(f"Neither labelled nor predicted, and left out of the means: {', '.join(absent)}")
        return "\n\n".join([pages.markdown(("class", "IoU (%) ↑"), rows), *notes])
