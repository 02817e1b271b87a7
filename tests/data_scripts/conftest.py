"""A web server on this machine that behaves as badly as a test asks it to."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Step = Callable[["Handler"], None]


class Site:
    """One file, `data.zip`, and what happens to those who ask for it.

    The n-th request is answered by `plan[n]`, all later ones by its last step. `requests` keeps the headers
    of each request, for the test to look at.
    """

    def __init__(self) -> None:
        self.content = random.Random(0).randbytes(300_000)
        self.etag: str | None = '"first"'
        self.plan: list[Step] = [self.serve]
        self.requests: list[dict[str, str]] = []
        self.url = ""
        self.over = threading.Event()

    def serve(self, handler: Handler) -> None:
        """Well-behaved: all of it, or the range that was asked for."""
        handler.send(self.content)

    def ignore_range(self, handler: Handler) -> None:
        """All of it, whatever was asked for."""
        handler.start(200, len(self.content))
        handler.wfile.write(self.content)

    def ignore_if_range(self, handler: Handler) -> None:
        """The range that was asked for, though the file is another one by now."""
        handler.send(self.content, heed_version=False)

    def corrupt(self, handler: Handler) -> None:
        """The right number of bytes, one of them wrong."""
        handler.send(self.content[:1000] + bytes([self.content[1000] ^ 1]) + self.content[1001:])

    def drop(self, after: int) -> Step:
        """Announces everything, sends `after` bytes from where it was asked to start, and hangs up."""
        return lambda handler: handler.send(self.content, only=after)

    def stall(self, after: int) -> Step:
        """Announces everything, sends `after` bytes, then nothing until the test is over."""

        def step(handler: Handler) -> None:
            handler.send(self.content, only=after)
            handler.wfile.flush()
            self.over.wait(20)

        return step

    def unannounced(self, after: int) -> Step:
        """Sends `after` bytes without having said how many there are, and hangs up."""

        def step(handler: Handler) -> None:
            handler.start(200, None)
            handler.wfile.write(self.content[:after])

        return step

    def answer(self, status: int, body: bytes = b"", **headers: str) -> Step:
        """A fixed answer: 404, a redirect, a web page. Underscores in the headers' names become hyphens."""

        def step(handler: Handler) -> None:
            handler.start(status, len(body), **headers)
            handler.wfile.write(body)

        return step


class Handler(BaseHTTPRequestHandler):
    """Answers with the next step of its site's plan, then hangs up (HTTP/1.0)."""

    site: Site

    def do_GET(self) -> None:
        step = self.site.plan[min(len(self.site.requests), len(self.site.plan) - 1)]
        self.site.requests.append(dict(self.headers.items()))
        step(self)

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def start(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if self.site.etag:
            self.send_header("ETag", self.site.etag)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, content: bytes, only: int | None = None, heed_version: bool = True) -> None:
        """`content`, or the range of it that was asked for; `only` so many bytes of what was announced."""
        version = self.headers.get("If-Range") if heed_version else None
        first = 0
        if "Range" in self.headers and version in (None, self.site.etag):
            first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if first >= len(content):
            self.start(416, 0, Content_Range=f"bytes */{len(content)}")
            return
        span = {"Content_Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
        self.start(206 if first else 200, len(content) - first, **span)
        self.wfile.write(content[first:][:only])


@pytest.fixture
def site() -> Iterator[Site]:
    """A running server and what it does."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("SiteHandler", (Handler,), {"site": site}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/data.zip"
    yield site
    site.over.set()
    server.shutdown()
    server.server_close()
    thread.join()
