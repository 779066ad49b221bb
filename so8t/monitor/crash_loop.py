"""A run that is started again and again and gets nowhere, whatever ends its attempts.

`so8t up` counts crashes; what takes itself down with everything else (a power supply that gives in under load, a driver
that resets the machine) looks to it like a power cut each time, which costs nothing. So starts are counted here.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from so8t import fence
from so8t.monitor.config import Monitor
from so8t.monitor.finding import Finding
from so8t.monitor.state import Start, State, remembered
from so8t.resumption import marks_now
from so8t.session import sessions

OPEN = ("running", "interrupted")


def note(home: Path, state: State, wall_s: float, settings: Monitor) -> None:
    """Note how often each open run was started; where anything was reached since the last look, from the beginning."""
    reached = hashlib.sha256(json.dumps(marks_now(home).reached, sort_keys=True).encode()).hexdigest()[:16]
    starts = {}
    for session in sessions(home):
        run = fence.run_of(session)
        if run is None or session.status not in OPEN:
            continue
        oldest_s = wall_s - settings.crash_loop_minutes * 60
        # What lies ahead was noted by a clock that has been set back since.
        recent = [start for start in state.starts.get(run, []) if oldest_s <= start.wall_s <= wall_s]
        kept = [start for start in recent if start.reached == reached]
        starts[run] = [*kept, Start(wall_s=wall_s, attempts=session.attempts, reached=reached)]
    state.starts = starts


def forget(home: Path, run: str) -> None:
    """Whoever begins a run again that was stopped has mended the cause: it has all its starts."""
    with remembered(home) as state:
        state.starts.pop(run, None)


def look(state: State, settings: Monitor) -> Iterator[Finding]:
    """Runs beyond the limit."""
    for run, starts in state.starts.items():
        again = starts[-1].attempts - starts[0].attempts
        if again >= settings.crash_loop_restarts:
            minutes = (starts[-1].wall_s - starts[0].wall_s) / 60
            found = f"run {run} was started {again} times in {minutes:.0f} minutes without a new checkpoint"
            do = "see its logs, mend the cause (power supply, driver, heat), then Retry it in the UI"
            yield Finding("crash-loop", run, "warn", found, do)
