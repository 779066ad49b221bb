"""Faults that runs have noted: the typed lines of `logs/attempt_<n>/errors.jsonl`, each told once.

A line is known by what it says, its time included, not by where it stands: an old log that is copied, restored or read
again brings nothing new. What was noted before the first look is old.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from so8t.faults import POLICIES, Fault
from so8t.monitor.finding import Finding, Severity
from so8t.monitor.state import State
from so8t.progress import lines_of


def look(home: Path, state: State) -> Iterator[Finding]:
    """What was noted since the last look."""
    began_s, present = state.began_s or 0.0, []
    for path in sorted((home / "logs").glob("attempt_*/errors.jsonl")):
        for line in lines_of(path):
            if not isinstance(line, dict) or not isinstance(line.get("time"), int | float) or line["time"] < began_s:
                continue
            name = hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()[:16]
            if name not in state.seen and name not in present:
                yield _told(name, line, path)
            present.append(name)
    # Of logs that are gone nothing can come again.
    state.seen = present


def _told(name: str, line: dict[str, object], path: Path) -> Finding:
    try:
        fault = Fault(str(line.get("fault")))
    except ValueError:
        fault = Fault.UNKNOWN
    run = f" of {line['run']}" if line.get("run") else ""
    said = str(line.get("message", "")).partition("\n")[0]
    found = f"{fault}{run}: {said} ({path.parent.name}/{path.name})"
    severity: Severity = "note" if fault is Fault.STOPPED else "warn"
    return Finding("fault", name, severity, found, POLICIES[fault].do, once=True)
