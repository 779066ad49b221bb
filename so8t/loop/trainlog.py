"""What a training says while it runs: progress for whoever watches, and a JSON line now and then.

The lines go to `$SO8T_HOME/progress_logs/<session>.jsonl`. They hold times, so they are part of no artifact. After a
kill some steps come again, with the same numbers and another time: of two lines of one step the later one counts.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

from so8t import durable
from so8t.loop.gpu import Gpu
from so8t.loop.pace import Pace
from so8t.loop.trackers import Trackers
from so8t.models import pick_device
from so8t.progress import Progress, lines_of, log_of
from so8t.session import SessionFile, now

SHOWN = ("loss", "reward", "kl", "accuracy")
# In every line; null while the phase has no such number.
ALWAYS = ("epoch", "loss", "reward", "kl")


class TrainLog:
    """Reports every step to the sinks, and every `progress_log_interval_s` to the log, the session and the trackers."""

    def __init__(
        self,
        progress: Progress,
        session: SessionFile,
        total: int,
        pace: Pace,
        note: Callable[[Callable[[], None]], None],
    ) -> None:
        """`note` runs a durable write elsewhere, so that the training does not wait for the disk."""
        self.progress, self.session, self.total, self.pace, self._note = progress, session, total, pace, note
        machine, identity = progress.machine, session.session.session_id
        self.path = log_of(progress.home, identity)
        durable.make_folder(self.path.parent)
        self.trackers = Trackers(machine.trackers, self.path.parent, identity)
        self.gpu = Gpu(pick_device(machine.device))
        self.process = psutil.Process()
        # The first call gives no number.
        self.process.cpu_percent()
        self._last: dict[str, float] = {}
        self._tokens = 0.0
        self._logged_at = time.monotonic()
        self._phase: tuple[str, float, int] = ("", 0.0, 0)

    def begin(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Training goes on behind the history's last row."""
        reached = history[-1]["step"] if history else -1
        done = {line["step"]: line for line in lines_of(self.path) if line["step"] <= reached}
        self.trackers.rebuild(history, done.values())

    @property
    def epoch(self) -> int:
        """How often the phase has gone through its rows."""
        return int(self._last.get("epoch", 0))

    def message(self, phase: str, step: int, message: str) -> None:
        """A word between steps."""
        self.progress.update(step, self.total, f"{phase}: {message}")

    def step(self, row: Mapping[str, Any], position: int, steps: int) -> None:
        """After each optimizer step: its row of the history, and how many of the phase's steps are done."""
        phase, metrics = row["phase"], {n: v for n, v in row.items() if n not in {"phase", "position", "step"}}
        if self._phase[0] != phase:
            self._phase, self._last = (phase, time.monotonic(), position - 1), {}
        self._last |= metrics
        self._tokens += metrics.get("tokens", 0.0)
        self.trackers.row(row)
        shown = {name: self._last[name] for name in SHOWN if name in self._last}
        eta_s = (time.monotonic() - self._phase[1]) / max(1, position - self._phase[2]) * (steps - position)
        self.progress.update(row["step"] + 1, self.total, f"{phase} {position}/{steps}", **shown, eta_s=round(eta_s, 1))
        due = time.monotonic() - self._logged_at >= self.progress.machine.progress_log_interval_s
        # Each phase has a last line, however short it is.
        if due or position == steps:
            self._write(phase, row["step"], eta_s)

    def _write(self, phase: str, step: int, eta_s: float) -> None:
        elapsed_s = time.monotonic() - self._logged_at
        line: dict[str, Any] = {
            "time": now(),
            "phase": phase,
            "step": step,
            "total_steps": self.total,
            **dict.fromkeys(ALWAYS),
            "tokens_per_s": round(self._tokens / elapsed_s, 1) if elapsed_s else None,
            "eta_phase_s": round(eta_s, 1),
            "cpu_percent": self.process.cpu_percent(),
            "rss_bytes": self.process.memory_info().rss,
            **self._last,
            **self.gpu.read(),
            "checkpoints": self.pace.statistics(),
        }
        self._logged_at, self._tokens = time.monotonic(), 0.0
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            # Behind a line that a kill has torn, so that only that one is lost.
            file.write(("" if self._ends_whole() else "\n") + json.dumps(line) + "\n")
        self.trackers.line(line)
        loss = self._last.get("loss")
        best = self.session.session.best_loss
        if loss is not None and (best is None or loss < best):
            best = loss
        changes: dict[str, Any] = {
            "phase": phase,
            "current_step": step + 1,
            "current_epoch": self.epoch,
            "total_steps": self.total,
            "best_loss": best,
        }
        self._note(lambda: self.session.update(**changes, last_progress_time=now()))

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            if not file.seek(0, 2):
                return True
            file.seek(-1, 2)
            return file.read(1) == b"\n"
