"""How often a trial's process died without getting further, in the session of the trial.

Who is stopped by a signal saves and says so. A process that ends with an error, or without a word while its parent
lives on, died of what it did. One that vanished together with its parent was cut off: that says nothing of the trial.
"""

import shutil
from pathlib import Path

import psutil

from so8t import durable
from so8t.births import birth
from so8t.loop.checkpoint import Checkpoints
from so8t.session import Session, SessionFile, now, read

REACHED = "checkpoint"


def begin_attempt(folder: Path, session_id: str, checkpoints: Checkpoints) -> SessionFile:
    """Open the trial's session; its `stalled` counts the deaths in a row since the newest checkpoint, or the begin."""
    before, parent = read(folder), parent_identity()
    reached = max((int(name.rpartition("-")[2]) for name in checkpoints.names()), default=-1)
    session = before or Session(session_id=session_id, kind="trial", start_time=now())
    died = before is not None and (
        before.status == "failed" or (before.status == "running" and before.supervisor == parent)
    )
    further = reached > session.reached.get(REACHED, -1)
    file = SessionFile(folder, session)
    file.update(
        status="running",
        attempts=session.attempts + 1,
        supervisor=parent,
        reached={REACHED: reached},
        stalled=0 if further else session.stalled + died,
    )
    return file


def parent_identity() -> str:
    """The process above this one; a process id alone is given again."""
    parent = psutil.Process().parent()
    return birth(parent.pid) if parent else ""


def forget(folder: Path) -> None:
    """Remove what a trial kept; first from its name, so that a cut leaves nothing half."""
    if folder.exists():
        dying = folder.with_name(folder.name + durable.TMP_SUFFIX)
        shutil.rmtree(dying, ignore_errors=True)
        durable.replace(folder, dying)
        shutil.rmtree(dying, ignore_errors=True)
