"""What the three platforms have in common: an entry is written, found again, and removed."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deployments.autostart.entry import Entry, Started
from so8t.errors import So8tError

CALL_TIMEOUT_S = 150


class AutostartFailed(So8tError):
    """The platform's scheduler refused, or does not answer."""


@dataclass(frozen=True)
class Registered:
    """An entry as the platform gives it back."""

    name: str
    place: str
    """Where it is kept: a file, or Task Scheduler."""
    text: str
    """Its definition."""
    command: tuple[str, ...]
    started: Started
    """What the command starts, read back."""
    folder: str
    """Working directory."""
    state: str
    """What the platform says of it now."""
    faults: tuple[str, ...]
    """What would keep it from starting, or could not be checked."""


@dataclass(frozen=True)
class Preview:
    """What an installation or a removal would write and run."""

    file: str
    """Path of the file, or of the temporary file that is handed over."""
    text: str
    note: str
    commands: tuple[str, ...]


class Manager(Protocol):
    """A platform's scheduler or service manager."""

    def preview(self, entry: Entry, action: str) -> Preview:
        """What `install` or `remove` would do, on any platform."""

    def install(self, entry: Entry) -> None:
        """Register the entry in the place of an older one of its name."""

    def find(self, home: Path) -> list[Registered]:
        """Entries that start this home, of whatever version; the present version's comes first."""

    def remove(self, name: str, *, stop: bool) -> None:
        """Remove an entry; `stop` says whether a running `so8t up` may be ended where the platform cannot otherwise."""

    def differences(self, entry: Entry, found: Registered) -> list[str]:
        """How a registered entry differs from the wanted one."""

    def notes(self, entry: Entry) -> list[str]:
        """What the user should know after an installation."""


@dataclass(frozen=True)
class Called:
    """A finished program."""

    code: int
    out: bytes
    err: bytes

    def words(self, encoding: str = "utf-8") -> str:
        """Everything that it said, on one line."""
        return " ".join((self.out + b" " + self.err).decode(encoding, "replace").split())


def call(command: Sequence[str]) -> Called:
    """Run a program of the platform, without a shell; AutostartFailed where it is missing or hangs."""
    try:
        done = subprocess.run(  # noqa: S603
            list(command), check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=CALL_TIMEOUT_S
        )
    except FileNotFoundError:
        raise AutostartFailed(f"{command[0]} is not there; this machine has no such service manager") from None
    except subprocess.TimeoutExpired:
        raise AutostartFailed(f"{' '.join(command)} did not answer within {CALL_TIMEOUT_S} s") from None
    return Called(done.returncode, done.stdout, done.stderr)


def line_differences(wanted: str, found: str) -> list[str]:
    """Lines that one definition has and the other lacks."""
    want, have = wanted.splitlines(), found.splitlines()
    return [f"missing: {line}" for line in want if line not in have] + [
        f"unexpected: {line}" for line in have if line not in want
    ]
