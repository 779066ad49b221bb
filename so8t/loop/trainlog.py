"""What a training says while it runs: progress for whoever watches, and a JSON line now and then.

The lines go to `$SO8T_HOME/progress_logs/<session>.jsonl`. They hold times, so they are part of no artifact.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import psutil

from so8t import durable
from so8t.loop.pace import Pace
from so8t.progress import Progress
from so8t.session import SessionFile, now

SHOWN = ("loss", "reward", "kl", "accuracy")


class TrainLog:
    """Reports every step to the progress sinks, and every `progress_interval_s` to the log and the session."""

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
        folder = progress.home / "progress_logs"
        durable.make_folder(folder)
        self.path = folder / f"{session.session.session_id}.jsonl"
        self.process = psutil.Process()
        self._last: dict[str, float] = {}
        self._tokens = 0.0
        self._since = self._logged_at = time.monotonic()
        self._phase: tuple[str, float, int] = ("", 0.0, 0)

    def message(self, phase: str, step: int, message: str) -> None:
        """A word between steps."""
        self.progress.update(step, self.total, f"{phase}: {message}")

    def step(self, phase: str, position: int, steps: int, global_step: int, metrics: dict[str, float]) -> None:
        """After each optimizer step."""
        if self._phase[0] != phase:
            self._phase, self._last = (phase, time.monotonic(), position - 1), {}
        self._last |= metrics
        self._tokens += metrics.get("tokens", 0.0)
        shown = {name: self._last[name] for name in SHOWN if name in self._last}
        eta_s = (time.monotonic() - self._phase[1]) / max(1, position - self._phase[2]) * (steps - position)
        self.progress.update(global_step, self.total, f"{phase} {position}/{steps}", **shown, eta_s=round(eta_s, 1))
        elapsed = time.monotonic() - self._logged_at
        if elapsed >= self.progress.machine.progress_interval_s:
            self._write(phase, global_step, eta_s, self._tokens / elapsed)
            self._logged_at, self._tokens = time.monotonic(), 0.0

    def _write(self, phase: str, step: int, eta_s: float, tokens_per_s: float) -> None:
        line: dict[str, Any] = {
            "time": now(),
            "phase": phase,
            "step": step,
            "total_steps": self.total,
            "tokens_per_s": round(tokens_per_s, 1),
            "eta_phase_s": round(eta_s, 1),
            "cpu_percent": self.process.cpu_percent(),
            "rss_bytes": self.process.memory_info().rss,
            **self._last,
            **gpu(),
            "checkpoints": self.pace.statistics(),
        }
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(line) + "\n")
        loss = self._last.get("loss")
        best = self.session.session.best_loss
        if loss is not None and (best is None or loss < best):
            best = loss
        changes = {"phase": phase, "current_step": step, "total_steps": self.total, "best_loss": best}
        self._note(lambda: self.session.update(**changes, last_progress_time=now()))


def gpu() -> dict[str, float]:
    """Memory of the CUDA device, where there is one."""
    import torch

    if not torch.cuda.is_available():
        return {}
    return {
        "gpu_memory_bytes": torch.cuda.memory_allocated(),
        "gpu_memory_peak_bytes": torch.cuda.max_memory_allocated(),
    }
