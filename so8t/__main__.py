"""`python -m so8t`: the commands that need no Prefect."""

import sys

from so8t.cli import main

if __name__ == "__main__":
    sys.exit(main())
