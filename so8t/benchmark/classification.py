"""Measures of a classifier from counts: pure functions; rows of a confusion matrix are the truth.

Legend: K classes, R resamples. A joint table [K, K, K] counts (truth, first system's answer,
second system's answer), so every resampling below works on counts and ignores item order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from so8t.benchmark.statistics import Floats, Interval, bca, mirrored, symmetric

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PairedScore:
    """Difference of a score between two systems on the same items."""

    first: float
    second: float
    difference: float
    interval: Interval
    p: float
    standard_error: float


def confusion(truth: Sequence[int], predicted: Sequence[int], classes: int) -> Ints:
    """Counts [K, K]: row = truth, column = answer."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (np.asarray(truth, np.int64), np.asarray(predicted, np.int64)), 1)
    return table


def joint_table(truth: Sequence[int], first: Sequence[int], second: Sequence[int], classes: int) -> Ints:
    """Counts [K, K, K] of (truth, first, second)."""
    table = np.zeros((classes,) * 3, np.int64)
    np.add.at(table, tuple(np.asarray(values, np.int64) for values in (truth, first, second)), 1)
    return table


def macro_f1(counts: NDArray[Any]) -> Floats:
    """Mean F1 over the classes that occur in the truth; [..., K, K] -> [...]. F1 is 0 where nothing was right."""
    hits = np.einsum("...kk->...k", counts).astype(np.float64)
    support, answered = counts.sum(-1), counts.sum(-2)
    f1 = 2 * hits / np.maximum(support + answered, 1)
    present = support > 0
    return np.asarray((f1 * present).sum(-1) / np.maximum(present.sum(-1), 1), np.float64)


def accuracy(counts: Ints) -> float:
    """Share of the diagonal."""
    return float(np.trace(counts) / max(int(counts.sum()), 1))


def balanced_accuracy(counts: Ints) -> float:
    """Mean recall over the classes that occur in the truth."""
    support = counts.sum(1)
    return float(np.mean([counts[k, k] / support[k] for k in range(len(counts)) if support[k]]))


def rate(counts: Ints, truths: Sequence[int], answers: Sequence[int]) -> tuple[int, int]:
    """How many items of these true classes got one of these answers, and how many there are."""
    rows = counts[list(truths)]
    return int(rows[:, list(answers)].sum()), int(rows.sum())


def quadratic_kappa(counts: Ints) -> float:
    """Cohen's kappa with quadratic weights; 1 where truth and answers are one and the same class."""
    k, n = len(counts), counts.sum()
    grid = np.arange(k)
    weights = (grid[:, None] - grid[None, :]) ** 2
    expected = np.outer(counts.sum(1), counts.sum(0)) / max(n, 1)
    worst = float((weights * expected).sum())
    return 1.0 if worst == 0 else 1.0 - float((weights * counts).sum()) / worst


def brier(confidence: Sequence[float], correct: Sequence[bool]) -> float:
    """Mean squared distance between the top answer's probability and its being right."""
    return float(np.mean((np.asarray(confidence) - np.asarray(correct, np.float64)) ** 2))


def reliability(confidence: Sequence[float], correct: Sequence[bool], bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and count of each equal-mass bin; equal confidences share a bin."""
    p, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if not len(p):
        return []
    edges = np.quantile(p, np.arange(1, bins) / bins, method="inverted_cdf")
    which = np.searchsorted(np.unique(edges), p, side="left")
    members = [which == b for b in np.unique(which)]
    return [(float(p[m].mean()), float(right[m].mean()), int(m.sum())) for m in members]


def expected_calibration_error(confidence: Sequence[float], correct: Sequence[bool], bins: int = 10) -> float:
    """Mean |confidence - accuracy| over equal-mass bins, weighted by their items."""
    found = reliability(confidence, correct, bins)
    n = sum(count for _, _, count in found)
    return sum(count * abs(mean - share) for mean, share, count in found) / n


def macro_f1_interval(counts: Ints, resamples: int, seed: int, level: float = 0.95) -> Interval:
    """BCa interval of macro-F1 from a bootstrap stratified by true class."""
    generator = np.random.default_rng(seed)
    drawn = np.stack([generator.multinomial(row.sum(), _shares(row), size=resamples) for row in counts], axis=1)
    cells = np.argwhere(counts > 0)
    left_out = np.repeat(counts[None], len(cells), axis=0)
    left_out[(np.arange(len(cells)), *cells.T)] -= 1
    estimate = float(macro_f1(counts))
    return bca(estimate, macro_f1(drawn), macro_f1(left_out), counts[tuple(cells.T)].astype(np.float64), level)


def paired_macro_f1(joint: Ints, resamples: int, seed: int, level: float = 0.95) -> PairedScore:
    """Macro-F1 of first minus second, BCa interval, and the p of a paired permutation test.

    The permutation exchanges the two systems' answers item by item with probability 1/2; so
    among m items answered (i, j) or (j, i), Binomial(m, 1/2) become (i, j). p counts the
    observed arrangement, too (Phipson and Smyth 2010), and is 1 where no answer differs.
    """
    first, second = float(macro_f1(joint.sum(2))), float(macro_f1(joint.sum(1)))
    observed = first - second
    if not _off_diagonal(joint):
        return PairedScore(first, second, 0.0, Interval(0.0, 0.0, level), 1.0, 0.0)
    swapped = joint.transpose(0, 2, 1)
    if swapped.tolist() < joint.tolist():
        # One orientation is resampled, so that exchanging the systems changes signs only.
        other = paired_macro_f1(swapped, resamples, seed, level)
        return PairedScore(first, second, observed, mirrored(other.interval), other.p, other.standard_error)
    generator = np.random.default_rng(seed)
    replicates = _difference(_stratified(joint, resamples, generator))
    cells = np.argwhere(joint > 0)
    left_out = np.repeat(joint[None], len(cells), axis=0)
    left_out[(np.arange(len(cells)), *cells.T)] -= 1
    weights = joint[tuple(cells.T)].astype(np.float64)
    interval = bca(observed, replicates, _difference(left_out), weights, level)
    if np.array_equal(joint, swapped):
        interval = symmetric(interval)
    exchanged = _difference(_exchanged(joint, resamples, generator))
    extreme = int((np.abs(exchanged) >= abs(observed) - 1e-12).sum())
    return PairedScore(first, second, observed, interval, (extreme + 1) / (resamples + 1), float(replicates.std()))


def _difference(joint: Ints) -> Floats:
    """[..., K, K, K] -> [...]."""
    return np.asarray(macro_f1(joint.sum(-1)) - macro_f1(joint.sum(-2)), np.float64)


def _off_diagonal(joint: Ints) -> int:
    return int(joint.sum() - np.einsum("tkk->", joint))


def _stratified(joint: Ints, resamples: int, generator: np.random.Generator) -> Ints:
    rows = [row.ravel() for row in joint]
    drawn = [generator.multinomial(row.sum(), _shares(row), size=resamples) for row in rows]
    return np.stack(drawn, axis=1).reshape(resamples, *joint.shape)


def _exchanged(joint: Ints, resamples: int, generator: np.random.Generator) -> Ints:
    k = len(joint)
    out = np.repeat(joint[None], resamples, axis=0)
    for t in range(k):
        for i in range(k):
            for j in range(i + 1, k):
                m = int(joint[t, i, j] + joint[t, j, i])
                stay = generator.binomial(m, 0.5, size=resamples)
                out[:, t, i, j], out[:, t, j, i] = stay, m - stay
    return out


def _shares(row: Ints) -> Floats:
    """A row's distribution; an empty one, of which nothing is drawn, counts as uniform."""
    total = row.sum()
    return row / total if total else np.full(len(row), 1 / len(row))
