"""Who is running what: `$SO8T_HOME/sessions/<id>/session.json`.

A session belongs to one step and key, or to one run, so its id is a function of either: a process that
comes back after a power cut finds its own session without being told.
"""

import os
import threading
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from so8t import durable
from so8t.progress import Metric

Status = Literal["running", "interrupted", "completed", "failed"]
SESSION = "session.json"
# A heartbeat while only the amount of work done changes.
BEAT_S = 30.0


class Heartbeat(BaseModel):
    """A sign of life; a pid means something only together with the boot that it was given in."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    pid: int = 0
    boot_id: str = ""
    time: str = ""


class Resume(BaseModel):
    """One start that went on from a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    checkpoint: str = ""
    step: int = 0
    time: str = ""


class FreshStart(BaseModel):
    """A step was begun anew because its device was lost or it hung: when (Unix time), and how far it had ever come."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    at_s: float
    reached: int = 0


class Session(BaseModel):
    """One long-running piece of work. Old or foreign files load: absent fields take these values."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    session_id: str
    kind: str = "train"
    status: Status = "interrupted"
    completed: bool = False
    start_time: str = ""
    end_time: str = ""
    last_progress_time: str = ""
    phase: str = ""
    current_epoch: int = 0
    current_step: int = 0
    total_steps: int = 0
    best_loss: float | None = None
    checkpoints: list[str] = []
    last_checkpoint_time: str = ""
    heartbeat: Heartbeat = Heartbeat()
    attempts: int = 0
    priority: int = 0
    resumes: list[Resume] = []
    problems: list[str] = []
    # What recovery changed, by `phase.setting`: never in the user's YAML.
    overrides: dict[str, float] = {}
    # Of runs only: failures and fresh starts by step key, who supervised the last attempt, what it had reached, attempts since then.
    failures: dict[str, int] = {}
    fresh_starts: dict[str, list[FreshStart]] = {}
    supervisor: str = ""
    reached: dict[str, int] = {}
    stalled: int = 0
    # Of runs only: `<step>/<key>` of every artifact that it makes or uses, noted before it is made.
    artifacts: list[str] = []


class SessionFile:
    """A session on disk; every change is durable at once, and any thread may make one."""

    def __init__(self, folder: Path, session: Session) -> None:
        self.folder, self.session = folder, session
        self._changing = threading.RLock()

    @classmethod
    def open(cls, home: Path, session_id: str, kind: str) -> "SessionFile":
        """Take up the session with this id, or begin it."""
        folder = home / "sessions" / session_id
        found = read(folder)
        session = found or Session(session_id=session_id, kind=kind, start_time=now())
        file = cls(folder, session)
        file.update(status="running", attempts=session.attempts + 1, end_time="")
        return file

    def update(self, **changes: Any) -> None:
        """Change fields, renew the heartbeat (unless it is among the changes), write."""
        beat = Heartbeat(pid=os.getpid(), boot_id=boot_id(), time=now())
        with self._changing:
            self.session = self.session.model_copy(update={"heartbeat": beat, **changes})
            durable.write_json(self.folder / SESSION, self.session.model_dump(mode="json"))

    def alone(self) -> AbstractContextManager[object]:
        """While no other thread changes it: for a change that depends on what is there."""
        return self._changing

    def count_failure(self, name: str) -> None:
        """One more failure of the step with this name in this run."""
        with self._changing:
            spent = self.session.failures
            self.update(failures={**spent, name: spent.get(name, 0) + 1})

    def note_artifact(self, name: str) -> None:
        """This run makes or uses `<step>/<key>`; cleanup keeps it while the run is unfinished."""
        with self._changing:
            if name not in self.session.artifacts:
                self.update(artifacts=[*self.session.artifacts, name])

    def end(self, status: Status) -> None:
        """Say how this attempt ended."""
        self.update(status=status, completed=status == "completed", end_time=now())


class SessionProgress:
    """A progress sink: renews the heartbeat and notes how far the work is, every `BEAT_S`."""

    def __init__(self, file: SessionFile) -> None:
        self._file, self._beaten_at, self._done = file, time.monotonic(), 0.0

    def report(self, step: str, done: float, total: float | None, message: str, metrics: dict[str, Metric]) -> None:
        """Only more work done counts as progress."""
        if time.monotonic() - self._beaten_at < BEAT_S:
            return
        self._beaten_at = time.monotonic()
        changes: dict[str, Any] = {"phase": message, "current_step": int(done), "total_steps": int(total or 0)}
        if done > self._done:
            changes["last_progress_time"] = now()
        self._done = done
        self._file.update(**changes)


def read(folder: Path) -> Session | None:
    """The session of a folder; None where there is none that can be read."""
    try:
        return Session.model_validate(durable.read_json(folder / SESSION))
    except (FileNotFoundError, ValueError, ValidationError):
        return None


def sessions(home: Path) -> list[Session]:
    """Every readable session, the one with the newest progress first."""
    found = [session for folder in sorted((home / "sessions").glob("*")) if (session := read(folder)) is not None]
    return sorted(found, key=lambda session: session.last_progress_time or session.start_time, reverse=True)


def is_alive(session: Session) -> bool:
    """Whether the process of the last heartbeat still exists, in this very boot."""
    beat = session.heartbeat
    return session.status == "running" and beat.boot_id == boot_id() and beat.pid > 0 and psutil.pid_exists(beat.pid)


def boot_id() -> str:
    """A name for the time since the last boot: the kernel's own on Linux, else the boot time to ten seconds."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        # psutil derives it from the clock, which may be set; a pid of another boot is refused either way.
        return f"boot-{round(psutil.boot_time(), -1):.0f}"


def now() -> str:
    """UTC time in ISO 8601."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
