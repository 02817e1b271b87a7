"""LPTN (CVPR 2021): the register's entry."""

# ruff: noqa: E501  (a row of a table stays on one line)

from __future__ import annotations

from cvpr21lib.papers import datasets
from cvpr21lib.papers.entry import Code, Paper
from cvpr21lib.papers.tables import table

PAPER = Paper(
    slug="lptn",
    number=1,
    short="LPTN",
    title="High-Resolution Photorealistic Image Translation in Real-Time: A Laplacian Pyramid Translation Network",
    authors=("Jie Liang", "Hui Zeng", "Lei Zhang"),
    venue="CVPR 2021",
    arxiv="2105.09188",
    code=Code("https://github.com/csjliang/LPTN", "Apache-2.0"),
    notebook="notebooks/01_lptn.ipynb",
    claim=(
        "Illumination and colour live in the small low-pass image of a Laplacian pyramid: translate only that, "
        "re-weight the fine bands with a cheap mask, and a 4K photograph is retouched in real time."
    ),
    data=(datasets.FIVEK, datasets.LPTN_FLICKR),
    reading=(
        "Two versions of the network exist. The released one scores higher than the paper's; its authors kept "
        "no detailed table of it (official issue 42). The cells of the paper's own tables are recalled."
    ),
    tables=(
        table(
            "released",
            "Released code, FiveK, unpaired training, 480p",
            """
            model                                               | PSNR (dB) ↑ | source
            released architecture, L=3                          | 22.9        | official README
            released architecture without the residual masking  | 22.7        | official issue 5, author's answer
            """,
            source="official README",
            note="“Residual masking” adds the band to the masked band; without it the band is only multiplied.",
        ),
        table(
            "fivek",
            "FiveK, unpaired training",
            """
            method    | 480p PSNR (dB) ↑ | 480p SSIM ↑ | 1080p PSNR (dB) ↑ | 1080p SSIM ↑ | original PSNR (dB) ↑ | original SSIM ↑
            CycleGAN  | 20.98? | 0.831? | 20.86? | 0.846? | out of memory? | –
            UNIT      | 19.63? | 0.811? | 19.32? | 0.802? | out of memory? | –
            MUNIT     | 20.32? | 0.829? | 20.28? | 0.815? | out of memory? | –
            White-Box | 21.32? | 0.864? | 21.26? | 0.872? | 21.17?         | 0.875?
            DPE       | 21.99? | 0.875? | 21.94? | 0.885? | out of memory? | –
            LPTN, L=3 | 22.12? | 0.878? | 22.09? | 0.883? | 22.02?         | 0.879?
            LPTN, L=4 | 22.10? | 0.872? | 22.03? | 0.870? | 21.98?         | 0.862?
            LPTN, L=5 | 21.94? | 0.866? | about 21.9? | …  | about 21.9?    | …
            """,
            source="paper, Table 1",
        ),
        table(
            "seconds",
            "Seconds per image, one GPU, forward pass only",
            """
            method    | 480p ↓ | 1080p ↓ | 2K ↓   | 4K ↓
            CycleGAN  | 0.325? | 0.562?  | out of memory? | out of memory?
            UNIT      | 0.294? | 0.483?  | out of memory? | out of memory?
            MUNIT     | 0.336? | 0.675?  | out of memory? | out of memory?
            White-Box | 2.846? | 5.123?  | 6.542? | 11.342?
            DPE       | 0.032? | 0.091?  | out of memory? | out of memory?
            LPTN, L=3 | 0.003? | 0.012?  | 0.043? | 0.082?
            LPTN, L=4 | …      | …       | …      | …
            LPTN, L=5 | …      | …       | …      | about 0.02?
            """,
            source="paper, Table 2",
            note=(
                "A public summary of the paper supports that 4K takes less than 0.1 s, and that LPTN is about 80 "
                "times faster than the compared methods on average."
            ),
        ),
        table(
            "user_study",
            "User study, day→night and summer→winter",
            """
            method      | votes
            all methods | …
            """,
            source="paper",
        ),
    ),
)
