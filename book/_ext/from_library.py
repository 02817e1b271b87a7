"""Sphinx directive for what the library itself can say: ```` ```{from-library} results ``` ````.

The Markdown is made while the book is built, so a page never shows a stale fact or misses a finished run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from cvpr21lib import papers, record, results
from cvpr21lib.papers import pages

ROOT = Path(__file__).parents[2]


def _results() -> str:
    """The runs kept with the book, and those of the reader's own."""
    folders = (ROOT / "book" / "records", Path(os.environ.get("CVPR21_RUNS", ROOT / "runs")))
    return results.page(record.collect(*(folder for folder in folders if folder.is_dir())))


BLOCKS: dict[str, Callable[[], str]] = {
    "legend": pages.legend,
    "data sets": lambda: pages.data_table(papers.data_sets()),
    "results": _results,
}


class FromLibrary(SphinxDirective):
    """Insert one of `BLOCKS`; its headings become sections of the page."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in BLOCKS:
            raise self.error(f"the library has no block {name!r}; it knows {', '.join(BLOCKS)}")
        self.env.note_reread()
        return self.parse_text_to_nodes(BLOCKS[name](), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("from-library", FromLibrary)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
