"""Run the test Hub by hand: `python -m tests.hub --port 8900 --root DIR`, then set HF_ENDPOINT to its address."""

import argparse
import sys
import threading
from pathlib import Path

from tests.hub.server import HubServer
from tests.hub.store import READ_TOKEN, WRITE_TOKEN


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--root", type=Path, required=True, help="where repositories are kept")
    arguments = parser.parse_args()
    with HubServer(arguments.root, port=arguments.port) as hub:
        sys.stdout.write(f"HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1 HF_TOKEN={WRITE_TOKEN}\n")
        sys.stdout.write(f"(a token that may only read: {READ_TOKEN})\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
