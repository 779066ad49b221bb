"""The four classes: a given label stands, a model cross-checks it, and a doubt never becomes ALLOW.

TF-IDF of characters 1-4 and logistic regression; probabilities are out of fold (groups stay whole) and
calibrated by one temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). Rows of
the test split are scored but never learnt from, and never proposed for review.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from so8t.calibration import expected_calibration_error, fit_temperature, tempered
from so8t.labels import LABEL_NAMES, Label
from so8t.preprocess.normalise import normal_form
from so8t.records import Record

FOLDS = 5
Proba = Callable[[list[str]], "np.ndarray"]


@dataclass(frozen=True)
class Labeller:
    """A fitted model with what it measured out of fold."""

    predict: Proba  # texts -> calibrated probabilities [n, 4]
    out_of_fold: "np.ndarray"  # [learnt rows, 4]
    facts: dict[str, Any]


def fit(records: list[Record], seed: int) -> Labeller | None:
    """Learn from rows with a human label; None where they are too few to hold any out."""
    from sklearn.model_selection import StratifiedGroupKFold

    texts, y = [normal_form(record.prompt) for record in records], np.array([record.label for record in records])
    groups = [record.group for record in records]
    per_class = [len({g for g, label in zip(groups, y, strict=True) if label == c}) for c in sorted(set(y.tolist()))]
    folds = min([FOLDS, *per_class])
    if len(per_class) < 2 or folds < 2:
        return None
    held_out = np.zeros((len(records), len(Label)))
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    for learn, hold in splitter.split(texts, y, groups):
        held_out[hold] = pipeline([texts[i] for i in learn], y[learn])([texts[i] for i in hold])
    temperature = fit_temperature(held_out, y)
    calibrated = tempered(held_out, temperature)
    predict = pipeline(texts, y)
    facts = {
        "rows": len(records),
        "folds": folds,
        "temperature": round(temperature, 3),
        "macro_f1": round(_macro_f1(y, calibrated.argmax(axis=1)), 4),
        "calibration_error_before": round(expected_calibration_error(held_out, y), 4),
        "calibration_error": round(expected_calibration_error(calibrated, y), 4),
    }
    return Labeller(lambda batch: tempered(predict([normal_form(t) for t in batch]), temperature), calibrated, facts)


def decide(probabilities: "np.ndarray", confidence_min: float) -> tuple[Label, float]:
    """Class and confidence of a row that nobody has labelled; below the bound it is ESCALATION."""
    best = int(probabilities.argmax())
    confidence = float(probabilities[best])
    return (Label(best), confidence) if confidence >= confidence_min else (Label.ESCALATION, confidence)


def review(records: list[Record], labeller: Labeller, most: int) -> list[dict[str, Any]]:
    """The learnt rows whose given class is least likely, by id: a ranking to look through, not a verdict."""
    given = labeller.out_of_fold[np.arange(len(records)), [record.label for record in records]]
    guess = labeller.out_of_fold.argmax(axis=1)
    order = [int(i) for i in np.argsort(given, kind="stable") if guess[i] != records[i].label]
    return [
        {
            "id": records[i].id,
            "given": LABEL_NAMES[records[i].label],
            "labeller": LABEL_NAMES[int(guess[i])],
            "probability_of_given": round(float(given[i]), 4),
        }
        for i in order[:most]
    ]


def pipeline(texts: list[str], y: "np.ndarray") -> Proba:
    """Learn from normal forms and their classes [n]; gives uncalibrated probabilities [n, 4] of normal forms."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectoriser = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, max_features=50_000)
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=500)
    model.fit(vectoriser.fit_transform(texts), y)

    def predict(batch: list[str]) -> "np.ndarray":
        whole = np.zeros((len(batch), len(Label)))
        whole[:, model.classes_] = model.predict_proba(vectoriser.transform(batch))
        return whole

    return predict


def _macro_f1(y: "np.ndarray", guess: "np.ndarray") -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(y, guess, average="macro"))
