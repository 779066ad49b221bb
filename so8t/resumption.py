"""Whether an interrupted run goes on: decided from the disk and the boot, not from Prefect's task states.

A run is limited by lack of progress, not by the number of its attempts: power may fail a hundred times. Progress
is a finished artifact, a checkpoint, or a session that came further than it ever was.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from so8t import durable
from so8t.artifacts import Store
from so8t.config import Resume
from so8t.session import Session, SessionFile, now, sessions

Action = Literal["resume", "wait", "confirm", "stop", "leave", "cancel", "supersede"]
BACKOFF_MAX_S = 900.0
STOP = "stop.json"


@dataclass(frozen=True)
class Decision:
    """What to do with a run whose process is gone, and why."""

    action: Action
    why: str
    costs: bool = False  # it counts against the limit


@dataclass(frozen=True)
class Marks:
    """Marks of progress on disk, of all runs: one worker serves them in turn."""

    reached: dict[str, int]


def decide(
    session: Session,
    policy: Resume,
    marks: Marks,
    supervisor: str,
    idle_s: float,
    *,
    asked: bool = False,
    stop: str = "",
) -> Decision:
    """Decide from the run's session and what the disk holds now.

    `supervisor` is the one that decides; an attempt that another one watched ended together with that one: in a
    power cut or a kill of everything, which is not the run's fault. `idle_s` is the time since the run was found
    without a process. `asked`: the user named this run. `stop`: why it is not to go on, if somebody said so.
    """
    crashed = bool(supervisor) and session.supervisor == supervisor
    if asked:
        return Decision("resume", "`so8t resume` asked for it")
    if stop:
        return Decision("stop", stop, crashed)
    if not policy.auto:
        return Decision("leave", "resume.auto is false; `so8t resume RUN` goes on with it")
    last = session.last_progress_time or session.start_time
    if last and _days_since(last) > policy.expiry_days:
        limit = f"resume.expiry_days = {policy.expiry_days:g}"
        # The moment and not the age: what is the same each time is said once.
        return Decision("leave", f"no progress since {last[:16]} ({limit}); `so8t resume RUN` goes on with it")
    stalled = 0 if further(session.reached, marks.reached) else session.stalled + crashed
    if stalled >= policy.attempts_max:
        return Decision("stop", f"{stalled} attempts in a row ended without any progress", crashed)
    pause_s = min(BACKOFF_MAX_S, policy.backoff_s * 2.0 ** (stalled - 2)) if crashed and stalled > 1 else 0.0
    if idle_s < pause_s:
        return Decision("wait", f"attempt {stalled + 1} without progress follows after {pause_s:.0f} s")
    if policy.confirm:
        return Decision("confirm", "resume.confirm is true: say `so8t resume RUN`")
    return Decision(
        "resume", "its process ended" if crashed else "everything was stopped, or the power failed", crashed
    )


def ask_to_stop(home: Path, run_id: str, why: str) -> None:
    """The run is not to go on by itself once its process is gone: the session is its owner's to write."""
    durable.write_json(_stop(home, run_id), {"why": why})


def asked_to_stop(home: Path, run_id: str) -> str:
    """Why the run is not to go on; empty where nobody said so."""
    try:
        return str(durable.read_json(_stop(home, run_id))["why"])
    except (FileNotFoundError, ValueError, KeyError):
        return ""


def forget_stop(folder: Path) -> None:
    """Whoever starts the run again by hand has mended the cause."""
    durable.retry_sharing(lambda: (folder / STOP).unlink(missing_ok=True))


def _stop(home: Path, run_id: str) -> Path:
    return home / "sessions" / f"run-{run_id}" / STOP


def marks_now(home: Path) -> Marks:
    """Finished artifacts, checkpoints, and the furthest step of each session."""
    reached = {f"{folder.parent.name}/{folder.name[:12]}": 1 for folder in Store(home).folders()}
    for session in sessions(home):
        if session.kind != "run":
            reached[session.session_id] = session.current_step
            reached |= {f"{session.session_id}/{checkpoint}": 1 for checkpoint in session.checkpoints}
    return Marks(reached)


def further(before: dict[str, int], now: dict[str, int]) -> bool:
    """Whether anything is there that was not, or came further than ever."""
    return any(mark > before.get(name, 0) for name, mark in now.items())


def note(file: SessionFile, marks: Marks, decision: Decision, supervisor: str) -> None:
    """Write down, durably, what the next decision needs: `supervisor` watches the attempt that follows.

    An attempt that fails before it reaches its lock writes nothing itself.
    """
    session = file.session
    stalled = 0 if further(session.reached, marks.reached) else session.stalled + decision.costs
    furthest = {name: max(mark, session.reached.get(name, 0)) for name, mark in marks.reached.items()}
    file.update(
        reached={**session.reached, **furthest},
        # A run that was stopped and is started again by hand has all its attempts.
        stalled=0 if decision.action == "stop" else stalled,
        status="failed" if decision.action == "stop" else "interrupted",
        heartbeat=session.heartbeat,
        supervisor=supervisor,
        start_time=session.start_time or now(),
    )
    forget_stop(file.folder)


def policy_of(parameters: dict[str, Any]) -> Resume:
    """The `resume` section in a run's own config; the defaults where it has none."""
    config = parameters.get("config")
    section = config.get("resume") if isinstance(config, dict) else None
    try:
        return Resume.model_validate(section or {})
    except ValidationError:
        return Resume()


def _days_since(text: str) -> float:
    """A clock that was set back makes it negative."""
    return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds() / 86400
