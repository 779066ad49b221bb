"""The loop: phases in order, a checkpoint when it is time, and the same bytes whatever interrupts it.

Time decides only when a checkpoint is written and a line is logged, never a number of the training.
"""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from so8t.errors import Interrupted
from so8t.progress import Progress
from so8t.session import SessionFile, now
from so8t.train.checkpoint import Checkpoints, Kind, Snapshot
from so8t.train.learner import Learner, under
from so8t.train.phase import Phase
from so8t.train.signals import Signals
from so8t.train.trainlog import TrainLog


class Trainer:
    """Runs the phases; `history` and `metrics` are what happened, without any time in it."""

    def __init__(
        self,
        learner: Learner,
        phases: Sequence[Phase],
        checkpoints: Checkpoints,
        session: SessionFile,
        progress: Progress,
        seed: int,
        fingerprint: dict[str, Any],
    ) -> None:
        self.learner, self.phases, self.checkpoints = learner, list(phases), checkpoints
        self.session, self.progress, self.seed, self.fingerprint = session, progress, seed, fingerprint
        self.history: list[dict[str, Any]] = []
        self.metrics: dict[str, Any] = {}
        self.phase = self.position = self.global_step = 0
        # Finishing a phase changes the state too: it counts as a step.
        self.total = sum(phase.steps + 1 for phase in phases)
        self.signals = Signals()
        self.log = TrainLog(progress, session, self.total)
        self._rng: dict[str, Any] = {}
        self._whole = False  # while a checkpoint is being taken over, the state is nobody's
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train to the end from wherever the newest checkpoint is. Interrupted after an emergency save."""
        torch.manual_seed(self.seed)
        random.seed(self.seed)
        # Third-party code may draw from it.
        np.random.seed(self.seed)
        with self.signals:
            try:
                self._resume()
                while self.phase < len(self.phases):
                    self._run_phase(self.phases[self.phase])
            except Interrupted:
                if self._whole:
                    self._save("emergency")
                self.session.end("interrupted")
                raise
            except BaseException:
                self.session.end("failed")
                raise

    def _resume(self) -> None:
        self._rng = capture_rng()
        snapshot = self.checkpoints.load_newest()
        for problem in self.checkpoints.problems:
            self.progress.update(self.global_step, self.total, f"damaged checkpoint {problem}")
        self.session.update(problems=[*self.session.session.problems, *self.checkpoints.problems])
        if snapshot is None:
            if self.steps_left:
                self.phases[0].begin()
            self._whole = True
            return
        values = snapshot.values
        self.learner.restore(under("learner.", snapshot.tensors))
        self.phase, self.position, self.global_step = values["phase"], values["position"], snapshot.step
        self.history, self.metrics = list(values["history"]), dict(values["metrics"])
        if values["fingerprint"] != self.fingerprint:
            self.progress.update(self.global_step, self.total, "the environment differs from the checkpoint's")
        if self.steps_left:
            phase = self.phases[self.phase]
            phase.begin()
            if values["inside"]:
                phase.restore(under("phase.", snapshot.tensors), values["phase_values"])
        restore_rng(values["rng"], snapshot.tensors)
        self._rng = capture_rng()
        self._whole = True

    @property
    def steps_left(self) -> bool:
        """Whether a phase is still to be run."""
        return self.phase < len(self.phases)

    def _run_phase(self, phase: Phase) -> None:
        while self.position < phase.steps:
            commit = phase.step(self.position)
            with self.signals.held():
                metrics = commit()
                self.history.append(
                    {"phase": phase.name, "position": self.position, "step": self.global_step, **metrics}
                )
                self.position += 1
                self.global_step += 1
                self._rng = capture_rng()
                if time.monotonic() - self._saved_at >= self.progress.machine.checkpoint_interval_s:
                    self._save("rolling")
            self.log.step(phase.name, self.position, phase.steps, self.global_step, metrics)
        self.log.message(phase.name, self.global_step, "measuring")
        measured = phase.finish()
        with self.signals.held():
            self.metrics[phase.name] = measured
            self.phase, self.position = self.phase + 1, 0
            self.global_step += 1
            self._rng = capture_rng()
            self._save("rolling" if self.steps_left else "final")
        if self.steps_left:
            self.phases[self.phase].begin()

    def _save(self, kind: Kind) -> None:
        inside = self.steps_left and self.position > 0
        tensors: dict[str, Tensor] = {f"learner.{name}": tensor for name, tensor in self.learner.tensors().items()}
        values: dict[str, Any] = {
            "phase": self.phase,
            "position": self.position,
            "inside": inside,
            "phase_values": {},
            "history": self.history,
            "metrics": self.metrics,
            "fingerprint": self.fingerprint,
            "rng": self._rng["values"],
        }
        if inside:
            phase = self.phases[self.phase]
            tensors |= {f"phase.{name}": tensor for name, tensor in phase.tensors().items()}
            values["phase_values"] = phase.values()
        tensors |= self._rng["tensors"]
        self.checkpoints.save(kind, Snapshot(self.global_step, tensors, values))
        self._saved_at = time.monotonic()
        self.session.update(
            checkpoints=self.checkpoints.names(),
            last_checkpoint_time=now(),
            last_progress_time=now(),
            current_step=self.global_step,
            total_steps=self.total,
        )


def capture_rng() -> dict[str, Any]:
    """The state of every generator that is not derived from the seed at its use."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {"rng.torch": torch.get_rng_state(), "rng.numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64))}
    if torch.cuda.is_available():
        tensors |= {f"rng.cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return {
        "values": {
            "python": [version, list(words), gauss],
            "numpy": [name, int(position), int(has_gauss), float(cached)],
        },
        "tensors": tensors,
    }


def restore_rng(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Take over what `capture_rng` gave."""
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    name, position, has_gauss, cached = values["numpy"]
    keys = tensors["rng.numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))
    torch.set_rng_state(tensors["rng.torch"])
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        torch.cuda.set_rng_state_all([tensors[f"rng.cuda.{i}"] for i in range(count) if f"rng.cuda.{i}" in tensors])
