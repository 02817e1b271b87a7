"""EPS (CVPR 2021): the register's entry."""

# ruff: noqa: E501  (a row of a table stays on one line)

from __future__ import annotations

from cvpr21lib.papers import datasets
from cvpr21lib.papers.entry import Code, Paper
from cvpr21lib.papers.tables import table

PAPER = Paper(
    slug="eps",
    number=3,
    short="EPS",
    title="Railroad is not a Train: Saliency as Pseudo-pixel Supervision for Weakly Supervised Semantic Segmentation",
    authors=("Seungho Lee", "Minhyun Lee", "Jongwuk Lee", "Hyunjung Shim"),
    venue="CVPR 2021",
    arxiv="2105.08965",
    code=Code("https://github.com/halbielee/EPS", "none given"),
    notebook="notebooks/03_eps.ipynb",
    claim=(
        "With image labels alone a classifier takes the rails for part of the train. Let a class-agnostic saliency "
        "map supervise the sum of its class maps, pixel by pixel, and the context falls away."
    ),
    data=(datasets.VOC2012, datasets.SBD, datasets.COCO2014, datasets.PFAN_SALIENCY),
    reading=(
        "The two pairs of the README (47.05 → 69.22 and 31.23 → 37.15) come with scripts, logs and weights; the "
        "released model is not the one of the paper (official issue 10). Saliency models are trained with pixel "
        "masks, so the method is not free of them."
    ),
    tables=(
        table(
            "pseudo_masks",
            "Pseudo-masks on the training images, mIoU",
            """
            data, method                                        | mIoU (%) ↑ | source
            VOC12 train, CAM baseline (ResNet38), threshold 0.20 | 47.05 | official README
            VOC12 train, EPS, threshold 0.20                    | 69.22 | official README
            VOC12 train, EPS, a user's own run of the scripts   | 69.3  | official issue 10
            VOC12 train, EPS, the paper's own model             | 69.4? | paper
            VOC12 train, EPS + dense CRF                        | 71.4? | paper
            VOC12 train, EPS, best refined masks                | 71.6? | a public benchmark index; which refinement is recalled
            COCO14 train, CAM baseline, threshold 0.20          | 31.23 | official README
            COCO14 train, EPS, threshold 0.20                   | 37.15 | official README, official issue 15
            """,
            source="official README",
            note="COCO's published logs reach a learning rate of zero after 76,950 of 256,500 iterations.",
        ),
        table(
            "segmentation",
            "Segmentation networks trained on the pseudo-masks, mIoU",
            """
            data, network                                               | val (%) ↑ | test (%) ↑ | source
            VOC12, DeepLab-V1 ResNet101                                 | 71.0? | 71.8? | a public benchmark index; V1 or V2 is recalled
            VOC12, DeepLab-V2 ResNet101                                 | 70.9  | 70.8  | a public benchmark index; V2 by official issue 10
            VOC12, DeepLab-V1 VGG16                                     | 66.6? | 67.9? | paper
            VOC12, DeepLab-V2 VGG16                                     | 67.0? | 67.3? | paper
            COCO14, VGG16                                               | 35.7? | –     | a public benchmark index; VGG16 is recalled
            VOC12, DeepLab-V2 ResNet101, a user's run, no CRF           | 68.2  | –     | official issue 10
            VOC12, DeepLab-V2 ResNet101, a user's run, with CRF         | 70.5  | –     | official issue 10
            VOC12, DeepLab-V1 VGG16, a user's run                       | 65.1  | –     | official issue 12
            """,
            source="paper",
        ),
        table(
            "boundaries",
            "Boundary quality on SBD",
            """
            method | recall (%) ↑ | precision (%) ↑ | F1 (%) ↑
            CAM    | 22.3? | 35.8? | 27.5?
            SEAM   | 40.2? | 45.0? | 42.5?
            BES    | 45.5? | 46.4? | 45.9?
            EPS    | 60.0? | 73.1? | 65.9?
            """,
            source="paper",
        ),
        table(
            "analyses",
            "Further analyses",
            """
            analysis                                      | numbers
            confusion of co-occurring context             | …
            map selection (naive, pre-defined, adaptive)  | …
            other saliency sources (DSS, USPS)            | …
            sweeps of τ and λ                             | …
            """,
            source="paper",
        ),
    ),
)
