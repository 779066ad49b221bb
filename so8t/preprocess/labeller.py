"""The four classes: a given label stands, a model cross-checks it, and a doubt never becomes ALLOW.

TF-IDF of characters 1-3 and of runs of one script (kana, kanji, letters: nearly words, without a dictionary), begin and
end of the text marked, and a linear support vector machine. Its margins become probabilities out of fold (groups stay
whole), calibrated by one temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). Rows of the
test split are scored but never learnt from, and never proposed for review.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from so8t import pulse
from so8t.calibration import expected_calibration_error, fit_temperature, tempered
from so8t.labels import LABEL_NAMES, Label
from so8t.preprocess.normalise import normal_form
from so8t.records import Record

FOLDS = 5
FEATURES_MAX = 100_000  # of each kind
MIN_DF = 2  # texts in which a feature stands
SLOTS = 1 << 24  # in which n-grams are counted by their hash before they are held
SHARPNESS = 2.0  # probabilities from margins, before the temperature
_RUN = re.compile(r"[\u3040-\u309f]+|[\u30a0-\u30ff]+|[\u3400-\u9fff\u3005]+|[a-z0-9]+|\S")
Proba = Callable[[list[str]], "np.ndarray"]
Analyse = Callable[[str], list[str]]


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
        pulse.beat()
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


@dataclass(frozen=True)
class Settings:
    """What a fit depends on; the defaults are chosen as benchmarks/labels_four_class.py shows."""

    characters: int = 3
    """Longest character n-gram."""
    words: float = 0.7
    """Weight of the script runs beside the characters."""
    cost: float = 0.7
    """C of the support vector machine."""


def pipeline(texts: list[str], y: "np.ndarray", settings: Settings = Settings()) -> Proba:
    """Learn from normal forms and their classes [n]; gives uncalibrated probabilities [n, 4] of normal forms."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.pipeline import FeatureUnion
    from sklearn.svm import LinearSVC

    shared = {
        "sublinear_tf": True,
        "min_df": MIN_DF,
        "max_features": FEATURES_MAX,
        "lowercase": False,
        "dtype": np.float32,
    }
    characters = CountVectorizer(analyzer="char", ngram_range=(1, settings.characters), lowercase=False)
    analysers: dict[str, Analyse] = {"characters": characters.build_analyzer(), "words": script_runs}
    marked = [_marked(text) for text in texts]
    vectoriser = FeatureUnion(
        [(name, TfidfVectorizer(analyzer=_repeated(by, marked), **shared)) for name, by in analysers.items()],
        transformer_weights={"words": settings.words},
    )
    model = LinearSVC(C=settings.cost, class_weight="balanced", max_iter=5000, random_state=0)
    model.fit(vectoriser.fit_transform(marked).astype(np.float64), y)  # else it would hold both kinds
    for name, part in vectoriser.transformer_list:
        part.set_params(analyzer=analysers[name])  # from now on what is not in the vocabulary is passed over

    def predict(batch: list[str]) -> "np.ndarray":
        margins = model.decision_function(vectoriser.transform([_marked(text) for text in batch]))
        if margins.ndim == 1:  # two classes: one margin for both
            margins = np.stack([-margins, margins], axis=1)
        likely = np.exp(SHARPNESS * (margins - margins.max(axis=1, keepdims=True)))
        whole = np.zeros((len(batch), len(Label)))
        whole[:, model.classes_] = likely / likely.sum(axis=1, keepdims=True)
        return whole

    return predict


def _repeated(analyse: Analyse, texts: list[str]) -> Analyse:
    """The same without n-grams that stand in fewer than MIN_DF of these texts, save a few that share another's slot.

    Vectorisers drop those too, but hold all of them until then: of 2,000 texts of 340 characters 140 MB.
    """
    often = bytearray(SLOTS)
    counts = np.frombuffer(often, np.uint8)
    for text in texts:
        slots = np.fromiter({hash(gram) % SLOTS for gram in analyse(text)}, np.int64)
        counts[slots] = np.minimum(counts[slots] + 1, MIN_DF)
    return lambda text: [gram for gram in analyse(text) if often[hash(gram) % SLOTS] == MIN_DF]


def script_runs(text: str) -> list[str]:
    """Runs of one script, and two and three of them in a row."""
    runs = _RUN.findall(text)
    return ["".join(runs[start : start + length]) for length in (1, 2, 3) for start in range(len(runs) - length + 1)]


def _marked(text: str) -> str:
    return f"\x02{text}\x03"


def _macro_f1(y: "np.ndarray", guess: "np.ndarray") -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(y, guess, average="macro"))
