"""LAEO gaze (CVPR 2021): the register's entry."""

# ruff: noqa: E501  (a row of a table stays on one line)

from __future__ import annotations

from cvpr21lib.papers import datasets
from cvpr21lib.papers.entry import Code, Paper
from cvpr21lib.papers.tables import table

PAPER = Paper(
    slug="laeo_gaze",
    number=7,
    short="LAEO gaze",
    title="Weakly-Supervised Physically Unconstrained Gaze Estimation",
    authors=(
        "Rakshit Kothari",
        "Shalini De Mello",
        "Umar Iqbal",
        "Wonmin Byeon",
        "Seonwook Park",
        "Jan Kautz",
    ),
    venue="CVPR 2021 (oral)",
    arxiv="2105.09803",
    code=Code(
        "https://github.com/NVlabs/weakly-supervised-gaze",
        None,
        "announced; for a long time, as far as public threads tell, a readme only",
    ),
    notebook=None,
    claim=(
        "Two people who look at each other share one line of sight, in opposite directions. That label costs "
        "nothing to see, and its geometry teaches 3D gaze where no gaze was measured."
    ),
    data=(datasets.GAZE360, datasets.PANOPTIC, datasets.AVA_LAEO),
    reading=(
        "Only the abstract and the start of the paper were at hand; most cells of its tables are not known here. "
        "The Gaze360 baseline has public code."
    ),
    tables=(
        table(
            "gaze360",
            "Gaze360 test split, mean angular error (degrees; lower is better)",
            """
            method                                      | all 360° | front 180° | front facing | source
            Gaze360 Pinball LSTM (the baseline)         | 13.5 | 11.4 | 11.1 | Gaze360's code and paper; 11.4 as quoted in a public thread
            Gaze360 static Pinball ResNet-18            | …    | …    | …    | Gaze360 paper
            this paper, Gaze360 + LAEO data             | 13.2 | …    | 10.1 | a copy of the leaderboard
            """,
            source="paper",
        ),
        table(
            "further",
            "Further tables",
            """
            table                                                | numbers
            LAEO labels alone, and each loss, on CMU Panoptic    | …
            cross-domain: source alone and with AVA-LAEO         | …
            semi-supervised: a fraction of Gaze360's labels      | …
            """,
            source="paper",
        ),
    ),
)
