"""Processes that should be making progress: the one of each run, and those that it has started for its steps.

A run's process is the one that holds the run's lock. A step's is known by its command line, which names the file that it
reports to: no recorded process id is believed.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from so8t import fence, recoveries
from so8t.births import birth
from so8t.session import Session, is_alive, sessions

OPTION = "--progress-file"


@dataclass(frozen=True)
class Unit:
    """One such process. `sign` is another after each report; `place` is where it notes things of itself."""

    run: str
    step: str  # empty: the run's own process
    pid: int
    born: str
    place: Path
    sign: str
    attended: bool  # whether somebody begins it again when it is ended

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.step or 'the process'} of run {self.run}"

    @property
    def key(self) -> str:
        """The same as long as it is this process."""
        return f"{self.run} {self.step} {self.born}"


def units(home: Path) -> list[Unit]:
    """Of every run with a living process: its steps' processes, or its own where it works without any."""
    found = []
    for session in sessions(home):
        run = fence.run_of(session)
        if run is None or not is_alive(session) or fence.is_free(home, run):
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(session.heartbeat.pid)
            found += steps_of(process, run) or [_of_run(home, session, run, process)]
    return found


def steps_of(parent: psutil.Process, run: str) -> list[Unit]:
    """The steps' processes below one process; of those that share a step the first."""
    found: dict[Path, Unit] = {}
    for process in parent.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            progress = _progress_file(process.cmdline())
            if progress is None or progress in found:
                continue
            step = progress.name.removesuffix(".progress.jsonl")
            size = progress.stat().st_size if progress.exists() else 0
            found[progress] = Unit(run, step, process.pid, birth(process.pid), progress, str(size), True)
    return list(found.values())


def _progress_file(command: list[str]) -> Path | None:
    place = command.index(OPTION) + 1 if OPTION in command else len(command)
    return Path(command[place]) if place < len(command) else None


def _of_run(home: Path, session: Session, run: str, process: psutil.Process) -> Unit:
    """Between two steps, or in one that runs in this very process. A note of a recovery is a sign of life too."""
    folder = home / "sessions" / session.session_id
    notes = len(recoveries.read(home, run))
    sign = f"{session.heartbeat.time} {session.last_progress_time} {session.current_step} {session.phase} {notes}"
    # Only `so8t up` begins a run's process again; `so8t run` is somebody's own.
    attended = bool(session.supervisor)
    return Unit(run, "", process.pid, birth(process.pid), folder / fence.PROCESS, sign, attended)
