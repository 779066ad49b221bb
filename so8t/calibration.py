"""From a classifier's probabilities to decisions that fail closed.

One temperature makes the probabilities honest (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
A class applies where its probability reaches the class's threshold; of those that apply the highest wins, and where
none does it is ESCALATION. ALLOW's threshold bounds, with a stated confidence, how often a new row of another class is
allowed, whatever the probabilities are worth: the share above the (k+1)-th highest of n rows' numbers has the
distribution Beta(k+1, n-k), whatever theirs is (Wilks 1941, Determination of Sample Sizes for Setting Tolerance Limits).

Legend: N rows, C = 4 classes in the order of `Label`; probabilities [N, C], labels [N].
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from so8t.errors import InputError
from so8t.labels import LABEL_NAMES, Label, precedent
from so8t.measures import classification

BINS = 10
FOLDS = 5
# Thresholds of the other classes are looked for here; ALLOW's lies at a probability that occurred.
GRID = tuple(step / 20 for step in range(2, 19))
ROUNDS = 2
# ALLOW must be likelier than all the others together, however good the rows were.
ALLOW_MIN = 0.5
NEVER = math.inf


@dataclass(frozen=True)
class Calibration:
    """What turns probabilities into a decision; a threshold of infinity: the class is never given by probability."""

    temperature: float = 1.0
    thresholds: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5)

    def decide(self, probabilities: "np.ndarray") -> Label:
        """The class of one row of raw probabilities [C]; not finite, or nothing sure enough, is ESCALATION."""
        if not np.isfinite(probabilities).all():
            return Label.ESCALATION
        return decide(tempered(probabilities[None], self.temperature)[0], self.thresholds)

    def as_json(self) -> dict[str, Any]:
        """Thresholds by class name; null stands for never."""
        named = {name: t if math.isfinite(t) else None for name, t in zip(LABEL_NAMES, self.thresholds, strict=True)}
        return {"temperature": self.temperature, "thresholds": named}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> "Calibration":
        """What `as_json` gave; InputError for anything else: a threshold that is guessed could let harm through."""
        try:
            temperature, named = float(value["temperature"]), dict(value["thresholds"])
            found = tuple(NEVER if named[name] is None else float(named[name]) for name in LABEL_NAMES)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: {type(error).__name__} {error}", "a temperature and four thresholds") from None
        if set(named) != set(LABEL_NAMES) or not 0 < temperature < math.inf or not all(t > 0 for t in found):
            raise InputError(f"{where}: {dict(value)}", f"a temperature above 0, thresholds above 0 of {LABEL_NAMES}")
        return cls(temperature, found)


def decide(probabilities: Sequence[float], thresholds: Sequence[float]) -> Label:
    """The class of one row of calibrated probabilities [C]: the highest that applies; none is ESCALATION."""
    return Label(int(_decided(np.asarray(probabilities)[None], thresholds)[0]))


def _decided(whole: "np.ndarray", thresholds: Sequence[float]) -> "np.ndarray":
    """[N, C] -> classes [N]; of those that apply the highest, as `labels.precedent` has it."""
    applies = whole >= np.asarray(thresholds)
    highest = len(Label) - 1 - applies[:, ::-1].argmax(axis=1)
    found: np.ndarray = np.where(applies.any(axis=1), highest, precedent([]))
    return found


def fit(probabilities: "np.ndarray", labels: "np.ndarray", unsafe_allow_max: float, confidence: float) -> Calibration:
    """Temperature and thresholds from held-out rows.

    The other classes' thresholds maximise the decision's macro-F1 by coordinates; ALLOW's is then the smallest
    from one half whose unsafe-allow rate is at most `unsafe_allow_max` with this confidence.
    """
    temperature = fit_temperature(probabilities, labels)
    whole = tempered(probabilities, temperature)
    thresholds = [0.5] * len(Label)
    for _ in range(ROUNDS):
        for label in (Label.REFUSE, Label.DENY, Label.ESCALATION):
            thresholds[label] = max(GRID, key=lambda t, c=label: _score(whole, labels, thresholds, c, t))  # type: ignore[misc]
    thresholds[Label.ALLOW] = allow_threshold(whole[:, Label.ALLOW], labels, unsafe_allow_max, confidence)
    return Calibration(temperature, tuple(thresholds))


def _score(
    whole: "np.ndarray", labels: "np.ndarray", thresholds: Sequence[float], label: Label, threshold: float
) -> tuple[float, float]:
    tried = [threshold if c == label else t for c, t in enumerate(thresholds)]
    guessed = _decided(whole, tried).tolist()
    # Of equal ones the most usual: a threshold far from one half claims more than the rows said.
    return float(classification(labels.tolist(), guessed)["macro_f1"]), -abs(threshold - 0.5)


def allow_threshold(likely: "np.ndarray", labels: "np.ndarray", unsafe_allow_max: float, confidence: float) -> float:
    """The smallest from one half that keeps the bound, for ALLOW's probabilities [N]; NEVER where too few rows say so.

    A row of another class counts where it is as likely, even if that class's threshold would have stopped it: those
    thresholds were fitted on the same rows.
    """
    unsafe = likely[labels != Label.ALLOW]
    for candidate in sorted({ALLOW_MIN, *(float(p) for p in likely if p > ALLOW_MIN)}):
        if upper_limit(int((unsafe >= candidate).sum()), len(unsafe), confidence) <= unsafe_allow_max:
            return candidate
    return NEVER


def upper_limit(errors: int, n: int, confidence: float) -> float:
    """Of the rate behind so many errors in n rows, one-sided (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return float(beta.ppf(confidence, errors + 1, n - errors)) if errors < n else 1.0


def report(
    probabilities: "np.ndarray", labels: "np.ndarray", unsafe_allow_max: float, confidence: float
) -> dict[str, Any]:
    """Calibration error, Brier score and decisions before and after; `after` is out of fold, so no row judges itself."""
    after, decided = np.zeros_like(probabilities), np.zeros(len(labels), int)
    folds = np.arange(len(labels)) % min(FOLDS, len(labels))
    for fold in set(folds.tolist()):
        held = folds == fold
        fitted = fit(probabilities[~held], labels[~held], unsafe_allow_max, confidence)
        after[held] = tempered(probabilities[held], fitted.temperature)
        decided[held] = [int(fitted.decide(row)) for row in probabilities[held]]
    measured = {
        name: {
            "calibration_error": expected_calibration_error(p, labels),
            "brier": brier(p, labels),
            "reliability": reliability(p, labels),
        }
        for name, p in (("before", probabilities), ("after", after))
    }
    return {**measured, "decisions": classification(labels.tolist(), decided.tolist())}


def tempered(probabilities: "np.ndarray", temperature: float) -> "np.ndarray":
    """softmax(logits / T), from the probabilities at T = 1."""
    powered = np.maximum(probabilities, 1e-12) ** (1.0 / temperature)
    whole: np.ndarray = powered / powered.sum(axis=1, keepdims=True)
    return whole


def fit_temperature(probabilities: "np.ndarray", labels: "np.ndarray") -> float:
    """The temperature that minimises the negative log-likelihood, within [0.05, 20]."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        whole = tempered(probabilities, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(whole[np.arange(len(labels)), labels], 1e-12)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded").x))


def brier(probabilities: "np.ndarray", labels: "np.ndarray") -> float:
    """Mean squared distance of the probabilities to the truth, summed over classes: 0 to 2 (Brier 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def reliability(probabilities: "np.ndarray", labels: "np.ndarray") -> list[dict[str, float]]:
    """Mean confidence, accuracy and rows of each of ten bins of confidence: what a reliability diagram shows."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {"confidence": float(confidence[m].mean()), "accuracy": float(right[m].mean()), "rows": int(m.sum())}
        for m in (bins == b for b in sorted(set(bins.tolist())))
    ]


def expected_calibration_error(probabilities: "np.ndarray", labels: "np.ndarray") -> float:
    """Mean gap of confidence and accuracy over ten bins of confidence, weighted by their rows."""
    found = reliability(probabilities, labels)
    return sum(abs(b["confidence"] - b["accuracy"]) * b["rows"] for b in found) / len(labels)
