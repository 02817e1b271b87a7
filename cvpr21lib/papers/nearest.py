"""Names that must be known, with help for those mistyped."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from cvpr21lib.errors import InputError


def nearest(name: str, known: Collection[str], kind: str) -> str:
    """Return `name` if it is known; otherwise raise an InputError that names the nearest known one."""
    if name in known:
        return name
    by_lower = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower[close[0]]!r}? " if close else ""
    raise InputError(f"unknown {kind} {name!r}: {hint}Known: {'; '.join(known)}.")
