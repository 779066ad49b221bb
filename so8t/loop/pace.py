"""When the next rolling checkpoint is due, from what the last ones cost the training."""

import statistics
import time
from collections import deque
from typing import Any

from so8t.loop.writer import Saved

# The interval follows the median of so many: one slow moment of a busy machine must not stretch it for long.
LAST = 5


class Pace:
    """Every `interval_s`, or more rarely where stalls would take more than `stall_share` of the time."""

    def __init__(self, interval_s: float, stall_share: float) -> None:
        self.configured_s, self.stall_share = interval_s, stall_share
        self._stalls: deque[float] = deque(maxlen=LAST)
        self._saves: deque[Saved] = deque(maxlen=LAST)
        self._count, self._stalled_s, self._stall_max_s, self._save_max_s = 0, 0.0, 0.0, 0.0
        self._pending_s: float | None = None
        self._began_at = self._saved_at = time.monotonic()

    @property
    def interval_s(self) -> float:
        """Seconds from the start of a save to the start of the next."""
        stall_s = statistics.median(self._stalls) if self._stalls else 0.0
        save_s = statistics.median(saved.save_s for saved in self._saves) if self._saves else 0.0
        # A disk that is slower than the interval would be kept busy all the time.
        return max(self.configured_s, stall_s / self.stall_share, 2 * save_s)

    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() - self._saved_at >= self.interval_s

    def submitted(self, stall_s: float) -> None:
        """A save has begun and the training waited `stall_s` for it so far."""
        self._saved_at = time.monotonic()
        self._count += 1
        self._pending_s = stall_s

    def copied(self, stall_s: float) -> None:
        """The state may change again; the training waited another `stall_s` for that."""
        if self._pending_s is not None:
            stall_s, self._pending_s = stall_s + self._pending_s, None
            self._stalls.append(stall_s)
            self._stalled_s += stall_s
            self._stall_max_s = max(self._stall_max_s, stall_s)

    def saved(self, saved: Saved) -> None:
        """A save is durable."""
        self._saves.append(saved)
        self._save_max_s = max(self._save_max_s, saved.save_s)

    def statistics(self) -> dict[str, Any]:
        """For the log and the step's facts: seconds; medians are of the last few."""
        elapsed_s = time.monotonic() - self._began_at
        return {
            "count": self._count,
            "size_bytes": self._saves[-1].size_bytes if self._saves else 0,
            "interval_s": round(self.interval_s, 3),
            "stall_median_s": round(statistics.median(self._stalls), 6) if self._stalls else None,
            "stall_max_s": round(self._stall_max_s, 6),
            "stall_share": round(self._stalled_s / elapsed_s, 8) if elapsed_s else 0.0,
            "save_median_s": round(statistics.median(s.save_s for s in self._saves), 4) if self._saves else None,
            "save_max_s": round(self._save_max_s, 4),
        }
