"""Put on PYTHONPATH by a test: SIGKILLs the whole run at the nth durable rename inside one step.

SO8T_KILL_AT=train:3 kills at the third rename that has /artifacts/train/ or that step's session in its path;
SO8T_KILL_ROOT names the file that holds the pid of the `so8t run` process. Each kill happens once.
"""

import os
import signal
from pathlib import Path


def _install(step: str, nth: int) -> None:
    from so8t import durable

    real, seen = durable.replace, {"n": 0}

    def replace(source: Path, target: Path) -> None:
        path = target.as_posix()
        if f"/artifacts/{step}/" in path or f"/sessions/{step}-" in path:
            seen["n"] += 1
            fired = Path(os.environ["SO8T_KILL_ROOT"])
            if seen["n"] == nth and not fired.exists():
                fired.write_text(path, encoding="utf-8")
                os.kill(
                    int(os.environ["SO8T_KILL_PID"]) if "SO8T_KILL_PID" in os.environ else os.getppid(), signal.SIGKILL
                )
                os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    durable.replace = replace


if "SO8T_KILL_AT" in os.environ:
    os.environ.setdefault("SO8T_KILL_PID", str(os.getpid()))
    name, _, number = os.environ["SO8T_KILL_AT"].rpartition(":")
    _install(name, int(number))
