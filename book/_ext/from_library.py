"""What the library itself can say, in the book: blocks from its register and records, and its docstrings.

A block, ```` ```{from-library} results ``` ````, is made while the book is built, so a page never shows a
stale fact or misses a finished run. Docstrings are plain text with `code` in it; here they become
reStructuredText.
"""

from __future__ import annotations

import os
import re
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


def plain_docstring(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Rewrite one docstring in place: stars and bars mean themselves, indented blocks stay as they are."""
    blocks = re.split(r"\n{2,}", "\n".join(lines))
    written: list[str] = []
    for block in blocks:
        indented = all(line.startswith("    ") for line in block.splitlines())
        if not indented:
            written.append(_text(block))
        elif written and (written[-1].startswith("    ") or written[-1] == "::"):
            written.append(block)
        else:
            written += ["::", block]
    lines[:] = [*"\n\n".join(written).splitlines(), ""]


def _text(block: str) -> str:
    parts = re.split(r"(`[^`]+`)", block)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"`{part}`" + ("\\ " if re.match(r"\w", parts[i + 1]) else "")
        else:
            parts[i] = re.sub(r"([*|])", r"\\\1", part)
    return "".join(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("from-library", FromLibrary)
    before_napoleon = 400  # which reads Args and Raises
    app.connect("autodoc-process-docstring", plain_docstring, priority=before_napoleon)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
