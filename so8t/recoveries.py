"""What this project did by itself about a fault: `sessions/<id>/recoveries.jsonl`, one line each, for people to see.

The lines are appended by whichever process acts: the flow's for waits and fresh starts, a training's own for a lowered
learning rate. A line says what was done, never what to do next: that is decided from the session's own fields.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from so8t import durable
from so8t.progress import lines_of
from so8t.session import now
from so8t.session import read as read_session

FILE = "recoveries.jsonl"
RUN_PREFIX = "run-"
KEY_DIGITS = 12


class Recovery(BaseModel):
    """One line. `outcome` is a word or a few: waiting, went on, tried again, given up, stopped, ..."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    at: str  # UTC, ISO 8601
    step: str  # `train`, `bake.quantize[Q8_0]`
    fault: str  # a `so8t.faults.Fault`
    policy: str
    detail: str = ""
    outcome: str = ""
    session: str = ""


def session_of(step: str, key: str) -> str:
    """The session of one step and key."""
    return f"{step}-{key[:KEY_DIGITS]}"


def record(
    home: Path, session_id: str, *, step: str, fault: str, policy: str, detail: str = "", outcome: str = ""
) -> Recovery:
    """Append one line to a session, durably; where that fails it is told on stderr, and the recovery goes on."""
    made = Recovery(
        at=now(), step=step, fault=str(fault), policy=policy, detail=detail, outcome=outcome, session=session_id
    )
    path = home / "sessions" / session_id / FILE
    with durable.replacing_no_error(path):
        durable.append_line(path, made.model_dump_json())
    return made


def read(home: Path, run: str = "") -> list[Recovery]:
    """Every recovery of a home, oldest first; with a run's id only that run's and those of the steps that it uses."""
    folders = _of_run(home, run) if run else sorted((home / "sessions").glob("*"))
    found = []
    for folder in folders:
        for line in lines_of(folder / FILE):
            try:
                found.append(Recovery.model_validate(line))
            except ValidationError:
                continue  # of another version
    return sorted(found, key=lambda recovery: recovery.at)


def overrides(home: Path, run: str = "") -> dict[str, dict[str, float]]:
    """What recoveries changed, by session and setting, of a home or of one run's steps."""
    folders = _of_run(home, run) if run else sorted((home / "sessions").glob("*"))
    sessions = {folder.name: found for folder in folders if (found := read_session(folder)) is not None}
    return {name: dict(session.overrides) for name, session in sessions.items() if session.overrides}


def _of_run(home: Path, run: str) -> list[Path]:
    """Folders of the run's session and of its steps' sessions."""
    folder = home / "sessions" / (RUN_PREFIX + run.removeprefix(RUN_PREFIX))
    session = read_session(folder)
    used = [name.partition("/") for name in session.artifacts] if session is not None else []
    return [folder, *(home / "sessions" / session_of(step, key) for step, _, key in used)]
