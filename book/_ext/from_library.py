"""What the library itself can say, in the book: blocks from its register and records, and its docstrings.

A block, ```` ```{from-library} results ``` ````, is made while the book is built, so a page never shows a
stale fact or misses a finished run. Docstrings are plain text with `code` in it; here they become
reStructuredText.
"""

from __future__ import annotations

import os
import re
import textwrap
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


SECTION = re.compile(r"(Args|Returns|Yields|Raises):\n(?=    )")


def plain_docstring(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Rewrite one docstring in place: marks mean themselves, Args and Raises become lists of terms."""
    written: list[str] = []
    for block in re.split(r"\n{2,}", "\n".join(lines)):
        section = SECTION.match(block)
        if section:
            written.append(f"**{section[1]}**\n\n" + _terms(block[section.end() :]))
        elif not all(line.startswith("    ") for line in block.splitlines()):
            written.append(_text(block))
        elif written and (written[-1].startswith("    ") or written[-1] == "::"):
            written.append(block)
        else:
            written += ["::", block]
    if written[0].startswith("Alias for field number"):  # Python's own words on a named tuple
        written = []
    lines[:] = [*"\n\n".join(written).splitlines(), ""]


def _terms(block: str) -> str:
    """`name: what it is` a line, continued lines further in, as a list of definitions."""
    entries = re.split(r"\n(?=\S)", textwrap.dedent(block))
    pairs = (re.match(r"([\w*, ]+):\s+(.*)", entry, flags=re.DOTALL) for entry in entries)
    return "\n\n".join(
        f"``{pair[1]}``\n    {_text(' '.join(pair[2].split()))}" if pair else _text(entry)
        for pair, entry in zip(pairs, entries, strict=True)
    )


def _text(block: str) -> str:
    parts = re.split(r"(`[^`]+`)", block)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"`{part}`" + ("\\ " if re.match(r"\w", parts[i + 1]) else "")
        else:
            parts[i] = re.sub(r"([*|])", r"\\\1", part)
    return "".join(parts)


def short_signature(
    app: Sphinx,
    what: str,
    name: str,
    thing: object,
    options: object,
    signature: str | None,
    result: str | None,
) -> tuple[str | None, str | None]:
    """Types by their last name where Sphinx itself did not manage."""
    short, result = (text and re.sub(r"~(?:\w+\.)+(?=\w)", "", text) for text in (signature, result))
    return short, result


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("from-library", FromLibrary)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("autodoc-process-signature", short_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
