"""The built book served over HTTP on loopback, and a Chromium that can reach nothing else.

What the pages load from a CDN is answered from npm packages of the same version; any other request outside
is refused, and noted.
"""

from __future__ import annotations

import functools
import json
import os
import re
import runpy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "_build" / "html"
NPM = ROOT / ".venv" / "browser" / "node_modules"
CDN = re.compile(
    r"https://cdn\.jsdelivr\.net/npm/(?P<name>(?:@[^/]+/)?[^@/]+)@(?P<version>[^/]+)/(?P<path>[^?#]+)"
)
WIDGET = 'script[type="application/vnd.jupyter.widget-view+json"]'
DRAWN = "script => script.previousElementSibling?.querySelector('.jupyter-widgets')"


def unavailable(reason: str) -> None:
    """Skip on a reader's machine, fail where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def book() -> Path:
    if not (BOOK / "index.html").exists():
        unavailable("the book is not built; run `make book` first")
    return BOOK


@pytest.fixture(scope="session")
def address(book: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(book))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = runpy.run_path(str(Path(__file__).with_name("find_browser.py")))["find"]()
    if path is None:
        unavailable("no Chromium was found; `make browser` installs it where it may")
    if not NPM.is_dir():
        unavailable("the pages' scripts are not there; `make browser` fetches them with npm")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=quiet)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A page that was opened and has come to rest, with everything it complained about on the way."""

    page: Page
    address: str
    errors: list[str] = field(default_factory=list)
    weight: int = 0  # bytes of its own that the page loads: its text and images, not the theme's files

    def route(self, route: Route) -> None:
        url = route.request.url
        if url.startswith((self.address, "data:", "blob:")):
            return route.continue_()
        match = CDN.match(url)
        if match and (file := NPM / match["name"] / match["path"]).is_file():
            version = json.loads((NPM / match["name"] / "package.json").read_text())["version"]
            if f"{version}.".startswith(f"{match['version']}."):
                return route.fulfill(path=file)
        self.errors.append(f"asks for {url}")
        return route.abort()

    def open(self, name: str, query: str) -> None:
        self.page.route("**/*", self.route)
        self.page.on("pageerror", lambda error: self.errors.append(f"page error: {error}"))
        self.page.on("console", lambda message: self.hear(message.type, message.text))
        self.page.on("response", lambda response: self.weigh(response.url, response.status))
        self.page.goto(f"{self.address}/{name}.html{query}", wait_until="load")
        self.page.wait_for_function("() => !window.MathJax || (MathJax.startup && MathJax.startup.document)")
        self.page.evaluate("() => window.MathJax && MathJax.startup.promise")
        self.page.wait_for_function(f"() => [...document.querySelectorAll('{WIDGET}')].every({DRAWN})")
        self.page.wait_for_load_state("networkidle")

    def hear(self, kind: str, text: str) -> None:
        if kind == "error":
            self.errors.append(f"console: {text}")

    def weigh(self, url: str, status: int) -> None:
        if status >= 400:
            self.errors.append(f"{url} gives {status}")
        elif url.startswith(self.address) and not url.startswith(f"{self.address}/_static/"):
            path = BOOK / url.removeprefix(self.address).split("?")[0].split("#")[0].lstrip("/")
            self.weight += path.stat().st_size if path.is_file() else 0


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[..., Visit]]:
    """Open a page of the book: `visit("book/welcome")`."""
    contexts = []

    def open_page(name: str, query: str = "") -> Visit:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}))
        visit = Visit(contexts[-1].new_page(), address)
        visit.open(name, query)
        return visit

    yield open_page
    for context in contexts:
        context.close()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line of log for each."""

    def log_message(self, *_: object) -> None:
        return
