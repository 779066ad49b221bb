"""How often a page may be drawn in the flow's process, beside the work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

INTERVAL_MIN_S = 30.0
# Of a core, for one page.
SHARE_MAX = 0.02


class Pace:
    """`pause_s` is the interval asked for, longer where drawing is dear: CPU time, so that a busy machine changes nothing."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = self.pause_s = max(interval_s, INTERVAL_MIN_S)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Draw in the block; what this thread spends there says how long the pause will be."""
        began = time.thread_time()
        try:
            yield
        finally:
            self.pause_s = max(self._interval_s, (time.thread_time() - began) / SHARE_MAX)
