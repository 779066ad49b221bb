"""Runs a module as `python -m deployments.guard MODULE ARGS...`; ends it when standard input closes.

The kernel closes the pipe however the parent ends, on every platform, so nothing outlives `so8t up`.
"""

import _thread
import os
import runpy
import signal
import sys
import time

from so8t import lifeline

GRACE_S = 10.0


def _stop() -> None:
    _thread.interrupt_main(signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(143)


if __name__ == "__main__":
    lifeline.at_end(_stop)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
