"""The training's phases: parts of epochs, each ended by a measurement, then the calibration of the best state.

A phase ends with a checkpoint, so there is one at each measurement, beside the rolling ones by time.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from so8t import asked, calibration
from so8t.batching import indices
from so8t.classes import balance, focal_sum
from so8t.four_class.config import FourClass
from so8t.four_class.learner import Learner, Sample
from so8t.labels import Label
from so8t.loop.phase import Commit, Metrics, Phase, warmup_cosine
from so8t.loop.watched import Watched
from so8t.measures import classification


class Stateless:
    """The state that outlives a step is the learner's."""

    def begin(self) -> None:
        """Nothing."""

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def values(self) -> dict[str, Any]:
        """None."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Nothing."""


class Part(Stateless):
    """Optimizer steps `first` to `first + steps` of `total`, then macro-F1 on the validation rows."""

    def __init__(
        self, learner: Learner, first: int, steps: int, total: int, train: Sequence[Sample], held_out: Sequence[Sample]
    ) -> None:
        self.learner, self.first, self.steps, self.total = learner, first, steps, total
        self.train, self.held_out, self.config = train, held_out, learner.config
        self.batch = self.config.micro_batch * self.config.gradient_accumulation_steps
        self.epoch = (first + steps) * self.config.epochs / total
        self.name = f"epoch_{self.epoch:.3g}"
        self.class_weights = class_weights(self.config, train)

    def step(self, position: int) -> Commit:
        """One optimizer step over an effective batch; its gradient does not depend on the micro-batch, but rounding."""
        optimizer, at = self.learner.optimizer, self.first + position
        picked = [self.train[i] for i in indices(len(self.train), self.config.seed, at, self.batch)]
        micro = self.learner.micro
        loss = micro.attempt(lambda size: accumulate(self.learner, picked, self.class_weights, size))
        norm = optimizer.clip(self.config.max_grad_norm)
        factor = warmup_cosine(at, self.total, 0.0, self.config.warmup_ratio)
        tokens = sum(len(sample.ids) for sample in picked)

        def commit() -> Metrics:
            optimizer.step(factor)
            return {
                "loss": loss,
                "grad_norm": norm,
                "learning_rate": self.config.learning_rate * factor * asked.now().rate,
                "epoch": (at + 1) * self.config.epochs / self.total,
                "tokens": tokens,
                **micro.commit(),
            }

        return commit

    def finish(self) -> Callable[[], dict[str, Any]]:
        """Measure; the commit keeps the state if it is the best so far."""
        found = self.learner.probabilities(self.held_out).numpy()
        truth = labels_of(self.held_out)
        result: dict[str, Any] = {"epoch": self.epoch, "step": self.first + self.steps}
        result |= classification(truth.tolist(), found.argmax(1).tolist())

        def commit() -> dict[str, Any]:
            best = self.learner.keep_if_best(result["macro_f1"], result["step"])
            return {**result, "best_so_far": best}

        return commit


class Calibrate(Stateless):
    """Temperature and thresholds of the best state, which is what the training ends in."""

    name = "calibration"
    steps = 0

    def __init__(self, learner: Learner, held_out: Sequence[Sample]) -> None:
        self.learner, self.held_out = learner, held_out

    def step(self, position: int) -> Commit:
        """It has none."""
        raise AssertionError(position)

    def finish(self) -> Callable[[], dict[str, Any]]:
        """Fit on all validation rows; `report` is out of fold."""
        with self.learner.as_best():
            found = self.learner.probabilities(self.held_out).numpy()
        truth, decision = labels_of(self.held_out), self.learner.config.decision
        fitted = calibration.fit(found, truth, decision.unsafe_allow_max, decision.confidence)
        result = {
            "best_step": int(self.learner.best_step),
            "best_macro_f1": float(self.learner.best_score),
            "calibration": fitted.as_json(),
            "report": calibration.report(found, truth, decision.unsafe_allow_max, decision.confidence),
        }

        def commit() -> dict[str, Any]:
            self.learner.take_best()
            self.learner.optimizer.freeze()
            return result

        return commit


def make_phases(learner: Learner, train: Sequence[Sample], held_out: Sequence[Sample]) -> list[Phase]:
    """`evaluations_per_epoch` parts an epoch (fewer where an epoch has fewer steps), then the calibration."""
    config = learner.config
    batch = config.micro_batch * config.gradient_accumulation_steps
    total = -(-config.epochs * len(train) // batch)
    parts = config.epochs * config.evaluations_per_epoch
    ends = sorted({max(1, round(total * (i + 1) / parts)) for i in range(parts)})
    starts = [0, *ends[:-1]]
    made = [
        Watched(Part(learner, a, b - a, total, train, held_out), (learner.adapters,), config.adapter.monitor_steps)
        for a, b in zip(starts, ends, strict=True)
    ]
    return [*made, Calibrate(learner, held_out)]


def class_weights(config: FourClass, train: Sequence[Sample]) -> Tensor:
    """[C], mean 1 over the classes that occur."""
    counts = Counter(sample.row.label for sample in train)
    per_class = [counts[label] for label in Label]
    return balance(per_class if config.loss.balanced else [min(n, 1) for n in per_class], config.loss.class_weights)


def accumulate(learner: Learner, samples: Sequence[Sample], weights: Tensor, size: int) -> float:
    """The gradient, by micro-batches of `size` rows of like length; the effective batch's loss."""
    learner.optimizer.zero_grad()
    total = float(weights[[int(sample.row.label) for sample in samples]].sum())
    ordered = sorted(samples, key=lambda sample: (len(sample.ids), sample.row.id))
    loss = 0.0
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        truth = torch.tensor([int(sample.row.label) for sample in part], device=learner.device)
        piece = focal_sum(learner.logits(part), truth, weights, learner.config.loss.focal_gamma) / total
        piece.backward()  # type: ignore[no-untyped-call]
        loss += float(piece.detach())
    return loss


def labels_of(samples: Sequence[Sample]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """[N]."""
    return np.array([int(sample.row.label) for sample in samples])
