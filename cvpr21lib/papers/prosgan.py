"""ProS-GAN (CVPR 2021): the register's entry."""

# ruff: noqa: E501  (a row of a table stays on one line)

from __future__ import annotations

from cvpr21lib.papers import datasets
from cvpr21lib.papers.entry import Code, Paper
from cvpr21lib.papers.tables import table

PAPER = Paper(
    slug="prosgan",
    number=6,
    short="ProS-GAN",
    title="Prototype-supervised Adversarial Network for Targeted Attack of Deep Hashing",
    authors=("Xunguang Wang", "Zheng Zhang", "Baoyuan Wu", "Fumin Shen", "Guangming Lu"),
    venue="CVPR 2021",
    arxiv="2105.07553",
    code=Code("https://github.com/xunguangwang/ProS-GAN", "none given"),
    notebook=None,
    claim=(
        "How easily can an image-retrieval system be fooled? One generator, aimed at a learned prototype code of "
        "the chosen label, does in a single pass what earlier attacks did in thousands of gradient steps."
    ),
    data=(datasets.FLICKR25K, datasets.NUS_WIDE, datasets.COCO2014),
    reading=(
        "None of the paper's numbers is transcribed: its text was not at hand, and none is guessed. What follows "
        "is the layout of its tables, from memory, so that they can be filled in."
    ),
    tables=(
        table(
            "main",
            "t-MAP (%) of the attacks; DPSH victim, VGG-11, 32 bits",
            """
            method                | FLICKR-25K | NUS-WIDE | MS-COCO
            original queries      | … | … | …
            noise                 | … | … | …
            P2P                   | … | … | …
            DHTA                  | … | … | …
            ProS-GAN              | … | … | …
            anchor code           | … | … | …
            prototype code        | … | … | …
            MAP of the hash net   | … | … | …
            """,
            source="paper's main table",
            note="The paper gives 12, 24, 32 and 48 bits.",
        ),
        table(
            "further",
            "Further tables",
            """
            table                                                  | numbers
            generality: other victims and backbones                | …
            transfer: made on one network, tested on another       | …
            efficiency and perceptibility: t-MAP, RMSE, seconds    | …
            ablation: discriminator, weight α, supervising code    | …
            """,
            source="paper",
        ),
    ),
)
