"""What is free in the panoptic network, and how its labels are numbered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cvpr21lib.errors import InputError

VoidMode = Literal["background", "ignorance", "suppression", "train"]
"""How training treats proposals that lie mostly on void (section 4 of the paper).

    background    as background, as if nobody had told that something may be there
    ignorance     left out
    suppression   not background, but not one of the known classes either; EOPSN starts from it
    train         a class of their own
"""

UNKNOWN = -1
"""The one label of everything unknown, in detections."""

PADDING = 255
"""The semantic label of pixels that belong to no image."""


@dataclass(frozen=True)
class Config:
    """The official network on COCO with K = 20 % of the classes unknown, unless said otherwise.

    Class scores are logits in this order, with C `known` and M `unknown` classes:

        background, ignorance, suppression    [0 .. C-1 known] [C background] [C+1 .. C+M unknown]
        train                                 [0 .. C-1 known] [C void] [C+1 background]

    Semantic labels are 0 for every thing, 1 .. S for stuff, S + 1 for void, and `PADDING` outside the image.
    """

    void_mode: VoidMode = "suppression"
    known: int = 64  # C, known thing classes
    unknown: int = 0  # M, classes that clustering may discover: 128 in EOPSN, none in the baselines
    stuff: int = 53  # S

    # the region proposal network
    rpn_levels: tuple[str, ...] = ("p2", "p3", "p4", "p5", "p6")  # maps of the trunk
    strides: tuple[int, ...] = (4, 8, 16, 32, 64)  # of these maps, pixels
    anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))  # √area, by level
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    rpn_negative: float = 0.3  # an anchor below this IoU is negative, from there to the next ignored
    rpn_positive: float = 0.7  # and positive from here on, or where no anchor fits an object better
    rpn_batch: int = 256  # anchors per image that are trained on
    rpn_positive_fraction: float = 0.5  # at most
    proposal_nms: float = 0.7  # IoU
    pre_nms: tuple[int, int] = (2000, 1000)  # proposals per level, in training and in tests
    post_nms: tuple[int, int] = (1000, 1000)  # proposals per image

    # the heads on regions of interest
    roi_levels: tuple[str, ...] = ("p2", "p3", "p4", "p5")
    roi_iou: float = 0.5  # a proposal is an object from this IoU on
    roi_batch: int = 512  # proposals per image that are trained on
    roi_positive_fraction: float = 0.25  # at most
    sampling_ratio: int = 0  # samples per bin and direction of RoIAlign; 0 adapts to the box
    box_pool: int = 7
    box_fc: tuple[int, ...] = (1024, 1024)
    mask_pool: int = 14
    mask_convs: tuple[int, ...] = (256, 256, 256, 256)

    # detection
    score_threshold: float = 0.05
    detection_nms: float = 0.5  # IoU
    detections: int = 100  # per image, at most
    objectness_threshold: float = 0.5  # of unknown detections without classes of their own

    # weights of the losses
    semantic_weight: float = 0.5
    instance_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.void_mode not in get_args(VoidMode):
            raise InputError(f"void_mode is {self.void_mode!r}; it can be {', '.join(get_args(VoidMode))}.")
        if self.unknown and self.void_mode != "suppression":
            raise InputError(
                f"{self.unknown} unknown classes do not go with void_mode={self.void_mode!r}: classes are "
                "discovered among suppressed proposals, so take 'suppression', or unknown=0."
            )
        if self.known < 1 or self.unknown < 0 or self.stuff < 0:
            raise InputError(
                f"known={self.known}, unknown={self.unknown} and stuff={self.stuff} cannot be numbers of "
                "classes; expected at least one known class, and none below 0."
            )
        if not len(self.rpn_levels) == len(self.strides) == len(self.anchor_sizes):
            raise InputError(
                f"{len(self.rpn_levels)} rpn_levels, {len(self.strides)} strides, {len(self.anchor_sizes)} "
                "anchor_sizes do not agree; expected one of each per level."
            )
        if not set(self.roi_levels) <= set(self.rpn_levels):
            raise InputError(
                f"roi_levels {self.roi_levels} are not all among rpn_levels {self.rpn_levels}, which say "
                "what stride a level has."
            )

    @property
    def background(self) -> int:
        """The index of the background's logit."""
        return self.known + 1 if self.void_mode == "train" else self.known

    @property
    def logits(self) -> int:
        """How many logits a box has."""
        return self.known + 2 if self.void_mode == "train" else self.known + 1 + self.unknown

    @property
    def first_unknown(self) -> int:
        """The label of the first discovered class."""
        return self.known + 1

    @property
    def void_label(self) -> int:
        """The semantic label of void pixels."""
        return self.stuff + 1

    @property
    def semantic_classes(self) -> int:
        """How many classes the semantic head tells apart: things, stuff and, in two of the modes, void."""
        return self.stuff + 1 + (self.void_mode in ("suppression", "train"))

    @property
    def roi_strides(self) -> tuple[int, ...]:
        return tuple(self.strides[self.rpn_levels.index(level)] for level in self.roi_levels)
