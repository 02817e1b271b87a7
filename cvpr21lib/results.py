"""What the papers report beside what this library measured, as Markdown.

The book's results page and `cvpr21 results` are made here, from the register (`papers`) and from records
(`record`); nothing is typed in twice.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cvpr21lib import papers
from cvpr21lib.papers import Paper, pages
from cvpr21lib.record import Record, differences


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
    """One row an experiment: the mean over its seeds of every number, with the sample standard deviation.

    Runs with the same name, profile, recipe and length are one experiment; of two runs with the same seed the
    later counts. Numbers of single images (their names have a slash) are left to the records.
    """
    experiments: dict[tuple[str, str, str, int], dict[int, Record]] = {}
    for each in sorted(records, key=lambda each: (each.profile, each.name, each.steps, each.finished)):
        recipe = json.dumps(_recipe(each), sort_keys=True, default=str)
        experiments.setdefault((each.profile, each.name, recipe, each.steps), {})[each.seed] = each
    groups = [list(by_seed.values()) for by_seed in experiments.values()]
    columns = list(dict.fromkeys(n for group in groups for one in group for n in one.numbers if "/" not in n))
    rows = [
        (
            _label(group[0], [other[0] for other in groups]),
            group[0].profile,
            " ".join(str(seed) for seed in sorted(one.seed for one in group)),
            str(group[0].steps),
            *(_spread([one.numbers[name] for one in group if name in one.numbers]) for name in columns),
        )
        for group in groups
    ]
    return pages.markdown(("run", "profile", "seeds", "steps", *columns), rows)


def _recipe(record: Record) -> Mapping[str, Any]:
    """The settings that make the numbers: not the seed, and not where or on how many devices it ran."""
    return record.settings.get("recipe", record.settings)


def _label(record: Record, others: Sequence[Record]) -> str:
    """The run's name, with the settings in which it differs from others of that name."""
    namesakes = [each for each in others if (each.profile, each.name) == (record.profile, record.name)]
    apart = {
        each.entry: each.first for other in namesakes for each in differences(_recipe(record), _recipe(other))
    }
    return record.name + "".join(f", {entry} {value}" for entry, value in apart.items())


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
