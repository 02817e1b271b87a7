"""PPR10K (CVPR 2021): the register's entry."""

# ruff: noqa: E501  (a row of a table stays on one line)

from __future__ import annotations

from cvpr21lib.papers import datasets
from cvpr21lib.papers.entry import Code, Paper
from cvpr21lib.papers.tables import table

PAPER = Paper(
    slug="ppr10k",
    number=2,
    short="PPR10K",
    title="PPR10K: A Large-Scale Portrait Photo Retouching Dataset with Human-Region Mask and Group-Level Consistency",
    authors=("Jie Liang", "Hui Zeng", "Miaomiao Cui", "Xuansong Xie", "Lei Zhang"),
    venue="CVPR 2021",
    arxiv="2105.09180",
    code=Code("https://github.com/csjliang/PPR10K", "Apache-2.0"),
    notebook="notebooks/02_ppr10k.ipynb",
    claim=(
        "Retouch a whole portrait session with learned 3D colour tables, weighting the people more than the "
        "background and asking that two views of one photograph come out in the same colours."
    ),
    data=(datasets.PPR10K,),
    reading=(
        "Rows “+ HRP” weight human pixels. Rows with group-level consistency (GLC) and the table at full "
        "resolution stand in the paper but could not be obtained. By the definition of the human-centred "
        "PSNR, the 28.29 of expert a cannot be right: it is a misprint or misrecalled."
    ),
    tables=(
        table(
            "val360p",
            "360p validation set, 2,286 photographs",
            """
            expert, method          | PSNR (dB) ↑ | ΔE_ab ↓ | PSNR-HC (dB) ↑ | ΔE-HC ↓ | MGLC ↓ | source
            a, HDRNet               | 23.93? | 8.70? | 27.21? | 5.65? | 14.37? |
            a, CSRNet               | 22.72? | 9.75? | 25.90? | 6.33? | 12.73? |
            a, 3D LUT               | 25.64  | 6.97  | 28.89? | 4.53? | 11.47? | paper as quoted by AdaInt; PSNR and ΔE_ab agree with an independent log
            a, 3D LUT + HRP         | 25.99? | 6.76? | 28.29? | 4.38? | 9.81?  |
            a, 3D LUT + GLC         | …      | …     | …      | …     | …      | paper
            a, 3D LUT + HRP + GLC   | …      | …     | …      | …     | …      | paper
            b, HDRNet               | 23.96? | 8.84? | 27.21? | 5.74? | 13.20? |
            b, CSRNet               | 23.76? | 8.77? | 27.01? | 5.68? | 11.82? |
            b, 3D LUT               | 24.70? | 7.71? | 27.99? | 4.99? | 9.90?  |
            b, 3D LUT + HRP         | 25.06? | 7.51? | 28.36? | 4.85? | 9.87?  |
            b, 3D LUT + GLC         | …      | …     | …      | …     | …      | paper
            b, 3D LUT + HRP + GLC   | …      | …     | …      | …     | …      | paper
            c, HDRNet               | 24.08? | 8.87? | 27.32? | 5.76? | 14.76? |
            c, CSRNet               | 23.17? | 9.45? | 26.47? | 6.12? | 14.64? |
            c, 3D LUT               | 25.18? | 7.58? | 28.49? | 4.92? | 13.51? |
            c, 3D LUT + HRP         | 25.46? | 7.43? | 28.80? | 4.82? | 13.49? |
            c, 3D LUT + GLC         | …      | …     | …      | …     | …      | paper
            c, 3D LUT + HRP + GLC   | …      | …     | …      | …     | …      | paper
            """,
            source="paper as quoted by AdaInt (CVPR 2022)",
        ),
        table(
            "later",
            "Later methods on the same set, expert a",
            """
            method   | PSNR (dB) ↑ | ΔE_ab ↓
            AdaInt   | 26.33       | 6.56
            SepLUT-S | 26.19       | 6.43
            """,
            source="an independent training log",
        ),
        table(
            "full_resolution",
            "Full resolution",
            """
            method      | all columns
            all methods | …
            """,
            source="paper",
        ),
    ),
)
