"""CTRL-UDA (CVPR 2021): the register's entry."""

# ruff: noqa: E501  (a row of a table stays on one line)

from __future__ import annotations

from cvpr21lib.papers import datasets
from cvpr21lib.papers.entry import Code, Paper
from cvpr21lib.papers.tables import table

PAPER = Paper(
    slug="ctrl_uda",
    number=5,
    short="CTRL-UDA",
    title="Learning to Relate Depth and Semantics for Unsupervised Domain Adaptation",
    authors=(
        "Suman Saha",
        "Anton Obukhov",
        "Danda Pani Paudel",
        "Menelaos Kanakis",
        "Yuhua Chen",
        "Stamatios Georgoulis",
        "Luc Van Gool",
    ),
    venue="CVPR 2021, pp. 8197–8207",
    arxiv="2105.07830",
    code=Code("https://github.com/susaha/ctrl-uda", None),
    notebook="notebooks/05_ctrl_uda.ipynb",
    claim=(
        "Roads lie near the ground and sky is far away, in rendered and in real streets alike: align source and "
        "target through a joint map of semantics, depth and their relation rather than through semantics alone."
    ),
    data=(datasets.SYNTHIA, datasets.CITYSCAPES, datasets.MAPILLARY),
    reading=(
        "“Best” is the best of the runs, “mean ± sd” is over five seeds. The best model is chosen on the target "
        "validation set, here and in the compared papers' code. Which rows include the last, self-training stage "
        "is not stated with the code."
    ),
    tables=(
        table(
            "synthia_cityscapes16",
            "SYNTHIA → Cityscapes, 16 classes; mIoU (%) over all 16, and over 13 of them",
            """
            method          | mIoU, 16 classes ↑ | mIoU, 13 classes ↑
            SPIGAN-no-PI    | 35.8 | 41.2
            SPIGAN          | 36.8 | 42.4
            AdaptSegNet     | –    | 45.9
            AdaptPatch      | –    | 46.3
            CLAN            | –    | 47.8
            AdvEnt          | 40.8 | 47.6
            DADA            | 42.6 | 49.8
            CTRL, best      | 44.9 | 51.3
            CTRL, mean ± sd | 44.3 ± 0.6 | 51.0 ± 0.7
            """,
            source="official README (Tables 1 and 2 of the paper, by its own words)",
            note="The 13-class mean leaves out wall, fence and pole of the same 16-class confusion matrix.",
        ),
        table(
            "seven_classes",
            "Seven classes, full (FR) and low (LR) resolution; mIoU (%)",
            """
            method          | SYNTHIA → Cityscapes, FR ↑ | SYNTHIA → Cityscapes, LR ↑ | SYNTHIA → Mapillary, FR ↑ | SYNTHIA → Mapillary, LR ↑
            SPIGAN-no-PI    | –    | 46.0 | –    | 26.8
            SPIGAN          | –    | 53.4 | –    | 44.1
            AdvEnt          | 67.2 | 59.4 | 65.2 | 54.0
            DADA            | 69.2 | 63.4 | 67.6 | 55.8
            CTRL, best      | 72.3 | 65.4 | 71.8 | 61.9
            CTRL, mean ± sd | 71.3 ± 0.9 | 64.9 ± 0.3 | 70.9 ± 0.7 | 61.3 ± 0.5
            """,
            source="official README (Tables 1 and 2 of the paper, by its own words)",
            note="The README labels the last column “Exp. Id 4”; by its resolution it is experiment 5.",
        ),
        table(
            "further",
            "Further tables",
            """
            table                                            | numbers
            IoU of each of the 16 classes                    | …
            ablation: depth head, SRH, CTRL, self-training   | …
            depth metrics on Cityscapes                      | …
            """,
            source="paper",
        ),
    ),
)
