"""Every link and source within the book leads somewhere."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.browser


class Document(HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: set[str] = set()
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in {"href", "src"} and value:
                self.references.add(value)
            elif name == "id" or (tag == "a" and name == "name"):
                self.places.add(value or "")


document = cache(Document)


def html(book: Path) -> list[Path]:
    """The book's pages; among its static files, the theme keeps a template that is none."""
    return [path for path in sorted(book.rglob("*.html")) if "_static" not in path.parts]


def test_links_within_the_book_lead_to_pages_and_places_that_exist(book):
    broken = []
    for path in html(book):
        for reference in sorted(document(path).references):
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.suffix == ".html" and target.is_file():
                found = not parts.fragment or unquote(parts.fragment) in document(target).places
            else:
                found = target.is_file()
            if not found:
                broken.append(f"{path.relative_to(book)} -> {reference}")
    assert broken == []
