"""Bringing one file from the network: whole and verified, or not at all.

pooch checks and places the file; what it lacks is brought by `_Transfer`, one of its downloaders: resuming a
broken transfer, also that of a killed process, and patience with servers. Until a file is whole its bytes
stand in `NAME.part`, and `NAME.part.json` says which version of the file they are from.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm.auto import tqdm
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from cvpr21lib import atomic
from cvpr21lib.errors import InputError
from data_scripts import space

BUSY = {408, 425, 429, 500, 502, 503, 504}
"""Answers that may be another one a little later."""

CHUNK = 1 << 16
"""Bytes between two writes; what a broken transfer loses at most."""


@dataclass(frozen=True)
class Patience:
    """How a transfer behaves when the network does not; in seconds, but for the first."""

    attempts: int = 6  # in a row that bring nothing new
    connect: float = 15.0  # for a connection to stand
    stall: float = 60.0  # without a byte, then the connection counts as lost
    backoff: float = 1.0  # the second attempt comes at once, then after 2, 4, 8, ... times this, and jitter
    longest: float = 60.0  # between two attempts


PATIENT = Patience()


def fetch(
    url: str,
    target: Path,
    checksum: str | None = None,
    size: int | None = None,
    patience: Patience = PATIENT,
) -> Path:
    """Bring `url` to the file `target`, unless it stands there already and is right.

    `checksum` is "md5:..." or "sha256:..." (or another algorithm of hashlib), `size` is in bytes; give what
    is known. A file whose checksum is wrong is thrown away and brought once more; then it is an error.

    Raises `InputError` where the address is wrong, the server refuses, offers another size or a web page, or
    keeps breaking off, and where the disk is too small. What has come so far is kept for the next call.
    """
    if not re.match(r"https?://", url):
        raise InputError(f"{url} is not a web address; expected http:// or https://.")
    if checksum is not None and not re.fullmatch(r"\w+:[0-9a-fA-F]{32,128}", checksum):
        raise InputError(
            f"The checksum {checksum!r} is not of the form md5:... or sha256:... in hexadecimal."
        )
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and size is not None and target.stat().st_size != size:
        target.unlink()
    transfer = _Transfer(target, size, checksum is not None, patience)
    # At its usual level pooch advises our users how to call pooch.
    pooch.get_logger().setLevel(logging.WARNING)
    for last in (False, True):
        try:
            pooch.retrieve(url, checksum, target.name, target.parent, downloader=transfer)
            break
        except InputError:
            raise
        except ValueError as error:  # pooch's word for a wrong checksum
            if last:
                raise InputError(
                    f"{url} came through twice, but not as the file it should be ({error}) It is damaged at "
                    "its source, or another version by now; fetch it by hand and compare."
                ) from error
    return target


class _Interrupted(Exception):
    """The transfer broke off, and may go on."""


class _Transfer:
    """A downloader for pooch, which calls it with the address and an empty file to be filled."""

    def __init__(self, target: Path, size: int | None, verified: bool, patience: Patience) -> None:
        self.target, self.size, self.verified, self.patience = target, size, verified, patience
        self.part = target.with_name(f"{target.name}.part")
        self.about = target.with_name(f"{target.name}.part.json")

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        # A killed process would leave pooch's empty file behind.
        Path(output_file).unlink()
        furthest = self._have()
        retry = self._retry()
        while True:
            try:
                self._go_on(url)
                break
            except _Interrupted as error:
                if self._have() > furthest:
                    furthest, retry = self._have(), self._retry()
                try:
                    retry = retry.increment(url=url, error=error)
                except MaxRetryError:
                    raise InputError(
                        f"{url} keeps breaking off ({error}); {space.readable(self._have())} have arrived. "
                        "Run the same command again to go on from there."
                    ) from error
                retry.sleep()
        self.part.replace(output_file)
        self.about.unlink(missing_ok=True)

    def _retry(self) -> Retry:
        patience = self.patience
        return Retry(
            total=patience.attempts - 1,
            backoff_factor=patience.backoff,
            backoff_jitter=patience.backoff,
            backoff_max=patience.longest,
        )

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _go_on(self, url: str) -> None:
        """Bring what is missing in one request. Raises `_Interrupted` where another one may help."""
        headers = {"Accept-Encoding": "identity", **self._wanted_range(url)}
        try:
            with requests.Session() as session:
                session.max_redirects = 10
                waits = (self.patience.connect, self.patience.stall)
                with session.get(url, headers=headers, stream=True, timeout=waits) as response:
                    if response.status_code == 416 and "Range" in headers:
                        self._beyond_the_end(response)
                    else:
                        self._receive(url, response)
        except requests.TooManyRedirects as error:
            raise InputError(f"{url} redirects in a circle; its owner has to mend that.") from error
        except requests.RequestException as error:
            raise _Interrupted(str(error)) from error
        except OSError as error:
            raise InputError(f"{self.part} cannot be written: {error.strerror}.") from error

    def _wanted_range(self, url: str) -> dict[str, str]:
        """Headers that ask for the missing rest, if the bytes at hand are surely of the same version."""
        if not self._have():
            return {}
        version = self._known_version(url)
        if version:
            return {"Range": f"bytes={self._have()}-", "If-Range": version}
        return {"Range": f"bytes={self._have()}-"} if self.verified else {}

    def _beyond_the_end(self, response: requests.Response) -> None:
        """Nothing lies beyond what we have: either it is all there, or it is of another file."""
        if response.headers.get("Content-Range") != f"bytes */{self._have()}":
            self.part.unlink()
            raise _Interrupted("the file at the source became shorter")

    def _receive(self, url: str, response: requests.Response) -> None:
        self._refuse(url, response)
        have = self._have()
        partial = response.status_code == 206
        if partial and not self._continues(url, response, have):
            self.part.unlink(missing_ok=True)
            raise _Interrupted("the file at the source changed meanwhile")
        start = have if partial else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if self.size is not None and total is not None and total != self.size:
            self.part.unlink(missing_ok=True)
            raise InputError(
                f"{url} should be {self.size} bytes long, but the server offers {total}: "
                "the file was replaced at its source. Fetch it by hand and look."
            )
        space.require(self.part.parent, (total or 0) - start, self.target.name)
        self._remember(url, response)
        with (
            self.part.open("ab" if partial else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=self.target.name) as progress,
        ):
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        if self.size is not None and self._have() != self.size:
            raise _Interrupted(f"{self._have()} of {self.size} bytes came")

    def _refuse(self, url: str, response: requests.Response) -> None:
        answer = f"{response.status_code} {response.reason}"
        if response.status_code in BUSY:
            raise _Interrupted(f"the server answers {answer}")
        if response.status_code not in (200, 206):
            raise InputError(
                f"{url} cannot be had: the server answers {answer}. The data set may have moved; "
                "fetch it by hand from its home page and give the file to the script."
            )
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise InputError(
                f"{url} answers with a web page instead of a file (a login, a form or a warning). "
                "Open it in a browser, fetch the file by hand and give it to the script."
            )

    def _continues(self, url: str, response: requests.Response, have: int) -> bool:
        """Whether a partial answer starts where we are and is of the same version."""
        starts_here = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        return starts_here and self._known_version(url) in (None, _version(response))

    def _known_version(self, url: str) -> str | None:
        about = json.loads(self.about.read_text()) if self.about.exists() else {}
        return about.get("version") if about.get("url") == url else None

    def _remember(self, url: str, response: requests.Response) -> None:
        with atomic.write(self.about) as temporary:
            temporary.write_text(json.dumps({"url": url, "version": _version(response)}))


def _version(response: requests.Response) -> str | None:
    """What names this version of the file (RFC 9110, 13.1.5): a strong ETag, else the date of its change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")
