"""What the papers report beside what this library measured, as Markdown.

The book's results page and `cvpr21 results` are made here, from the register (`papers`) and from records
(`record`); nothing is typed in twice.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby

from cvpr21lib import papers
from cvpr21lib.papers import Paper, pages
from cvpr21lib.record import Record


def page(records: Iterable[Record]) -> str:
    """All eight papers: their reported tables, then the runs of this library."""
    records = list(records)
    return "\n\n".join(
        section(paper, [each for each in records if each.paper == paper.slug]) for paper in papers.all()
    )


def section(paper: Paper, records: Sequence[Record]) -> str:
    """One paper: a heading, what it reports, and what this library measured, if it was run."""
    parts = [
        f"## {paper.number}. {paper.short}",
        f"*{paper.title}.* {', '.join(paper.authors)}. {paper.venue}. [Paper]({paper.url}); "
        f"official {pages.code(paper.code)}.",
        pages.reported_tables(paper),
    ]
    if records:
        parts += [f"**This library.** {_provenance(records)}", runs(records)]
    elif paper.notebook:
        parts.append("**This library.** No record of a run is here yet.")
    else:
        parts.append("**This library.** The chapter is not written yet.")
    return "\n\n".join(parts)


def runs(records: Iterable[Record]) -> str:
    """One row an experiment: the mean over its seeds of every number, with the sample standard deviation."""
    ordered = sorted(records, key=_experiment)
    columns = sorted({name for record in ordered for name in record.numbers})
    rows = []
    for (profile, name), group in groupby(ordered, key=_experiment):
        same = list(group)
        numbers = (_spread([each.numbers[c] for each in same if c in each.numbers]) for c in columns)
        steps = sorted({each.steps for each in same})
        seeds = " ".join(str(each.seed) for each in sorted(same, key=lambda record: record.seed))
        rows.append((name, profile, seeds, " ".join(map(str, steps)), *numbers))
    return pages.markdown(("run", "profile", "seeds", "steps", *columns), rows)


def _experiment(record: Record) -> tuple[str, str]:
    return (record.profile, record.name)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2g}"


def _provenance(records: Sequence[Record]) -> str:
    torch = ", ".join(sorted({str(each.versions.get("torch", "?")) for each in records}))
    processors = sorted({str(each.hardware.get("processor", "?")) for each in records})
    gpus = sorted({str(gpu) for each in records for gpu in each.hardware.get("gpus", ())})
    return f"Mean ± standard deviation over seeds; torch {torch}, on {', '.join(gpus or processors)}."
