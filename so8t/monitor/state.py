"""What the looks remember: `$SO8T_HOME/monitor/state.json`. Losing it costs the memory of what was told, nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from so8t import durable
from so8t.monitor.clock import Moment

SAMPLES_MAX = 48
LOCK_WAIT_S = 120.0
# What a full disk took no note of, for the next look of this process.
_unwritten: dict[Path, "State"] = {}


class Sample(BaseModel):
    """One reading of what can run full; `running_s` of its boot."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    running_s: float
    disk_free_bytes: int
    memory_available_bytes: int


class Watched(BaseModel):
    """A process and the sign of progress that it last showed; `idle_s` seconds were seen without another."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    sign: str
    idle_s: float = 0.0


class Start(BaseModel):
    """How often a run had been started, when, and what had been reached."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    wall_s: float
    attempts: int
    reached: str


class State(BaseModel):
    """Absent fields, of an older version, take these values."""

    model_config = ConfigDict(extra="ignore")
    began_s: float | None = None  # first look, Unix time
    looks: int = 0
    last: Moment | None = None
    seen: list[str] = []  # fingerprints of faults in the logs
    open: dict[str, str] = {}  # fingerprint of what stands -> when it was first told
    samples: list[Sample] = []
    watched: dict[str, Watched] = {}
    starts: dict[str, list[Start]] = {}


def folder_of(home: Path) -> Path:
    """Where the monitor keeps what it knows."""
    return home / "monitor"


@contextmanager
def remembered(home: Path) -> Iterator[State]:
    """Give the state to a look, alone; what the look left in it is durable afterwards."""
    folder = folder_of(home)
    durable.make_folder(folder)
    with FileLock(folder / "look.lock", timeout=LOCK_WAIT_S):
        state = _unwritten.pop(home, None) or read(home)
        yield state
        # A full disk may be the very thing that was found.
        _unwritten[home] = state
        with durable.replacing_no_error(folder):
            durable.write_json(folder / "state.json", state.model_dump(mode="json"))
            del _unwritten[home]


def read(home: Path) -> State:
    """What is remembered; a fresh one where there is nothing that can be read."""
    try:
        return State.model_validate(durable.read_json(folder_of(home) / "state.json"))
    except (FileNotFoundError, ValueError, ValidationError):
        return State()
