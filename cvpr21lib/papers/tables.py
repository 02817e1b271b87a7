"""Reported numbers, kept as tables that can be read in the source.

A table is written as lines of cells, the way one would note them on paper:

    method   | PSNR  | SSIM
    method A | 22.9  | 0.88?
    method B | …     | –

`22.9` was read where the table's `source` says (verified); `0.88?` is recalled and not yet checked against
the paper (unverified); `…` stands in the paper but is not transcribed here; `–` means that there is none.
A last column named `source` gives a row a source of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cvpr21lib.errors import InputError
from cvpr21lib.papers.nearest import nearest

Status = Literal["verified", "unverified", "not transcribed"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Number:
    """One reported number as its source prints it, e.g. "22.9", "44.3 ± 0.6", "out of memory"."""

    text: str  # empty when not transcribed
    status: Status
    source: str  # a table of the paper, a README, an issue, ...


@dataclass(frozen=True)
class Row:
    """One method or setting; a cell is None where no such number exists."""

    label: str
    cells: tuple[Number | None, ...]


@dataclass(frozen=True)
class Table:
    """Numbers reported for one experiment, with columns named by metric and unit."""

    slug: str
    title: str
    stub: str  # what a row is: "method", "setting", ...
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def numbers(self) -> tuple[Number, ...]:
        """Every number of the table, row by row."""
        return tuple(cell for row in self.rows for cell in row.cells if cell is not None)

    def cell(self, row: str, column: str) -> Number | None:
        """The number of one row and column, or None where none exists.

        Raises InputError for a label that is not there, naming the nearest one.
        """
        labels = [each.label for each in self.rows]
        i = labels.index(nearest(row, labels, f"row of table {self.slug!r}"))
        j = self.columns.index(nearest(column, self.columns, f"column of table {self.slug!r}"))
        return self.rows[i].cells[j]


def table(slug: str, title: str, text: str, *, source: str, note: str = "") -> Table:
    """Read the notation at the top of this module.

    Raises InputError for a line whose number of cells is not that of the first line.
    """
    lines = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    head, *body = lines
    own_sources = head[-1] == "source"
    columns = head[1:-1] if own_sources else head[1:]
    rows = []
    for line in body:
        if len(line) != len(head):
            raise InputError(f"table {slug!r}: {len(head)} cells a line expected, got {len(line)}: {line}")
        label, *cells = line
        where = source
        if own_sources:
            *cells, own = cells
            where = own or source
        rows.append(Row(label, tuple(_number(cell, where) for cell in cells)))
    return Table(slug, title, head[0], tuple(columns), tuple(rows), note)


def _number(cell: str, source: str) -> Number | None:
    if cell == "–":
        return None
    if cell == "…":
        return Number("", "not transcribed", source)
    if not cell.strip("?"):
        raise InputError(
            f"an empty cell: write … for a number not transcribed, – where there is none ({source})"
        )
    if cell.endswith("?"):
        return Number(cell[:-1], "unverified", source)
    return Number(cell, "verified", source)
