"""Put on PYTHONPATH by a test: in a flow's process the cleanup step waits, as a long step would.

SO8T_STANDIN names a folder: each process that enters the step adds its pid to `entered` and waits for `go`.
"""

import os
import sys
import time
from pathlib import Path


def _install(folder: Path) -> None:
    import so8t.cleanup.run as cleanup
    from so8t import child
    from so8t.errors import Interrupted

    real = cleanup.run

    def run(*arguments: object) -> object:
        with (folder / "entered").open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        while not (folder / "go").exists():
            if child.stopping.is_set():
                raise Interrupted("stopped")
            time.sleep(0.1)
        return real(*arguments)  # type: ignore[arg-type]

    cleanup.run = run  # type: ignore[assignment]


# Not in hooks, and not in the steps' own processes.
if "SO8T_STANDIN" in os.environ and (
    "prefect.engine" in sys.orig_argv or sys.orig_argv[1:4] == ["-m", "deployments.command", "run"]
):
    _install(Path(os.environ["SO8T_STANDIN"]))
