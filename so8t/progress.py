"""Progress: what a step reports while it works, and where that goes.

A step calls `progress.update(...)` as often as it likes; sinks decide how often to show it.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from so8t import durable

if TYPE_CHECKING:
    from so8t.config import Machine
    from so8t.session import SessionFile

Metric = float | int | str
# From so many seconds without a report on, work that goes on repeats the last one: far below monitor.stall_minutes.
PULSE_S = 30.0


class Sink(Protocol):
    """Receives each report; `total` is None while the amount of work is unknown."""

    def report(self, step: str, done: float, total: float | None, message: str, metrics: dict[str, Metric]) -> None:
        """Take one report."""


class Progress:
    """Handed to every step. Also carries the session and the machine settings, which no artifact key contains."""

    def __init__(
        self,
        step: str,
        machine: "Machine",
        home: Path,
        sinks: tuple[Sink, ...] = (),
        session: "SessionFile | None" = None,
    ) -> None:
        self.step, self.machine, self.home, self._sinks, self.session = step, machine, home, sinks, session
        self._told_at = time.monotonic()
        self._last: tuple[float, float | None, str, dict[str, Metric]] = (0, None, "", {})

    def beat(self) -> None:
        """Work goes on that has no number of its own (see so8t/pulse.py)."""
        if time.monotonic() - self._told_at >= PULSE_S:
            done, total, message, metrics = self._last
            self.update(done, total, message, **metrics)

    def update(self, done: float, total: float | None, message: str = "", **metrics: Metric) -> None:
        """Report `done` of `total` units, what is being done, and any numbers worth watching."""
        self._told_at, self._last = time.monotonic(), (done, total, message, metrics)
        for sink in self._sinks:
            sink.report(self.step, done, total, message, metrics)


class JsonLines:
    """Appends each report to a file that a parent process follows. Readers ignore a torn last line."""

    def __init__(self, path: Path, interval_s: float = 0.2) -> None:
        durable.make_folder(path.parent)
        self._file = path.open("a", encoding="utf-8", newline="\n")
        self._interval_s = interval_s
        self._last: tuple[float, str] = (0.0, "")

    def report(self, step: str, done: float, total: float | None, message: str, metrics: dict[str, Metric]) -> None:
        """Write a line at most every `interval_s`, and always for a new message or the last unit."""
        now = time.time()
        if now - self._last[0] < self._interval_s and message == self._last[1] and done != total:
            return
        self._last = (now, message)
        line = {"time": now, "step": step, "done": done, "total": total, "message": message, **metrics}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """No more reports."""
        self._file.close()


class PlainLines:
    """One line now and then, for logs and pipes."""

    def __init__(self, write: Callable[[str], object] | None = None, interval_s: float = 5.0) -> None:
        self._write = write or (lambda line: sys.stderr.write(line + "\n"))
        self._interval_s = interval_s
        self._last: dict[str, tuple[float, str]] = {}

    def report(self, step: str, done: float, total: float | None, message: str, metrics: dict[str, Metric]) -> None:
        """Show a report when its message is new or the interval has passed."""
        now = time.monotonic()
        shown_at, shown = self._last.get(step, (-1e9, ""))
        recent = now - shown_at < self._interval_s
        if recent and done != total and (message == shown or now - shown_at < 1.0):
            return
        self._last[step] = (now, message)
        amount = f"{done:g}/{total:g}" if total else f"{done:g}"
        numbers = " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in metrics.items()
        )
        self._write(f"{step:<24} {amount:>12}  {message}  {numbers}".rstrip())


def log_of(home: Path, session: str, kind: str = "") -> Path:
    """Where a session notes its progress, or with a kind (`samples`) something else, as JSON lines."""
    return home / "progress_logs" / ".".join(filter(None, (session, kind, "jsonl")))


def lines_of(path: Path, tail_bytes: int | None = None) -> list[dict[str, Any]]:
    """The lines of a JSON-lines log in their order, without those that a kill has torn; none where there is no file.

    With `tail_bytes` only the whole lines among the last so many bytes.
    """
    found = []
    for raw in _last_bytes(path, tail_bytes).splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(raw))
    return found


def _last_bytes(path: Path, count: int | None) -> bytes:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        size = file.seek(0, 2)
        if count is None or size <= count:
            file.seek(0)
            return file.read()
        file.seek(size - count)
        # The first line is cut.
        return file.read().partition(b"\n")[2]
    return b""


def follow(path: Path, sinks: tuple[Sink, ...], offset: int = 0) -> int:
    """Pass on the whole lines that a child has appended since `offset`; give the new offset."""
    if not path.exists():
        return offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data.rfind(b"\n") + 1
    for raw in data[:whole].splitlines():
        line = json.loads(raw)
        del line["time"]
        step, done, total, message = (line.pop(name) for name in ("step", "done", "total", "message"))
        for sink in sinks:
            sink.report(step, done, total, message, line)
    return offset + whole
