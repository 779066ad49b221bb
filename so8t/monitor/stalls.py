"""What hangs: a process that was seen to show no sign of progress for too long, look by look."""

from collections.abc import Iterable

import psutil

from so8t.monitor.config import Monitor
from so8t.monitor.finding import Finding
from so8t.monitor.processes import Unit
from so8t.monitor.state import State, Watched

# A run that waits between two steps, for the network or for room, says so every five minutes.
BETWEEN, BETWEEN_MIN_S = 2.0, 900.0


def note(state: State, signs: Iterable[tuple[str, str]], seen_s: float) -> None:
    """Count the seconds that were seen since the last look for all who show the same sign; forget who is gone."""
    watched = {}
    for key, sign in signs:
        before = state.watched.get(key)
        same = before is not None and before.sign == sign
        watched[key] = Watched(sign=sign, idle_s=before.idle_s + seen_s if before is not None and same else 0.0)
    state.watched = watched


def limit_s(unit: Unit, settings: Monitor) -> float:
    """From how many seconds without a sign on it hangs."""
    own_s = settings.stall_minutes * 60
    return own_s if unit.step else max(BETWEEN_MIN_S, BETWEEN * own_s)


def hanging(state: State, units: Iterable[Unit], settings: Monitor) -> list[Unit]:
    """Those beyond their limit."""
    return [unit for unit in units if state.watched[unit.key].idle_s >= limit_s(unit, settings)]


def finding_of(unit: Unit, state: State) -> Finding:
    """The same in words."""
    idle_s = state.watched[unit.key].idle_s
    stopped = " (it was stopped by a signal)" if is_stopped(unit.pid) else ""
    found = f"{unit.name} has reported nothing for {idle_s / 60:.0f} minutes that were seen{stopped}"
    do = "`so8t monitor recover`" if unit.attended else "end it (Ctrl+C): the same command goes on from here"
    return Finding("stall", unit.key, "warn", found, do)


def is_stopped(pid: int) -> bool:
    """Whether a signal has halted the process."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False
