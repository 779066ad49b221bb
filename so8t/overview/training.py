"""A training as far as it has come: its numbers by step, and what it could go on from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from so8t.loop.saved import is_name, step_of, tag_of, verify
from so8t.progress import lines_of, log_of
from so8t.session import read

# Shown first where a phase has them; a line of the log holds more.
NUMBERS = ("reward", "kl", "loss", "accuracy")


@dataclass(frozen=True)
class Saved:
    """A checkpoint. `verdict` is "verified" where every byte was hashed, else what is wrong with it or what became of it."""

    name: str
    kind: str
    step: int
    at: datetime
    size_bytes: int
    verdict: str
    tag: str = ""
    newest: bool = False


@dataclass(frozen=True)
class Training:
    """`lines` are the progress log's, one a step that was logged and the newest word on each, in the order of the steps."""

    session: str
    phase: str
    step: int
    total: int
    attempts: int
    resumes: int
    lines: list[dict[str, Any]]
    saved: list[Saved]

    def series(self, name: str) -> list[float]:
        """A number by step, without the lines that lack it."""
        return [line[name] for line in self.lines if isinstance(line.get(name), int | float)]

    def now(self) -> dict[str, float]:
        """The newest value of each of `NUMBERS`, in their order."""
        return {name: values[-1] for name in NUMBERS if (values := self.series(name))}


class Checked:
    """Hashes a checkpoint's bytes once: a folder under its own name never changes."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int], str | None] = {}

    def problem(self, path: Path) -> str | None:
        """What is wrong with it; None if its bytes are those that were written."""
        key = path, path.stat().st_mtime_ns
        if key not in self._known:
            self._known[key] = verify(path)
        return self._known[key]


def training_of(home: Path, session_id: str, checked: Checked) -> Training | None:
    """The training of a session; None where it has not begun."""
    folder = home / "sessions" / session_id
    session = read(folder)
    if session is None:
        return None
    by_step: Mapping[int, dict[str, Any]] = {line["step"]: line for line in lines_of(log_of(home, session_id))}
    return Training(
        session_id, session.phase, session.current_step, session.total_steps, session.attempts, len(session.resumes),
        [by_step[step] for step in sorted(by_step)], saved_of(folder / "checkpoints", checked),
    )  # fmt: skip


def saved_of(folder: Path, checked: Checked) -> list[Saved]:
    """The checkpoints of a folder, the newest first; what was set aside stands where it was."""
    found = []
    for path in folder.glob("*-*"):
        try:
            if (one := _saved(path, checked)) is not None:
                found.append(one)
        except FileNotFoundError:
            continue  # pruned meanwhile
    found.sort(key=lambda one: (one.at, one.step), reverse=True)
    whole = next((one for one in found if one.verdict == VERIFIED), None)
    return [Saved(**{**vars(one), "newest": one is whole}) for one in found]


VERIFIED = "verified"
ASIDE = {"damaged": "DAMAGED, set aside", "passed-over": "passed over by --resume"}


def _saved(path: Path, checked: Checked) -> Saved | None:
    name, _, aside = path.name.partition(".")
    if not is_name(name) or (aside and aside.rpartition("-")[0] not in ASIDE):
        return None  # being written or removed
    problem = ASIDE[aside.rpartition("-")[0]] if aside else checked.problem(path)
    size = sum(file.stat().st_size for file in path.iterdir())
    at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    verdict = problem if aside else f"DAMAGED: {problem}" if problem else VERIFIED
    kind = name.rpartition("-")[0]
    return Saved(path.name, kind, step_of(path.with_name(name)), at, size, verdict or "", tag_of(path))
