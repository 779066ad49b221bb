"""How often a step is begun anew after a lost device or a hang: of long ago counts no more, once the step is past it."""

import time
from collections.abc import Sequence
from pathlib import Path

from so8t.recoveries import session_of
from so8t.session import FreshStart, SessionFile, read
from so8t.step import Ref

HOUR_S = 3600.0


def counting(starts: Sequence[FreshStart], reached: int, hours: float, now_s: float) -> list[FreshStart]:
    """Those that still count: of the last `hours`, and those that the step has not got beyond since.

    What lies ahead was noted by a clock that has been set back; it counts.
    """
    return [start for start in starts if start.at_s > now_s - hours * HOUR_S or start.reached >= reached]


def count(run: SessionFile, name: str, ref: Ref, key: str, hours: float) -> int:
    """Note one more of `name` in the run's session; how many count, this one included."""
    reached, now_s = _reached(run.folder.parent, ref, key), time.time()
    # The parts of a run share its session, and all of them lose a GPU in one moment.
    with run.alone():
        kept = counting(run.session.fresh_starts.get(name, []), reached, hours, now_s)
        # A step that goes on from a checkpoint stands behind where it was.
        furthest = max([reached, *(start.reached for start in kept)])
        kept.append(FreshStart(at_s=now_s, reached=furthest))
        run.update(fresh_starts={**run.session.fresh_starts, name: kept})
    return len(kept)


def _reached(sessions: Path, ref: Ref, key: str) -> int:
    """How far the step is by its own session; 0 where it keeps none."""
    session = read(sessions / session_of(ref.step, key))
    return session.current_step if session is not None else 0
