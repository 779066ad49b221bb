"""`so8t up` and what it keeps: whether it runs, whether the server answers, whether there is one worker."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from so8t import durable, server_state
from so8t.session import boot_id

COMMAND = "up"
UP, SERVER = "up.json", "server.json"
WORKER = ("prefect", "worker", "start")


class Up(BaseModel):
    """Who `so8t up` is, as it said itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    pid: int
    boot_id: str
    supervisor: str


@dataclass(frozen=True)
class Services:
    """What runs now; `server_port` is 0 where no server answers."""

    up: Up | None
    server_pid: int
    server_port: int
    workers: list[int]


def say_up(home: Path, supervisor: str) -> None:
    """In the process of `so8t up`: say who it is."""
    own = Up(pid=os.getpid(), boot_id=boot_id(), supervisor=supervisor)
    durable.write_json(home / "prefect" / UP, own.model_dump(mode="json"))


def running(home: Path) -> Services:
    """Look at the processes."""
    state = server_state.read(home / "prefect" / SERVER)
    alive = server_state.lives(state)
    port = int(state["port"]) if alive and server_state.healthy(state["port"]) else 0
    return Services(_up(home), int(state["pid"]) if alive else 0, port, list(_workers(home)))


def _up(home: Path) -> Up | None:
    try:
        said = Up.model_validate(durable.read_json(home / "prefect" / UP))
        # By its command line: a process id is given again, and its time of creation moves when the clock is set.
        same = said.boot_id == boot_id() and COMMAND in psutil.Process(said.pid).cmdline()
    except (FileNotFoundError, ValueError, ValidationError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return said if same else None


def _workers(home: Path) -> Iterator[int]:
    """Processes of this user that take runs of this home; whoever started them."""
    wanted, parents = str(home / "prefect"), dict[int, int]()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            command = process.cmdline()
            takes_runs = any(tuple(command[at : at + 3]) == WORKER for at in range(len(command)))
            if takes_runs and process.environ().get("PREFECT_HOME") == wanted:
                parents[process.pid] = process.ppid()
    # The python.exe of a virtual environment on Windows is a launcher, and its child has the same command line.
    yield from (pid for pid, parent in parents.items() if parent not in parents)
