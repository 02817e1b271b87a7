"""What one entry of the register holds: a paper, its official code, its data sets and its tables."""

from __future__ import annotations

from dataclasses import dataclass

from cvpr21lib.papers.nearest import nearest
from cvpr21lib.papers.tables import Number, Table


@dataclass(frozen=True)
class Code:
    """The authors' own code."""

    url: str
    licence: str | None  # None: not known here; "none given": the repository has no licence file
    note: str = ""


@dataclass(frozen=True)
class DataSet:
    """One data set: whose it is, under which terms, and how one comes by it."""

    slug: str
    name: str
    terms: str | None  # None: not known here; read them at the source
    obtained: str
    url: str | None = None
    script: str | None = None  # `python -m data_scripts.<script>`; None: not written yet


@dataclass(frozen=True)
class Paper:
    """One of the eight papers."""

    slug: str  # name of its room in the library
    number: int  # of its chapter
    short: str  # what people call it
    title: str
    authors: tuple[str, ...]
    venue: str
    arxiv: str
    code: Code | None
    notebook: str | None  # from the root of the repository; None: chapter not written yet
    claim: str  # in one or two sentences of ours
    data: tuple[DataSet, ...]
    tables: tuple[Table, ...]
    reading: str = ""  # what to know before trusting the tables

    @property
    def url(self) -> str:
        """Where the paper can be read freely."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    def table(self, slug: str) -> Table:
        """One table by name; raises InputError naming the nearest known one."""
        tables = {each.slug: each for each in self.tables}
        return tables[nearest(slug, tables, f"table of {self.slug}")]

    def numbers(self) -> tuple[Number, ...]:
        """Every number of every table."""
        return tuple(number for each in self.tables for number in each.numbers())
