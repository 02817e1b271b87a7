"""SMURF (CVPR 2021): the register's entry."""

# ruff: noqa: E501  (a row of a table stays on one line)

from __future__ import annotations

from cvpr21lib.papers import datasets
from cvpr21lib.papers.entry import Code, Paper
from cvpr21lib.papers.tables import table

PAPER = Paper(
    slug="smurf",
    number=8,
    short="SMURF",
    title="SMURF: Self-Teaching Multi-Frame Unsupervised RAFT with Full-Image Warping",
    authors=("Austin Stone", "Daniel Maurer", "Alper Ayvaci", "Anelia Angelova", "Rico Jonschkowski"),
    venue="CVPR 2021",
    arxiv="2105.07014",
    code=Code(
        "https://github.com/google-research/google-research/tree/master/smurf",
        "Apache-2.0",
        "by the headers of its source files",
    ),
    notebook=None,
    claim=(
        "Optical flow without flow labels: RAFT learns from photometric losses on every iteration, from its own "
        "cleaner predictions, and from the full image where motion leaves the crop."
    ),
    data=(datasets.CHAIRS, datasets.SINTEL, datasets.KITTI_FLOW),
    reading=(
        "Brackets are the paper's own: ( ) evaluated on images used in training without labels. The paper's text "
        "was not at hand; the few verified cells agree with the abstract's “36 % to 40 %” or with other sources."
    ),
    tables=(
        table(
            "benchmarks",
            "Sintel and KITTI 2015: end-point error (EPE, pixels) and outliers (%; lower is better)",
            """
            method                              | Sintel clean train EPE | clean test EPE | final train EPE | final test EPE | KITTI train EPE | KITTI train outliers | KITTI test outliers | source
            SMURF, trained on the train split   | (1.71)? | 3.15  | (2.58)? | 4.18  | (2.00)? | (6.42)? | 6.83   | paper; test columns agree with the abstract
            SMURF, trained on the test split    | 1.99?   | –     | 2.80?   | –     | 2.01?   | 6.72?   | –      |
            UFlow                               | 3.01?   | 5.21? | 4.09?   | 6.50? | 2.84?   | 9.39?   | 11.13? |
            ARFlow, multi-frame                 | {2.73}? | {4.49}? | {3.69}? | {5.67}? | [2.85]? | –    | [11.79]? |
            SelFlow, multi-frame                | [2.88]? | {6.56}? | {3.87}? | {6.57}? | [4.84]? | –    | 14.19? |
            DDFlow                              | {2.92}? | 6.18? | {3.98}? | 7.40? | [5.72]? | –       | 14.29? |
            RAFT, supervised, out of domain     | 1.43    | –     | 2.71    | –     | 5.04    | 17.4    | –      | paper; agrees with torchvision's metadata
            RAFT, fine-tuned, supervised        | (0.76)? | 1.94? | (1.22)? | 3.18? | (0.63)? | –       | 5.10   | paper; 5.10 agrees with torchvision's metadata
            PWC-Net, fine-tuned                 | (1.70)? | 3.86? | (2.21)? | 5.13? | (2.16)? | –       | 9.60?  |
            FlowNet2, fine-tuned                | (1.45)? | 4.16? | (2.01)? | 5.74? | (2.30)? | –       | 10.41? |
            """,
            source="paper",
        ),
        table(
            "generalisation",
            "Trained on one set, tested on the others: EPE (pixels) and outliers (%)",
            """
            training set                | Chairs test EPE | Sintel clean EPE | Sintel final EPE | KITTI EPE | KITTI outliers | source
            SMURF, FlyingChairs         | 1.72  | 2.19? | 3.35? | 7.94?  | 26.51? | paper; 1.72 as quoted in official issue 1036
            SMURF, Sintel test          | 1.99? | –     | –     | 4.47?  | 12.55? |
            SMURF, KITTI test           | 3.26? | 3.38? | 4.47? | –      | –      |
            UFlow, FlyingChairs         | 2.55? | 4.36? | 5.12? | 15.68? | 32.69? |
            """,
            source="paper",
        ),
        table(
            "multi_frame",
            "Without multi-frame self-supervision, trained on the test splits",
            """
            setting                  | Sintel clean EPE | Sintel final EPE | KITTI EPE | KITTI outliers | source
            without multi-frame      | 2.15 | 2.99? | 2.45? | 7.53? | paper; 2.15 as quoted in BrightFlow's issue 2
            """,
            source="paper",
        ),
        table(
            "ablations",
            "Further ablations",
            """
            ablation                                                     | numbers
            RAFT against PWC with the earlier losses                     | …
            sequence loss, instance norm, augmentation                   | …
            full-image warping on and off                                | …
            variants of self-supervision and of occlusion estimation     | …
            """,
            source="paper",
        ),
    ),
)
