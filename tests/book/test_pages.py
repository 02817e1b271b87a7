"""Every page of the book, as a reader's browser shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cvpr21lib import papers

pytestmark = pytest.mark.browser


def listed(node) -> list[str]:
    """The pages named in _toc.yml, in reading order."""
    if isinstance(node, list):
        return [name for item in node for name in listed(item)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("root", "file") if key in node]
    return own + [name for value in node.values() for name in listed(value)]


CONTENTS = listed(yaml.safe_load((Path(__file__).parents[2] / "_toc.yml").read_text()))
PAGES = [*CONTENTS, "search"]
ROOT = Path(__file__).parents[2]
MEGABYTE = 1_000_000


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole(visit, name):
    """No error or request outside, mathematics and widgets drawn, every image described, nothing cut off."""
    visited = visit(name)
    page = visited.page
    assert visited.errors == []
    assert page.locator(".math:not(:has(mjx-container))").count() == 0
    assert page.locator("mjx-merror").count() == 0
    assert undescribed_images(page) == []
    assert visited.weight < 3 * MEGABYTE, f"{visited.weight / MEGABYTE:.1f} MB"
    assert str(ROOT) not in page.content(), "the page shows where it was built"
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert too_wide(page) == [], f"wider than a screen of {width} px"


@pytest.mark.parametrize("name", [name for name in CONTENTS if name.startswith("notebooks/")])
def test_interactive_figures_follow_the_keyboard(visit, name):
    page = visit(name).page
    figures = page.locator(".cvpr21-frames").all()
    assert figures, "the chapter has no interactive figure"
    for figure in figures:
        for handle in figure.locator(".noUi-handle").all():
            last = int(float(handle.get_attribute("aria-valuemax")))
            handle.focus()
            page.keyboard.press("Home")
            seen = [shown(page, figure)]
            for _ in range(last):
                page.keyboard.press("ArrowRight")
                seen.append(shown(page, figure, other_than=seen[-1]))
            assert len(set(seen)) == last + 1
            page.keyboard.press("Home")
            assert shown(page, figure, other_than=seen[-1]) == seen[0]


@pytest.mark.parametrize("paper", papers.all(), ids=lambda paper: paper.slug)
def test_search_finds_each_paper(visit, paper):
    page = visit("search", query=f"?q={paper.short}").page
    page.wait_for_selector("#search-results li a")
    found = {
        link.get_attribute("href").split(".html")[0] for link in page.locator("#search-results li a").all()
    }
    assert (paper.notebook or "book/results").removesuffix(".ipynb") in found


def undescribed_images(page) -> list[str]:
    """Sources of the images without alternative text, but for the logo, which repeats the title beside it."""
    return page.evaluate(
        """() => [...document.querySelectorAll('img')]
            .filter(image => !image.alt && !image.closest('.navbar-brand'))
            .map(image => image.src.slice(0, 100))"""
    )


def too_wide(page) -> list[str]:
    """What makes the page wider than the screen, so that it would scroll sideways."""
    return page.evaluate(
        """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? []
            : [...document.querySelectorAll('article *')]
                .filter(part => part.getBoundingClientRect().right > document.documentElement.clientWidth)
                .map(part => part.outerHTML.slice(0, 120)).slice(-5)"""
    )


def shown(page, figure, other_than: str | None = None) -> str:
    """The alternative text of the one frame that a figure shows, once it is another than the last."""
    image = figure.locator("img:visible")
    if other_than is not None:
        page.wait_for_function(
            """([figure, before]) => [...figure.querySelectorAll('img')]
                .some(image => image.checkVisibility() && image.alt !== before)""",
            arg=[figure.element_handle(), other_than],
            timeout=5000,
        )
    assert image.count() == 1
    assert image.bounding_box()["width"] > 100
    return image.get_attribute("alt")
