"""`python -m cvpr21lib ...` is the same as `cvpr21 ...`."""

import sys

from cvpr21lib.cli import main

if __name__ == "__main__":  # processes started by a run import this file again
    sys.exit(main())
