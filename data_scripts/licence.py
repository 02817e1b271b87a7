"""Nothing under a licence is brought before the user has seen it and agreed."""

from __future__ import annotations

import sys

from cvpr21lib.errors import InputError
from cvpr21lib.papers.entry import DataSet


def require(data: DataSet, accepted: bool, files: str) -> None:
    """Show the terms of `data` and which `files` hold them. Return if they are `accepted`, or if the user at
    the terminal types "yes"; raise `InputError` otherwise."""
    print(f"{data.name}: {data.terms}.\nThe terms: {files}, at {data.url}", file=sys.stderr)
    if accepted:
        return
    if not sys.stdin.isatty():
        raise InputError(
            f"The terms of {data.name} must be accepted first: read them, then add --accept-licence."
        )
    print("Do you accept them? Type yes: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise InputError(f"The terms of {data.name} were not accepted; nothing was done.")
