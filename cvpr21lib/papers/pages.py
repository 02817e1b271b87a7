"""The register as Markdown, for the README and the book."""

from __future__ import annotations

from collections.abc import Sequence

from cvpr21lib.papers.entry import Code, DataSet, Paper
from cvpr21lib.papers.tables import Number, Table

UNCHECKED = "\N{NO-BREAK SPACE}(?)"

LEGEND = {
    "22.9": "verified: read where the source says, or confirmed by a second, independent source",
    f"22.1{UNCHECKED}": "unverified: recalled or seen at second hand; check the paper before relying on it",
    "…": "in the paper, not transcribed here",
    "–": "no such number",
}


def overview(papers: Sequence[Paper]) -> str:
    """The README's table: one row a paper; a chapter is linked only where it is written."""
    return markdown(
        ("", "paper", "in a sentence or two", "chapter", "official code"),
        [
            (
                str(paper.number),
                f"[{paper.title}]({paper.url})",
                paper.claim,
                f"[{paper.short}]({paper.notebook})" if paper.notebook else "not written yet",
                code(paper.code),
            )
            for paper in papers
        ],
    )


def legend() -> str:
    """What the marks in the tables of reported numbers mean."""
    return markdown(("mark", "meaning"), list(LEGEND.items()))


def reported_tables(paper: Paper) -> str:
    """All tables of one paper, each with its title, its note and its sources."""
    parts = [paper.reading] if paper.reading else []
    parts += [reported_table(each) for each in paper.tables]
    return "\n\n".join(parts)


def reported_table(table: Table) -> str:
    """One table; where its rows have several sources, a last column names them."""
    sources = [next((cell.source for cell in row.cells if cell), "") for row in table.rows]
    one_source = len(set(sources)) == 1
    head = (table.stub, *table.columns) if one_source else (table.stub, *table.columns, "source")
    rows = []
    for row, source in zip(table.rows, sources, strict=True):
        cells = (row.label, *map(mark, row.cells))
        rows.append(cells if one_source else (*cells, source))
    caption = f"**{table.title}.**" + (f" Source: {sources[0]}." if one_source else "")
    return "\n\n".join(filter(None, (caption, markdown(head, rows), table.note)))


def mark(number: Number | None) -> str:
    """A number with its status, in the notation of `legend`."""
    if number is None:
        return "–"
    if number.status == "not transcribed":
        return "…"
    return number.text if number.status == "verified" else f"{number.text}{UNCHECKED}"


def data_table(data_sets: Sequence[DataSet]) -> str:
    """Terms of each data set, how to obtain it, and the script that prepares it where there is one."""
    return markdown(
        ("data set", "terms", "how to obtain it", "script"),
        [
            (
                f"[{each.name}]({each.url})" if each.url else each.name,
                each.terms or "not known here: read them at the source",
                each.obtained,
                f"`{each.script}`" if each.script else "not yet",
            )
            for each in data_sets
        ],
    )


def code(code: Code | None) -> str:
    """A link to the official code with its licence."""
    if code is None:
        return "none"
    licence = {None: "licence not known here", "none given": "no licence given"}.get(
        code.licence, code.licence
    )
    return f"[code]({code.url}), {licence}" + (f"; {code.note}" if code.note else "")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
