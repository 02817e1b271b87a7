"""EOPSN (CVPR 2021): the register's entry."""

# ruff: noqa: E501  (a row of a table stays on one line)

from __future__ import annotations

from cvpr21lib.papers import datasets
from cvpr21lib.papers.entry import Code, Paper
from cvpr21lib.papers.tables import table

PAPER = Paper(
    slug="eopsn",
    number=4,
    short="EOPSN",
    title="Exemplar-Based Open-Set Panoptic Segmentation Network",
    authors=("Jaedong Hwang", "Seoung Wug Oh", "Joon-Young Lee", "Bohyung Han"),
    venue="CVPR 2021",
    arxiv="2105.08336",
    code=Code("https://github.com/jd730/EOPSN", "CC BY-NC-SA 4.0", "the bundled detectron2 is Apache-2.0"),
    notebook="notebooks/04_eopsn.ipynb",
    claim=(
        "Objects that nobody labelled repeat: cluster the features of unlabelled proposals while training, take the "
        "dense clusters as exemplars of new classes, and segment their instances as “unknown”."
    ),
    data=(datasets.COCO2017,),
    reading=(
        "K is the share of COCO's thing classes hidden in training. EOPSN has lower recall than its baselines and "
        "several times their precision, so PQ alone hides what happens. A user's run of the released code at "
        "K = 20 % gave 15.6 / 79.2 / 19.6 for the unknown PQ / SQ / RQ: a few points between runs are normal."
    ),
    tables=(
        table(
            "coco",
            "COCO panoptic val2017, ResNet-50 FPN (PQ, SQ, RQ in %; higher is better)",
            """
            K, model                 | PQ   | SQ   | RQ   | things PQ | things SQ | things RQ | stuff PQ | stuff SQ | stuff RQ | unknown PQ | unknown SQ | unknown RQ
            supervised, closed set   | 39.4 | 77.7 | 48.4 | 45.8 | 80.7 | 55.4 | 29.7 | 73.1 | 38.0 | –    | –    | –
            K = 5 %, void-train      | 37.7 | 76.7 | 46.4 | 44.2 | 80.4 | 53.5 | 28.3 | 71.3 | 36.2 | 10.0 | 73.8 | 13.5
            K = 5 %, EOPSN           | 38.0 | 76.9 | 46.8 | 44.8 | 80.5 | 54.2 | 28.3 | 71.9 | 36.2 | 23.1 | 74.7 | 30.9
            K = 10 %, void-train     | 36.9 | 75.4 | 45.5 | 43.2 | 79.0 | 52.4 | 28.3 | 70.4 | 36.2 | 8.5  | 73.2 | 11.6
            K = 10 %, EOPSN          | 37.7 | 76.8 | 46.3 | 44.5 | 80.6 | 53.8 | 28.4 | 71.8 | 36.2 | 17.9 | 76.8 | 23.3
            K = 20 %, void-train     | 36.9 | 76.4 | 45.5 | 44.0 | 80.3 | 53.3 | 28.2 | 71.7 | 36.0 | 7.8  | 73.4 | 10.7
            K = 20 %, EOPSN          | 37.4 | 76.2 | 46.2 | 45.0 | 80.3 | 54.5 | 28.2 | 71.2 | 36.2 | 11.3 | 73.8 | 15.3
            """,
            source="paper's main table, as shown with the official code",
            note="The first three columns are over the known things and the 53 stuff classes.",
        ),
        table(
            "reruns",
            "The same, run again by others (%)",
            """
            K, model                   | unknown PQ | unknown SQ | unknown RQ | unknown recall | unknown precision | known PQ
            K = 5 %, void-suppression  | 6.7  | 76.2 | 8.8  | 39.9 | 4.9  | 38.0
            K = 5 %, void-train        | 8.6  | 72.7 | 11.8 | 29.8 | 7.3  | 37.3
            K = 5 %, EOPSN             | 23.1 | 74.7 | 30.9 | 25.9 | 38.3 | 38.0
            K = 10 %, void-suppression | 6.5  | 76.0 | 8.6  | 32.7 | 5.0  | 37.6
            K = 10 %, void-train       | 8.1  | 72.6 | 11.2 | 25.7 | 7.2  | 37.1
            K = 10 %, EOPSN            | 17.9 | 76.8 | 23.3 | 19.0 | 30.2 | 37.7
            K = 20 %, void-suppression | 7.2  | 75.3 | 9.5  | 27.6 | 5.8  | 37.5
            K = 20 %, void-train       | 7.5  | 72.9 | 10.3 | 21.8 | 6.7  | 36.8
            K = 20 %, EOPSN            | 11.3 | 73.8 | 15.3 | 11.8 | 21.9 | 37.4
            """,
            source="Xu et al., Dual Decision (BMVC 2022), same code base",
        ),
        table(
            "ablations",
            "Void treatments, mining and clustering parameters",
            """
            ablation                            | numbers
            four void treatments                | …
            mining and clustering parameters    | …
            """,
            source="paper",
        ),
    ),
)
