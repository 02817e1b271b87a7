"""The frame of every command line here: what a user can mend is one line, not a traceback."""

from __future__ import annotations

import sys

from cyclopts import App

from cvpr21lib.errors import InputError


def run(app: App) -> None:
    """Run `app` on the command line; an `InputError` is printed alone and ends with status 2."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)
