"""Progress on the terminal: rich bars where there is one, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from so8t.progress import Metric, PlainLines, Sink


class Display(Protocol):
    """Where a run shows itself."""

    sink: Sink

    def say(self, line: str) -> None:
        """Show one line."""


class _Plain:
    def __init__(self, interval_s: float) -> None:
        self.sink: Sink = PlainLines(self.say, interval_s)

    def say(self, line: str) -> None:
        """Write to standard error; standard output is for the result."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


class _Bars:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.progress = Progress(
            TextColumn("{task.fields[step]:<24}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, int] = {}
        self.sink: Sink = self

    def say(self, line: str) -> None:
        """Print above the bars."""
        self.progress.console.print(line)

    def report(self, step: str, done: float, total: float | None, message: str, metrics: dict[str, Metric]) -> None:
        """One bar a step."""
        numbers = " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in metrics.items()
        )
        if step not in self._tasks:
            self._tasks[step] = int(self.progress.add_task(message, step=step, total=total))
        from rich.progress import TaskID

        self.progress.update(
            TaskID(self._tasks[step]), completed=done, total=total, description=f"{message} {numbers}".strip()
        )


@contextmanager
def open_display(interval_s: float) -> Iterator[Display]:
    """The display that suits standard error."""
    if not sys.stderr.isatty():
        yield _Plain(interval_s)
        return
    bars = _Bars()
    with bars.progress:
        yield bars
