"""What is registered: one `so8t up` for one home, and how a registered command line is read back."""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from so8t.cli import PROJECT
from so8t.errors import UserError

PREFIX = "so8t-up-"
MODULE = "deployments.command"
# Hugging Face, OpenAI-style, GitHub and Slack tokens, and addresses with a password in them.
SECRET = re.compile(r"\bhf_\w{8,}|\bsk-[\w-]{16,}|\bgh[pousr]_\w{16,}|\bxox[abps]-[\w-]{8,}|://[^/\s:@]+:[^/\s@]+@")
SECRET_VARIABLE = re.compile(r"(TOKEN|SECRET|PASSWORD|AUTH_STRING|API_KEY)$")
SECRET_CHARS_MIN = 8
# Control characters, line separators and lone surrogates: no unit, plist or XML file can hold them.
UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def interpreter() -> Path:
    """This interpreter, as the environment names it: a resolved link would leave the virtual environment.

    pythonw.exe has neither output nor a console through which its children could be asked to stop.
    """
    found = Path(sys.executable)
    return found.with_name("python.exe") if found.name.lower() == "pythonw.exe" else found


@dataclass(frozen=True)
class Entry:
    """`so8t up` with absolute paths; UserError where a path or an override cannot be registered."""

    home: Path
    config: Path
    overrides: tuple[str, ...] = ()
    network: bool = False
    python: Path = field(default_factory=interpreter)
    project: Path = PROJECT

    def __post_init__(self) -> None:
        for text in (*self.command, str(self.project)):
            if UNWRITABLE.search(text):
                raise UserError(
                    f"{text!r} holds a character that cannot be registered",
                    "no control characters and no broken file names",
                    "rename it, or choose another folder",
                )
            if secret_in(text):
                # The text itself stays out of the message: messages end in logs.
                raise UserError(
                    "an option of the command holds a password or a token",
                    "no secret in what is registered: others can read it",
                    "set it in the environment, or log in with `hf auth login`, and leave it out here",
                )

    @property
    def name(self) -> str:
        """The name under which the platform knows the entry."""
        return name_of(self.home)

    @property
    def command(self) -> tuple[str, ...]:
        """What the platform starts."""
        sets = [part for override in self.overrides for part in ("--set", override)]
        return (
            str(self.python), "-X", "utf8", "-m", MODULE, "up",
            "--config", str(self.config), "--home", str(self.home), *sets,
        )  # fmt: skip


def name_of(home: Path) -> str:
    """`so8t-up-` and 8 hex digits of the home's path: two homes never share an entry."""
    place = os.path.normcase(os.path.realpath(home))
    return PREFIX + hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def secret_in(text: str) -> bool:
    """Whether a text holds what looks like a secret, or the value of a secret of this environment."""
    known = (value for name, value in os.environ.items() if SECRET_VARIABLE.search(name.upper()))
    return bool(SECRET.search(text)) or any(len(value) >= SECRET_CHARS_MIN and value in text for value in known)


@dataclass(frozen=True)
class Started:
    """What a registered command line starts; `home` is empty where it is not our `so8t up`."""

    python: str = ""
    home: str = ""
    config: str = ""
    overrides: tuple[str, ...] = ()


def read_command(command: Sequence[str]) -> Started:
    """Find interpreter, home, config and overrides in a command line of this or an older version."""
    words = list(command)
    if MODULE not in words or "up" not in words[words.index(MODULE) :]:
        return Started()
    at = words.index(MODULE)
    options = words[at:]
    python = next((word for word in words[:at] if not word.startswith("-") and "caffeinate" not in word), "")

    def values(option: str) -> list[str]:
        return [options[place + 1] for place, word in enumerate(options[:-1]) if word == option]

    return Started(python, (values("--home") or [""])[-1], (values("--config") or [""])[-1], tuple(values("--set")))
