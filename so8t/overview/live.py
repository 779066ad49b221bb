"""How far the steps are that work just now, from the progress files of their attempts."""

import contextlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from so8t.progress import Metric, lines_of

SUFFIX = ".progress.jsonl"
TAIL_BYTES = 64 << 10
# Of the speed that a time left is told from.
WINDOW_S = 600.0
PLAIN = frozenset({"time", "step", "done", "total", "message"})


@dataclass(frozen=True)
class Live:
    """The newest report of a step. `at` is its Unix time, `since` that of the attempt's first; `eta_s` of the phase where the step tells one, else of the step."""

    step: str
    done: float
    total: float | None
    message: str
    metrics: dict[str, Metric]
    at: float
    since: float
    eta_s: float | None

    @property
    def share(self) -> float | None:
        """Of the whole step, 0 to 1; None while the amount of work is unknown."""
        return min(1.0, self.done / self.total) if self.total else None


def live(home: Path) -> dict[str, Live]:
    """The newest report of every step that an attempt of this home has made."""
    newest: dict[str, Path] = {}
    changed_s: dict[str, float] = {}
    for folder in (home / "logs").glob("attempt_*"):
        # An attempt's logs may be the oldest, and go.
        with contextlib.suppress(FileNotFoundError):
            for path in folder.glob("*" + SUFFIX):
                at_s = path.stat().st_mtime
                if at_s > changed_s.get(path.name, -math.inf):
                    newest[path.name], changed_s[path.name] = path, at_s
    found = (newest_of([*first_of(path), *lines_of(path, TAIL_BYTES)]) for path in newest.values())
    return {report.step: report for report in found if report is not None}


def first_of(path: Path) -> list[dict[str, Any]]:
    """The first line alone; none where a kill has torn it, or where there is no file any more."""
    with contextlib.suppress(ValueError, FileNotFoundError), path.open("rb") as file:
        return [json.loads(file.readline())]
    return []


def newest_of(lines: Iterable[dict[str, Any]]) -> Live | None:
    """The last report of a progress file, with what is left at the speed of the lines before it."""
    told = list(lines)
    if not told:
        return None
    last = told[-1]
    metrics = {name: value for name, value in last.items() if name not in PLAIN}
    eta_s = metrics.pop("eta_s", None)
    return Live(
        last["step"], last["done"], last["total"], last["message"], metrics, last["time"], told[0]["time"],
        float(eta_s) if eta_s is not None else _left_s(told),
    )  # fmt: skip


def _left_s(told: list[dict[str, Any]]) -> float | None:
    """Time left in seconds at the speed of the last minutes; None where nothing tells."""
    last = told[-1]
    if not last["total"] or last["done"] >= last["total"]:
        return None
    first = last
    for line in reversed(told):
        # A retry, or a part of the work with an amount of its own, began with less done than the line before.
        if line["total"] != last["total"] or line["done"] > first["done"] or last["time"] - line["time"] > WINDOW_S:
            break
        first = line
    done, took_s = last["done"] - first["done"], last["time"] - first["time"]
    return (last["total"] - last["done"]) * took_s / done if done > 0 and took_s > 0 else None
