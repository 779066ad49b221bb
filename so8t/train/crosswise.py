"""Choosing among candidates by folds, without believing that the best is as good as it looks."""

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from so8t.labels import Label
from so8t.train.data import Sample


@dataclass(frozen=True)
class Tried:
    """One candidate; each number stands for one fold."""

    alpha: float
    log_likelihood: tuple[float, ...]
    macro_f1: tuple[float, ...]
    objective: tuple[float, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Tried":
        """From JSON, which has no tuples."""
        return cls(
            values["alpha"], tuple(values["log_likelihood"]), tuple(values["macro_f1"]), tuple(values["objective"])
        )

    @property
    def mean(self) -> float:
        """Of the objective over the folds."""
        return statistics.fmean(self.objective)


@dataclass(frozen=True)
class Choice:
    """What was chosen, and how sure that is."""

    alpha: float
    best_candidate: float
    gain: float  # of the best candidate over alpha = 1, on the rows that chose it
    gain_crosswise: float  # mean over the folds, each with the candidate of the others
    gain_crosswise_se: float  # its standard error between the folds


def pick(samples: Sequence[Sample], rows: int) -> list[Sample]:
    """At most `rows`, the text rows first and each class in its share; the rest are images and sounds.

    Which ones is decided by a hash of the id, so that more data moves few of them.
    """
    ordered = sorted(samples, key=_hash)
    text = [sample for sample in ordered if sample.record.modality == "text"]
    shown = [sample for sample in ordered if sample.record.modality != "text"]
    by_class = [[sample for sample in text if sample.record.label == label] for label in Label]
    # The first of each class, then the second of each: a cut anywhere leaves the classes as even as they can be.
    dealt = [group[i] for i in range(len(text)) for group in by_class if i < len(group)]
    half = rows // 2 if shown else rows
    kept = dealt[: max(half, rows - len(shown))]
    return [*kept, *shown[: rows - len(kept)]]


def folds(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """Deal the rows into folds, class by class, so that each has its share of all; empty folds are left out."""
    ordered = sorted(samples, key=lambda sample: (sample.record.modality, sample.record.label, _hash(sample)))
    return [fold for start in range(count) if (fold := ordered[start::count])]


def choose(tried: Sequence[Tried]) -> Choice:
    """The best candidate where its crosswise gain over alpha = 1 (the first) exceeds the gain's standard error."""
    plain, best = tried[0], max(tried, key=lambda one: one.mean)  # the first of equals
    gains = []
    count = len(plain.objective)
    for fold in range(count):
        others = [f for f in range(count) if f != fold] or [fold]
        preferred = max(tried, key=lambda one: statistics.fmean(one.objective[f] for f in others))
        gains.append(preferred.objective[fold] - plain.objective[fold])
    gain = statistics.fmean(gains)
    error = statistics.stdev(gains) / count**0.5 if count > 1 else 0.0
    # Equal candidates give a gain and an error of 0.
    alpha = best.alpha if count > 1 and gain > error else plain.alpha
    return Choice(alpha, best.alpha, best.mean - plain.mean, gain, error)


def _hash(sample: Sample) -> str:
    return hashlib.sha256(sample.record.id.encode("utf-8")).hexdigest()
