"""Put on PYTHONPATH by a test: the first process of a step hangs, as SO8T_HANG says; the next ones work.

SO8T_HANG is `<how>:<file>`: the file is made by the one that hangs, so that no other does. How: `sleep` (answers
signals) or `native` (keeps the interpreter, as a stuck native call does: no Python signal handler runs any more).
"""

import collections
import os
import sys
import time
from pathlib import Path


def _install(how: str, once: Path) -> None:
    import so8t.step

    real = so8t.step.execute

    def execute(*arguments: object) -> object:
        try:
            once.touch(exist_ok=False)
        except FileExistsError:
            return real(*arguments)  # type: ignore[arg-type]
        if how == "native":
            collections.deque(iter(int, 1), maxlen=0)
        while True:
            time.sleep(0.1)

    so8t.step.execute = execute  # type: ignore[assignment]


if "SO8T_HANG" in os.environ and "--progress-file" in sys.orig_argv:
    _how, _, _once = os.environ["SO8T_HANG"].partition(":")
    _install(_how, Path(_once))
