"""Panoptic FPN (Kirillov et al., CVPR 2019) with the paper's four treatments of void.

`PanopticFPN.forward` tells what a training step is made of. Its stages can be called one by one: with maps
and proposals kept from before, the box head can be trained alone. `PanopticFPN.predict` tells what becomes of
an image. Labels are numbered as in `Config`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cvpr21lib.eopsn import boxes as box
from cvpr21lib.eopsn import losses, masks, roi, semantic_head, targets, void
from cvpr21lib.eopsn.config import PADDING, Config
from cvpr21lib.eopsn.detections import Detections, detect
from cvpr21lib.eopsn.fpn import ResNetFPN
from cvpr21lib.eopsn.heads import BoxHead, BoxOutput, MaskHead
from cvpr21lib.eopsn.proposals import RPN, Proposals, RPNOutput, propose
from cvpr21lib.eopsn.resnet import ResNet
from cvpr21lib.eopsn.semantic_head import SemanticHead
from cvpr21lib.errors import InputError

Maps = Mapping[str, Tensor]
"""Levels of the pyramid by their names, (N, C, H/s, W/s)."""

Size = tuple[int, int]
"""Height and width of an image, in pixels."""

APPENDED_OBJECTNESS = 23.026
"""The logit of annotated boxes among the proposals: as good as certain (detectron2)."""

PIXEL_MEAN = (103.53, 116.28, 123.675)
"""Of blue, green and red in ImageNet, from 0 to 255."""


class Batch(NamedTuple):
    """Images of different sizes in one tensor, each in the top left corner of its part."""

    images: Tensor  # (N, 3, H, W), zero where there is no image
    sizes: list[Size]


class Objects(NamedTuple):
    """n boxes of one image and what is in them."""

    boxes: Tensor  # (n, 4), x1, y1, x2, y2 in pixels of the network's input
    labels: Tensor  # (n,) int64: 0 .. C - 1 if annotated, C + 1 .. C + M if pseudo ground truth


@dataclass(frozen=True)
class Truth:
    """What is known of one image, on the network's device. Void is neither an annotated thing nor stuff."""

    semantic: Tensor  # (H, W) int64: 0 things, 1 .. S stuff, S + 1 void
    objects: Objects
    masks: masks.Masks  # of the objects, in their order

    def to(self, device: torch.device) -> Truth:
        return Truth(
            self.semantic.to(device),
            Objects(*(field.to(device) for field in self.objects)),
            self.masks.to(device),
        )


class Sampled(NamedTuple):
    """The proposals of one image that the heads learn from."""

    boxes: Tensor  # (R, 4)
    labels: Tensor  # (R,) int64, the index of the logit that should be largest
    objects: (
        Tensor  # (R,) int64, the object that it overlaps most: index into the truth, then the pseudo truth
    )
    targets: Tensor  # (R, 4), that object's box; means nothing where the label is background or void
    void: (
        Proposals  # further ones that lie mostly on void (none where these count as background or as a class)
    )


class Void(NamedTuple):
    """The suppressed proposals of one image, without gradients."""

    boxes: Tensor  # (V, 4)
    objectness: Tensor  # (V,), logits
    features: Tensor  # (V, D), the last hidden layer of the box head


class Step(NamedTuple):
    """What a training step is made of."""

    losses: dict[str, Tensor]  # by the official names; their sum is minimised
    void: list[Void]  # for each image, what clustering and mining look at; [] unless void is suppressed


class Prediction(NamedTuple):
    """What the network sees in one image, at the size that was asked for; `merge` makes one map of it."""

    detections: Detections
    masks: list[masks.Patch]  # of the detections
    semantic: Tensor  # (H, W) int64, each pixel's most probable class: 0 things, 1 .. S stuff, S + 1 void


class PanopticFPN(nn.Module):
    """A trunk, and on its maps a region proposal network and heads for boxes, masks and semantic classes.

    `trunk` makes the maps that `config` names, all with its `channels`, of images (N, 3, H, W). `semantic`
    makes logits (N, `config.semantic_classes`, H/s, W/s) of the maps, and has `stride` s. `panoptic_fpn`
    builds the official network.
    """

    class_weight: Tensor

    def __init__(self, trunk: nn.Module, semantic: nn.Module, config: Config) -> None:
        super().__init__()
        self.config = config
        channels: int = trunk.channels  # type: ignore[assignment]
        self.trunk, self.semantic_head = trunk, semantic
        self.semantic_stride: int = semantic.stride  # type: ignore[assignment]
        self.rpn = RPN(channels, config)
        self.box_head = BoxHead(channels, config.box_pool, config.box_fc, config.logits)
        self.mask_head = MaskHead(channels, config.mask_convs)
        weight = torch.ones(config.logits)
        weight[config.known + 1 :] = 0 if config.unknown else 1
        self.register_buffer("class_weight", weight)  # 1, or 0 for classes that are not discovered yet

    # --- training -----------------------------------------------------------------------------------------

    def forward(
        self,
        batch: Batch,
        truths: Sequence[Truth],
        pseudo: Sequence[Objects] | None = None,
        generator: torch.Generator | None = None,
    ) -> Step:
        """The losses of a batch.

        Args:
            pseudo: boxes of discovered classes, per image; they train the box classifier only, neither the
                RPN nor box regression nor masks.
            generator: draws what is trained on; of the CPU, so that all devices draw alike.

        Raises:
            InputError: truths that do not belong to these images, or to this network's classes.
        """
        self._check(batch.sizes, truths, pseudo)
        maps = self.trunk(batch.images)
        output = self.rpn(maps)
        rpn_losses = self.rpn_losses(output, batch.sizes, truths, generator)
        proposals = self.propose(output, batch.sizes)
        sampled = self.sample(proposals, batch.sizes, truths, pseudo, generator)
        box_losses, void = self.box_losses(maps, sampled)
        return Step(
            {
                "loss_sem_seg": self.semantic_loss(maps, truths),
                **rpn_losses,
                **box_losses,
                "loss_mask": self.mask_loss(maps, sampled, truths),
            },
            void,
        )

    def propose(self, output: RPNOutput, sizes: Sequence[Size]) -> list[Proposals]:
        """Where something may be, for each image; more of them in training mode. Without gradients."""
        when = 0 if self.training else 1
        config = self.config
        return propose(output, sizes, config.pre_nms[when], config.post_nms[when], config.proposal_nms)

    def rpn_losses(
        self,
        output: RPNOutput,
        sizes: Sequence[Size],
        truths: Sequence[Truth],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """`loss_rpn_cls` and `loss_rpn_loc`. Of the anchors drawn, negative ones in void are dropped."""
        config = self.config
        anchors = torch.cat(output.anchors)
        scores, is_object, deltas, wanted = [], [], [], []
        for objectness, shifts, size, truth in zip(
            torch.cat(output.objectness, 1), torch.cat(output.deltas, 1), sizes, truths, strict=True
        ):
            objects = box.clip(truth.objects.boxes.to(anchors), size)
            index, matched = targets.match(
                anchors, objects, config.rpn_negative, config.rpn_positive, keep_best=True
            )
            positive, negative = targets.sample(
                matched, config.rpn_batch, config.rpn_positive_fraction, generator
            )
            if config.void_mode != "background":
                negative = negative[~self._in_void(truth, anchors[negative])]
            chosen = torch.cat([positive, negative])
            scores.append(objectness[chosen])
            is_object.append(matched[chosen])
            deltas.append(shifts[positive])
            wanted.append(box.encode(anchors[positive], objects[index[positive]], box.RPN_WEIGHTS))
        sure, where = losses.rpn(
            torch.cat(scores), torch.cat(is_object), torch.cat(deltas), torch.cat(wanted)
        )
        weight = config.instance_weight
        return {"loss_rpn_cls": weight * sure, "loss_rpn_loc": weight * where}

    @torch.no_grad()
    def sample(
        self,
        proposals: Sequence[Proposals],
        sizes: Sequence[Size],
        truths: Sequence[Truth],
        pseudo: Sequence[Objects] | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Sampled]:
        """For each image the proposals to learn from, and their labels.

        Annotated and pseudo boxes are proposals too. One that matches none of them is background, unless it
        lies mostly on void: then the void mode says what it is.
        """
        extra: Sequence[Objects | None] = [None] * len(truths) if pseudo is None else pseudo
        return [
            self._sample(*of_image, generator)
            for of_image in zip(proposals, sizes, truths, extra, strict=True)
        ]

    def box_losses(self, maps: Maps, sampled: Sequence[Sampled]) -> tuple[dict[str, Tensor], list[Void]]:
        """`loss_cls`, `loss_box_reg` and, if void is suppressed, `loss_void_neg`; and what is suppressed."""
        config = self.config
        counts = [len(each.boxes) for each in sampled]
        suppress = config.void_mode == "suppression"
        both = [each.boxes for each in sampled] + [each.void.boxes for each in sampled if suppress]
        images = list(range(len(sampled))) * (2 if suppress else 1)
        output = self.box_output(maps, both, images)
        count = sum(counts)

        labels = torch.cat([each.labels for each in sampled])
        boxes = torch.cat([each.boxes for each in sampled])
        wanted = torch.cat([each.targets for each in sampled])
        known = (labels < config.known).nonzero().flatten()
        found = {
            "loss_cls": losses.classification(output.logits[:count], labels, self.class_weight),
            "loss_box_reg": losses.box_regression(
                output.deltas[known], box.encode(boxes[known], wanted[known], box.BOX_WEIGHTS), count
            ),
        }
        suppressed = []
        if suppress:
            found["loss_void_neg"] = losses.void_negative(output.logits[count:], config.known)
            features = output.features[count:].detach().split([len(each.void.boxes) for each in sampled])
            suppressed = [Void(*each.void, own) for each, own in zip(sampled, features, strict=True)]
        return {name: config.instance_weight * loss for name, loss in found.items()}, suppressed

    def mask_loss(self, maps: Maps, sampled: Sequence[Sampled], truths: Sequence[Truth]) -> Tensor:
        """Of the proposals that match a known object: those of discovered classes have no mask to learn."""
        known = [(each.labels < self.config.known).nonzero().flatten() for each in sampled]
        boxes = [each.boxes[chosen] for each, chosen in zip(sampled, known, strict=True)]
        logits = self._mask_logits(maps, boxes)
        wanted = [
            truth.masks.inside(own, each.objects[chosen], logits.shape[1])
            for truth, own, each, chosen in zip(truths, boxes, sampled, known, strict=True)
        ]
        return self.config.instance_weight * losses.mask(logits, torch.cat(wanted))

    def semantic_loss(self, maps: Maps, truths: Sequence[Truth]) -> Tensor:
        """Void is a class of its own, or not learnt from where the head has none for it."""
        logits = semantic_head.upsample(self.semantic_head(maps).float(), self.semantic_stride)
        labels = torch.full_like(logits[:, 0], PADDING, dtype=torch.int64)
        for target, truth in zip(labels, truths, strict=True):
            height, width = truth.semantic.shape
            target[:height, :width] = truth.semantic
        labels[labels >= self.config.semantic_classes] = PADDING
        return self.config.semantic_weight * losses.semantic(logits, labels)

    def box_output(
        self, maps: Maps, boxes: Sequence[Tensor], images: Sequence[int] | None = None
    ) -> BoxOutput:
        """Features, logits and deltas of the boxes (n_i, 4) of each image, or of those `images`, in order."""
        output = self.box_head(self.pool(maps, boxes, self.config.box_pool, images))
        return BoxOutput(*(field.float() for field in output))  # whatever precision the layers have

    def pool(
        self, maps: Maps, boxes: Sequence[Tensor], size: int, images: Sequence[int] | None = None
    ) -> Tensor:
        """What is under the boxes (n_i, 4) of each image, (Σ n_i, C, size, size)."""
        config = self.config
        used = [maps[level] for level in config.roi_levels]
        which = range(len(boxes)) if images is None else images
        return roi.pool(used, config.roi_strides, boxes, which, size, config.sampling_ratio)

    # --- inference ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, batch: Batch, output_sizes: Sequence[Size] | None = None, official: bool = False
    ) -> list[Prediction]:
        """What is in each image, at `output_sizes`, or at the images' own. For `official` see `detect`."""
        maps = self.trunk(batch.images)
        proposals = self.propose(self.rpn(maps), batch.sizes)
        found = self.detect(maps, proposals, batch.sizes, official)
        shapes = self.mask_probabilities(maps, [each.boxes for each in found])
        semantic = self.semantic_head(maps)
        predictions = []
        for detections, mask, logits, size, wanted in zip(
            found, shapes, semantic, batch.sizes, output_sizes or batch.sizes, strict=True
        ):
            scale = detections.boxes.new_tensor((wanted[1] / size[1], wanted[0] / size[0])).repeat(2)
            boxes = box.clip(detections.boxes * scale, wanted)
            left = box.has_area(boxes)
            detections = detections._replace(boxes=boxes).take(left)
            predictions.append(
                Prediction(
                    detections,
                    masks.paste(mask[left], detections.boxes, wanted),
                    semantic_head.classes(logits, self.semantic_stride, size, wanted),
                )
            )
        return predictions

    def folded(self) -> PanopticFPN:
        """A copy for inference that gives the same faster, with a trunk that can be folded; see `ResNet`."""
        if not isinstance(self.trunk, ResNetFPN):
            raise InputError(f"a {type(self.trunk).__name__} cannot be folded; only a ResNetFPN can.")
        twin = copy.deepcopy(self).eval().requires_grad_(False)
        twin.trunk = self.trunk.folded()
        return twin

    @torch.no_grad()
    def detect(
        self, maps: Maps, proposals: Sequence[Proposals], sizes: Sequence[Size], official: bool = False
    ) -> list[Detections]:
        """Known and unknown objects among the proposals, by `detections.detect`."""
        output = self.box_output(maps, [each.boxes for each in proposals])
        flat = torch.cat([each.boxes for each in proposals])
        boxes = box.decode(flat, output.deltas, box.BOX_WEIGHTS)
        counts = [len(each.boxes) for each in proposals]
        return [
            detect(own, logits, each.objectness, size, self.config, official)
            for own, logits, each, size in zip(
                boxes.split(counts), output.logits.split(counts), proposals, sizes, strict=True
            )
        ]

    @torch.no_grad()
    def mask_probabilities(self, maps: Maps, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Masks inside boxes (n_i, 4), (n_i, 2p, 2p) in [0, 1], for each image."""
        return list(self._mask_logits(maps, boxes).sigmoid().split([len(each) for each in boxes]))

    # --- steps --------------------------------------------------------------------------------------------

    def _sample(
        self,
        proposals: Proposals,
        size: Size,
        truth: Truth,
        pseudo: Objects | None,
        generator: torch.Generator | None,
    ) -> Sampled:
        config = self.config
        objects = (
            truth.objects
            if pseudo is None
            else Objects(*map(torch.cat, zip(truth.objects, pseudo, strict=True)))
        )
        known = box.clip(objects.boxes.to(proposals.boxes), size)
        appended = known[box.has_area(known)]
        boxes = torch.cat([proposals.boxes, appended])
        certain = proposals.objectness.new_full((len(appended),), APPENDED_OBJECTNESS)
        objectness = torch.cat([proposals.objectness, certain])

        index, matched = targets.match(boxes, known, config.roi_iou, config.roi_iou)
        positive, negative = targets.sample(
            matched, config.roi_batch, config.roi_positive_fraction, generator
        )
        in_void = torch.zeros_like(negative, dtype=torch.bool)
        if config.void_mode != "background":
            in_void = self._in_void(truth, boxes[negative])
        labels = torch.full_like(matched, config.background)
        labels[positive] = objects.labels[index[positive]]
        if config.void_mode == "train":
            labels[negative[in_void]] = config.known
            in_void = torch.zeros_like(in_void)
        kept, dropped = torch.cat([positive, negative[~in_void]]), negative[in_void]
        wanted = known[index[kept]] if len(known) else boxes[kept]
        return Sampled(
            boxes[kept], labels[kept], index[kept], wanted, Proposals(boxes[dropped], objectness[dropped])
        )

    def _in_void(self, truth: Truth, boxes: Tensor) -> Tensor:
        return void.majority(void.integral(truth.semantic == self.config.void_label), boxes)

    def _mask_logits(self, maps: Maps, boxes: Sequence[Tensor]) -> Tensor:
        return self.mask_head(self.pool(maps, boxes, self.config.mask_pool)).float()

    def _check(
        self, sizes: Sequence[Size], truths: Sequence[Truth], pseudo: Sequence[Objects] | None
    ) -> None:
        if len(truths) != len(sizes) or (pseudo is not None and len(pseudo) != len(sizes)):
            raise InputError(
                f"{len(sizes)} images come with {len(truths)} truths and "
                f"{'no' if pseudo is None else len(pseudo)} pseudo truths; expected one of each per image."
            )
        for number, (size, truth) in enumerate(zip(sizes, truths, strict=True)):
            self._check_truth(number, size, truth)
            if pseudo is not None:
                first, last = self.config.first_unknown, self.config.logits - 1
                _check_objects(f"image {number}'s pseudo truth", pseudo[number], first, last)

    def _check_truth(self, number: int, size: Size, truth: Truth) -> None:
        _check_objects(f"image {number}", truth.objects, 0, self.config.known - 1)
        if tuple(truth.semantic.shape) != tuple(size):
            raise InputError(
                f"image {number} is {size[0]}×{size[1]}, but its semantic map has shape "
                f"{tuple(truth.semantic.shape)}; expected the same size."
            )
        if len(truth.masks) != len(truth.objects.boxes):
            raise InputError(
                f"image {number} has {len(truth.objects.boxes)} boxes but {len(truth.masks)} masks; "
                "expected one mask per box."
            )


# --- the official network ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Widths:
    """Numbers of channels of the official network that `Config` does not have."""

    stem: int = 64
    res2: int = 256  # doubled in each stage
    bottleneck: int = 64  # inside the blocks of res2, doubled too
    pyramid: int = 256
    semantic: int = 128


OFFICIAL = Config()
"""Void suppression with C = 64 known classes on COCO; `eopsn()` widens it."""


def eopsn(config: Config = OFFICIAL, unknown: int = 128) -> Config:
    """The configuration of EOPSN: void suppression with logits for M `unknown` classes."""
    return replace(config, void_mode="suppression", unknown=unknown)


def panoptic_fpn(config: Config = OFFICIAL, widths: Widths | None = None) -> PanopticFPN:
    """The official network: ResNet-50 and FPN, SemSegFPN's semantic head."""
    widths = widths or Widths()
    body = ResNet(widths.stem, widths.res2, widths.bottleneck)
    head = SemanticHead(
        config.roi_levels, config.roi_strides, widths.pyramid, config.semantic_classes, widths.semantic
    )
    return PanopticFPN(ResNetFPN(body, widths.pyramid), head, config)


def bgr(rgb: Tensor) -> Tensor:
    """RGB (3, H, W), uint8, to what the official network takes: BGR from 0 to 255, less ImageNet's mean."""
    return rgb.flip(0).float() - torch.tensor(PIXEL_MEAN, device=rgb.device).view(3, 1, 1)


def stack(images: Sequence[Tensor], divisor: int = 1) -> Batch:
    """Images (3, H_i, W_i) in one tensor, whose height and width are multiples of `divisor`."""
    if not images:
        raise InputError("there are no images; expected at least one.")
    sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
    padded = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for place, image, (own_height, own_width) in zip(padded, images, sizes, strict=True):
        place[:, :own_height, :own_width] = image
    return Batch(padded, sizes)


def _check_objects(where: str, objects: Objects, first: int, last: int) -> None:
    boxes, labels = objects
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        raise InputError(
            f"{where} has boxes of shape {tuple(boxes.shape)} and labels of shape {tuple(labels.shape)}; "
            "expected (n, 4) and (n,)."
        )
    if not boxes.isfinite().all():
        raise InputError(
            f"{where} has a box that is not finite: {boxes[~boxes.isfinite().all(1)][0].tolist()}."
        )
    wrong = labels[(labels < first) | (labels > last)]
    if len(wrong):
        raise InputError(
            f"{where} has the label {int(wrong[0])}; expected labels from {first} to {last}"
            f"{'' if last >= first else ', that is, none, as config.unknown is 0'}."
        )
