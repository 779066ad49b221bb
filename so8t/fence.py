"""One process a run: an operating-system lock for each flow run.

The kernel drops the lock with the process, however that ends, so a free lock proves that nobody works on the
run; a recorded process id would prove nothing. The lock is taken before the heavy imports: whoever does not
get it leaves without having touched the run's state.
"""

import os
import sys
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from so8t import attempt, durable, stacks
from so8t.errors import So8tError
from so8t.session import Session, SessionFile, read

RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
SUPERVISOR_VARIABLE = "SO8T_SUPERVISOR"
# Prefect runs a flow's hooks in processes that import the flow and carry the same variables.
HOOK_PROGRAM = "_workspace_runtime_bootstrap.py"
# What a run's process notes of itself beside its session begins with this name.
PROCESS = "process"
# Whoever looks whether a lock is free holds it for an instant.
WAIT_S = 3.0

# Kept for the life of the process: a lock that is collected is released.
_held: dict[str, tuple[FileLock, SessionFile]] = {}


class AlreadyRunning(So8tError):
    """Another process works on this run."""


def lock_of(home: Path, run_id: str) -> FileLock:
    """The run's lock, not taken. Lock files are never unlinked: a second process could lock the unlinked inode."""
    folder = home / "locks"
    with durable.explain_full_disk(folder):
        durable.make_folder(folder)
    return FileLock(folder / f"run-{uuid.UUID(run_id).hex}.lock")


def is_free(home: Path, run_id: str) -> bool:
    """Whether no process works on the run at this moment."""
    if run_id in _held:
        return False
    try:
        with lock_of(home, run_id).acquire(timeout=0):
            return True
    except Timeout:
        return False


def hold(home: Path, run_id: str, wait_s: float = WAIT_S) -> SessionFile:
    """Take the run for the life of this process and note the attempt; AlreadyRunning if another has it."""
    lock = lock_of(home, run_id)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise AlreadyRunning(f"run {run_id} is being worked on by another process") from None
    session = SessionFile.open(home, session_id(run_id), "run")
    session.update(supervisor=os.environ.get(SUPERVISOR_VARIABLE, ""))
    _held[run_id] = (lock, session)
    stacks.answer(session.folder / PROCESS)
    return session


def current() -> SessionFile | None:
    """Session of the run that this process works on, if it works on one."""
    return next((session for _, session in _held.values()), None)


def session_id(run_id: str) -> str:
    """Name of the run's session: its attempts, retries and marks of progress."""
    return f"run-{uuid.UUID(run_id)}"


def run_of(session: Session) -> str | None:
    """Id of the run that a session belongs to; None for the session of a step, or a foreign one."""
    try:
        return str(uuid.UUID(session.session_id.removeprefix("run-"))) if session.kind == "run" else None
    except ValueError:
        return None


def session_of(home: Path, run_id: str) -> SessionFile:
    """The run's session without beginning an attempt."""
    folder = home / "sessions" / session_id(run_id)
    return SessionFile(folder, read(folder) or Session(session_id=session_id(run_id), kind="run"))


def enter() -> None:
    """In a process that was started for a flow run: take the run or leave; output goes to the attempt's folder.

    Exit code 0 is the only one with which the supervising worker leaves the run's state alone. A file for the
    output lets this process outlive that worker, whose pipe would break.
    """
    run_id, program = os.environ.get(RUN_VARIABLE), Path(sys.argv[0]).name
    if not run_id or program == HOOK_PROGRAM:
        return
    home = Path(os.environ["SO8T_HOME"])
    try:
        hold(home, run_id)
    except AlreadyRunning as other:
        sys.stderr.write(f"so8t: {other}; this one leaves\n")
        sys.stderr.flush()
        os._exit(0)
    logs = attempt.begin(home)
    console = os.open(logs / "console.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(console, 1)
    os.dup2(console, 2)
    os.close(console)
