"""The register of the eight papers.

What the book, the README and the command line say about a paper (who wrote it, what it claims, which numbers
it reports and how sure they are) is written here once, one file a paper, and read from here everywhere else.
Facts only: importing it needs nothing beyond Python's standard library.

    papers.get("lptn").table("released").cell("released architecture, L=3", "PSNR (dB) ↑").text   # "22.9"
"""

from __future__ import annotations

from cvpr21lib.papers import ctrl_uda, eopsn, eps, laeo_gaze, lptn, ppr10k, prosgan, smurf
from cvpr21lib.papers.entry import Code, DataSet, Paper
from cvpr21lib.papers.nearest import nearest
from cvpr21lib.papers.pages import overview
from cvpr21lib.papers.tables import STATUSES, Number, Row, Status, Table

__all__ = [
    "STATUSES",
    "Code",
    "DataSet",
    "Number",
    "Paper",
    "Row",
    "Status",
    "Table",
    "all",
    "data_sets",
    "get",
    "markdown_table",
]

_PAPERS = {
    module.PAPER.slug: module.PAPER
    for module in (lptn, ppr10k, eps, eopsn, ctrl_uda, prosgan, laeo_gaze, smurf)
}


def all() -> tuple[Paper, ...]:
    """The eight papers in the order of their chapters."""
    return tuple(_PAPERS.values())


def get(slug: str) -> Paper:
    """The paper of that name; raises InputError naming the nearest known one."""
    return _PAPERS[nearest(slug, _PAPERS, "paper")]


def data_sets() -> tuple[DataSet, ...]:
    """Every data set that a paper uses, each once, in the order of the papers."""
    return tuple({each.slug: each for paper in all() for each in paper.data}.values())


def markdown_table() -> str:
    """The table of the eight papers as the README shows it."""
    return overview(all())
