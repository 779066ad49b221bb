"""The loop: phases in order, a checkpoint when it is time, and the same bytes whatever interrupts it.

Time decides only when a checkpoint is written and a line is logged, never a number of the training.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from so8t import asked, durable
from so8t.errors import InputError, Interrupted, NotFinite
from so8t.loop import ranks
from so8t.loop.checkpoint import Checkpoints, Kind, Snapshot
from so8t.loop.follower import enter, take_over
from so8t.loop.pace import Pace
from so8t.loop.phase import Metrics, Phase, Trainee
from so8t.loop.recovered import RECOVERED, told_of
from so8t.loop.request import Requests
from so8t.loop.rng import capture_rng, seed_all
from so8t.loop.signals import Signals
from so8t.loop.trainlog import TrainLog
from so8t.loop.writer import Saved, Writer
from so8t.progress import Progress
from so8t.session import Resume, SessionFile, now

AUTO = "auto"


class Trainer:
    """Runs the phases; `history` and `metrics` are what happened, without any time in it."""

    def __init__(
        self,
        trainee: Trainee,
        phases: Sequence[Phase],
        checkpoints: Checkpoints,
        session: SessionFile,
        progress: Progress,
        seed: int,
        fingerprint: dict[str, Any],
        start: Path | None = None,
        watch: Callable[[str, int, int, int], None] | None = None,
    ) -> None:
        """`start`: a checkpoint of the same phases' beginning, made elsewhere, to begin from.

        `watch` looks at the trainee after each step: phase, its steps done, its steps in all, steps of all phases.
        It leaves the trainee and every random generator as they were.
        """
        self.start = start
        self.trainee, self.phases, self.checkpoints = trainee, list(phases), checkpoints
        self.session, self.progress, self.seed, self.fingerprint = session, progress, seed, fingerprint
        self._watch = watch
        self.history: list[dict[str, Any]] = []
        self.metrics: dict[str, Any] = {}
        self.phase = self.position = self.global_step = 0
        # Finishing a phase changes the state too: it counts as a step.
        self.total = sum(phase.steps + 1 for phase in phases)
        self.pace = Pace(progress.machine.checkpoint_interval_s, progress.machine.checkpoint_stall_share)
        self.writer = Writer(checkpoints, self._saved)
        self.signals = Signals(self._keep)
        self.requests = Requests(session.folder)
        self.log = TrainLog(progress, session, self.total, self.pace, self.writer.note)
        # The history as it is saved: encoded once, not at every checkpoint.
        self._rows = bytearray()
        self._rng: dict[str, Any] = {}
        # False while the state is nobody's: in the middle of a change, and after one that failed.
        self._whole = False

    def run(self) -> None:
        """Train to the end from wherever the newest checkpoint is. Interrupted, or any error, once the state is kept."""
        seed_all(self.seed)
        with self.signals, self.writer:
            try:
                self._resume()
                self.log.begin(self.history)
                while self.phase < len(self.phases):
                    self._run_phase(self.phases[self.phase])
                self.writer.wait()
            except Interrupted as stop:
                kept = self.signals.outcome() if self.signals.raised else self._keep()
                with durable.replacing_no_error(self.session.folder):
                    self.session.end("interrupted")
                raise Interrupted(f"{stop}; {kept}", exit_code=stop.exit_code) from None
            except BaseException as error:
                self.signals.ignore()
                kept = self._keep()
                error.add_note(kept)
                with durable.replacing_no_error(self.session.folder):
                    self.session.end("failed")
                    self._say(kept)
                raise
            finally:
                self.log.trackers.close()

    def facts(self) -> dict[str, Any]:
        """What every training tells of how it went; nothing in it decides a number."""
        return {
            "steps": self.global_step,
            "attempts": self.session.session.attempts,
            "resumes": [entry.model_dump() for entry in self.session.session.resumes],
            "checkpoints": self.pace.statistics(),
            "damaged_checkpoints": self.session.session.problems,
            "environment": self.fingerprint,
            "overrides": self.session.session.overrides,
        }

    def _resume(self) -> None:
        self._rng = capture_rng()
        chosen, origin = self._choose()
        snapshot = ranks.snapshot_of_first(chosen)
        for problem in self.checkpoints.problems:
            self._say(f"damaged checkpoint {problem}")
        self.session.update(problems=[*self.session.session.problems, *self.checkpoints.problems])
        if snapshot is None:
            if self.steps_left:
                self.phases[0].begin()
            self._whole = True
            return
        self._say(f"going on from {origin}, step {snapshot.step} of {self.total}")
        entry = Resume(checkpoint=origin, step=snapshot.step, time=now())
        self.session.update(resumes=[*self.session.session.resumes, entry])
        values = snapshot.values
        self._rows = bytearray(snapshot.tensors["history"].numpy().tobytes())
        self.history, self.metrics = [json.loads(row) for row in self._rows.splitlines()], dict(values["metrics"])
        if values["fingerprint"] != self.fingerprint and self.checkpoints.names():
            self._say("the environment differs from the checkpoint's")
        self.phase, self.position = take_over(self.trainee, self.phases, snapshot)
        self.global_step = snapshot.step
        self._rng = capture_rng()
        self._whole = True

    def _choose(self) -> tuple[Snapshot | None, str]:
        """The checkpoint to go on from and where it lies: the newest, or the one that machine.resume names."""
        wanted = self.progress.machine.resume
        if wanted != AUTO and (before := self._resumed_from(wanted)):
            # Unattended starts repeat the same settings; they must not throw away what came after.
            self._say(f"already gone on from {wanted} at {before}; taking the newest")
        elif wanted != AUTO:
            snapshot = self.checkpoints.load(Path(wanted))
            found = snapshot.values.get("session")
            if found != self.session.session.session_id:
                raise InputError(
                    f"{wanted} belongs to {found}",
                    f"a checkpoint of {self.session.session.session_id}: the same config, base and data",
                    "choose another (so8t checkpoint list) or leave --resume out",
                )
            for name in self.checkpoints.pass_over(snapshot.step):
                self._say(f"passed over: {name}")
            return snapshot, wanted
        newest = self.checkpoints.load_newest()
        if newest is None and self.start is not None:
            return self.checkpoints.load(self.start), f"{self.start.name}, made by an earlier step"
        return newest, self.checkpoints.names()[-1] if newest else ""

    def _resumed_from(self, path: str) -> str:
        return next((entry.time for entry in self.session.session.resumes if entry.checkpoint == path), "")

    def _say(self, message: str) -> None:
        self.progress.update(self.global_step, self.total, message)

    @property
    def steps_left(self) -> bool:
        """Whether a phase is still to be run."""
        return self.phase < len(self.phases)

    def _run_phase(self, phase: Phase) -> None:
        while self.position < phase.steps:
            commit = phase.step(self.position)
            with self._changing():
                metrics = commit()
                self._record(phase.name, metrics)
                self.position += 1
                self.global_step += 1
                self._rng = capture_rng()
            if changed := {f"{phase.name}.{name}": metrics[name] for name in RECOVERED if name in metrics}:
                self.session.update(overrides={**self.session.session.overrides, **changed})
            told_of(self.progress, self.session.session.session_id, phase.name, self.global_step, metrics)
            self.log.step(self.history[-1], self.position, phase.steps)
            if self._watch is not None:
                with ranks.alone():
                    self._watch(phase.name, self.position, phase.steps, self.global_step)
        self.log.message(phase.name, self.global_step, "measuring")
        commit_measures = phase.finish()
        with self._changing(phase_ends=True):
            self.metrics[phase.name] = commit_measures()
            self.phase, self.position = self.phase + 1, 0
            self.global_step += 1
            self._rng = capture_rng()
        if self.steps_left:
            enter(self.trainee, self.phases[self.phase])

    @contextmanager
    def _changing(self, phase_ends: bool = False) -> Iterator[None]:
        """A change of the state, and the save that is due after it."""
        started = time.monotonic()
        self.writer.wait_copied()
        self.pace.copied(time.monotonic() - started)
        if phase_ends:
            self.writer.wait()
        waited_s = time.monotonic() - started if phase_ends else 0.0
        with self.signals.held():
            self._whole = False
            yield
            self._whole = True
            if self.position == 1:
                # The optimizer's state of this phase exists now.
                self.writer.prepare(self._snapshot().tensors)
            asked = self.requests.pending()
            if phase_ends or (not self.writer.busy and (asked or self.pace.due())):
                started = time.monotonic()
                kind: Kind = "rolling" if self.steps_left else "final"
                self.requests.take(asked)
                self.writer.submit(kind, self._snapshot(), asked.tag if asked else "")
                self.pace.submitted(waited_s + time.monotonic() - started)

    def _record(self, phase: str, metrics: Metrics) -> None:
        row = {"phase": phase, "position": self.position, "step": self.global_step, **metrics}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise NotFinite(
                    f"{phase} {self.position + 1}: {name} is {value}; this step is not kept, and the newest "
                    "checkpoint stands"
                )
        self.history.append(row)
        self._rows += json.dumps(row).encode() + b"\n"

    def _snapshot(self) -> Snapshot:
        """The state's own tensors, and plain values that nobody changes any more."""
        inside = self.steps_left and self.position > 0
        tensors: dict[str, Tensor] = {f"learner.{name}": tensor for name, tensor in self.trainee.tensors().items()}
        values: dict[str, Any] = {
            "session": self.session.session.session_id,
            "phase": self.phase,
            "position": self.position,
            "inside": inside,
            "phase_values": {},
            "metrics": dict(self.metrics),
            "fingerprint": self.fingerprint,
            "rng": self._rng["values"],
            "halvings": asked.now().halvings,
        }
        if inside:
            phase = self.phases[self.phase]
            tensors |= {f"phase.{name}": tensor for name, tensor in phase.tensors().items()}
            values["phase_values"] = phase.values()
        tensors |= self._rng["tensors"]
        tensors["history"] = torch.from_numpy(np.array(self._rows, dtype=np.uint8))
        return Snapshot(self.global_step, tensors, values)

    def _saved(self, saved: Saved) -> None:
        """In the writer's thread."""
        self.pace.saved(saved)
        self._note_checkpoints(saved.step)
        self.requests.answer(saved)

    def _note_checkpoints(self, step: int) -> None:
        self.session.update(
            checkpoints=self.checkpoints.names(),
            last_checkpoint_time=now(),
            last_progress_time=now(),
            current_step=step,
            current_epoch=self.log.epoch,
            total_steps=self.total,
        )

    def _keep(self) -> str:
        """Make the state durable now, in whichever thread notices; what became of it, in words."""
        if not self._whole:
            return "the next start goes on from the newest checkpoint"
        try:
            path = self.writer.save_now("emergency", self._snapshot())
        except Exception as error:  # noqa: BLE001 - told in the message of what ended the training
            return f"its state could not be saved ({error}); the next start goes on from the checkpoint before"
        with durable.replacing_no_error(self.session.folder):
            self._note_checkpoints(self.global_step)
        return f"step {self.global_step} is saved in {path.name}, and the next start goes on from it"
