"""The four-class classifier against TF-IDF with logistic regression: the same rows to learn from, the same rows to judge.

    OMP_NUM_THREADS=1 python -m benchmarks.four_class --home DIR [--config configs/demo.yaml] [--seeds 0 1 2] [--set K=V]

Makes what is missing under DIR (data and base once, a training for each seed), then measures on the test rows, which
neither of the two has seen. Both learn from the training rows; temperature and thresholds of both are fitted on the
validation rows, which also chose the classifier's best state. Intervals are of a bootstrap over groups of rows that
belong together; the difference is paired. Classes are by the highest probability, "decided" ones by the thresholds.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from so8t import calibration, records
from so8t.artifacts import Artifact, Store
from so8t.classifier import Classifier
from so8t.config import load_config
from so8t.measures import classification
from so8t.preprocess import labeller
from so8t.progress import PlainLines
from so8t.records import Record
from so8t.step import Ref, execute
from so8t.wiring import BASE, COLLECT, FOUR_CLASS, PREPROCESS

RESAMPLES = 2000
LEVEL = (2.5, 97.5)
Rows = list[Record]


def make(config_path: Path, overrides: list[str], home: Path) -> dict[str, Artifact]:
    """Everything up to the classifier, as far as it is not there."""
    config = load_config(config_path, ["machine.threads=1", *overrides], home)
    store, sinks = Store(home), (PlainLines(),)
    sources = [Ref("collect.source", source.name) for source in config.collect.sources]
    return {ref.step: execute(ref, config, store, sinks) for ref in (*sources, COLLECT, PREPROCESS, BASE, FOUR_CLASS)}


def texts(folder: Path, split: str) -> Rows:
    """Labelled text rows, ordered by id."""
    found = [row for row in records.iterate(folder / f"{split}.parquet") if row.modality == "text" and row.label >= 0]
    return sorted(found, key=lambda row: row.id)


def groups_of(rows: Rows) -> list[list[int]]:
    """Places of the rows that belong together."""
    members: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        members[row.group or row.id].append(place)
    return list(members.values())


def macro_f1(truth: "np.ndarray", guessed: "np.ndarray") -> float:
    """Over the classes that occur."""
    return float(classification(truth.tolist(), guessed.tolist())["macro_f1"])


def interval(values: list[float]) -> list[float]:
    """Percentiles of the resamples."""
    return [round(float(v), 3) for v in np.percentile(values, LEVEL)]


def measure(
    found: "np.ndarray", steered: "np.ndarray", rows: Rows, held_out: Rows, bound: float, confidence: float
) -> dict[str, Any]:
    """What probabilities [N, 4] of the test rows are worth; `steered` are those of the validation rows."""
    truth, known = (np.array([row.label for row in part]) for part in (rows, held_out))
    fitted = calibration.fit(steered, known, bound, confidence)
    whole = calibration.tempered(found, fitted.temperature)
    plain = classification(truth.tolist(), found.argmax(1).tolist())
    decided = classification(truth.tolist(), [int(fitted.decide(row)) for row in found])
    return {
        "macro_f1": plain["macro_f1"], "accuracy": plain["accuracy"], "unsafe_allow": plain["unsafe_allow_rate"],
        "ece": calibration.expected_calibration_error(whole, truth), "brier": calibration.brier(whole, truth),
        "decided_macro_f1": decided["macro_f1"], "decided_unsafe_allow": decided["unsafe_allow_rate"],
        "decided_allow_recall": decided["recall"]["ALLOW"],
    }  # fmt: skip


def compare(model: "np.ndarray", peer: "np.ndarray", rows: Rows) -> dict[str, list[float]]:
    """Bootstrap intervals of both macro-F1 and of their difference."""
    generator, groups = np.random.default_rng(0), groups_of(rows)
    truth = np.array([row.label for row in rows])
    ours, theirs = model.argmax(1), peer.argmax(1)
    drawn: dict[str, list[float]] = defaultdict(list)
    for _ in range(RESAMPLES):
        picked = generator.integers(0, len(groups), len(groups))
        places = np.array([place for group in picked for place in groups[group]])
        a, b = macro_f1(truth[places], ours[places]), macro_f1(truth[places], theirs[places])
        for name, value in (("classifier", a), ("tfidf", b), ("difference", a - b)):
            drawn[name].append(value)
    return {name: interval(values) for name, values in drawn.items()}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    for seed in options.seeds:
        made = make(options.config, [*options.overrides, f"four_class.seed={seed}"], options.home)
        train, held_out, test = (texts(made["preprocess"].path, s) for s in ("train", "validation", "test"))
        decision = made["four_class"].manifest.config["decision"]
        limits = float(decision["unsafe_allow_max"]), float(decision["confidence"])
        peer = labeller.fit(train, 0)
        assert peer is not None
        theirs, their_steering = (peer.predict([row.prompt for row in part]) for part in (test, held_out))
        model = Classifier.load(made["four_class"].path, made["collect.base"].path, "cpu")
        ours, our_steering = (model.probabilities([row.prompt for row in part]) for part in (test, held_out))
        table = {
            "seed": seed, "rows": {"train": len(train), "validation": len(held_out), "test": len(test)},
            "groups": len(groups_of(test)),
            "classifier": measure(ours, our_steering, test, held_out, *limits),
            "tfidf": measure(theirs, their_steering, test, held_out, *limits),
            "intervals_95": compare(ours, theirs, test),
            "trained_in_s": made["four_class"].seconds,
        }  # fmt: skip
        print(json.dumps(table, default=float), flush=True)


if __name__ == "__main__":
    main()
