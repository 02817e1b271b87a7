"""The frame of every command line here: what a user can mend is one line, not a traceback."""

from __future__ import annotations

import sys

from cyclopts import App

from cvpr21lib.errors import InputError


def run(app: App) -> None:
    """Run `app` on the command line; an `InputError`, or a disk that fails, is one line and status 2."""
    try:
        app(sys.argv[1:])
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "\nInterrupted; nothing half-done carries its final name. Run the same command again.",
            file=sys.stderr,
        )
        sys.exit(130)
