"""A step's process that hangs is ended by whoever watches it; its parent must know that.

Otherwise the parent would take the end for a stop that the user asked for, and not begin the step again. On Windows,
where nobody can send the process a signal, the note is also what asks it to save and end.
"""

import _thread
import os
import signal
import threading
import time
from pathlib import Path

from so8t import durable
from so8t.errors import StepFailed
from so8t.faults import Fault

SUFFIX = "ended.json"
# Between two looks for the note.
LOOK_S = 1.0


def note_of(progress: Path) -> Path:
    """The note that belongs to the progress file of a step's process."""
    return progress.with_name(progress.name.removesuffix("progress.jsonl") + SUFFIX)


def say(progress: Path, why: str) -> None:
    """Note, before the process is ended, that it is ended because it hangs."""
    durable.write_json(note_of(progress), {"fault": Fault.HANG, "why": why})


def found(note: Path, step: str, log: Path) -> StepFailed | None:
    """The error of a step whose process was ended so; None where nobody said so."""
    try:
        why = str(durable.read_json(note)["why"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
    error = StepFailed(f"{step} was ended because it hung: {why}; see {log}")
    error.fault = Fault.HANG
    return error


def heed(progress: Path) -> None:
    """From now on the note is, on Windows, to this process what SIGTERM is elsewhere; a thread looks for it."""
    if os.name == "nt":
        watch(note_of(progress))


def watch(note: Path) -> None:
    """Raise SIGTERM here once the note is there. Its handler is Python's: it runs when native code lets it."""

    def look() -> None:
        while not note.exists():
            time.sleep(LOOK_S)
        _thread.interrupt_main(signal.SIGTERM)

    threading.Thread(target=look, name="hang", daemon=True).start()
