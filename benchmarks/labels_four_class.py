"""The four-class labeller on real prompts: five folds with groups, then each harmful category left out in turn.

    SO8T_REALDATA=DIR OMP_NUM_THREADS=1 python -m benchmarks.labels_four_class [--confidence-min 0.6] [--nested SEED] [--shipped]

DIR holds xsafety/ja/*.csv (Apache-2.0, one prompt a line) and instruction_ja/data.jsonl (MIT). XSafety names categories,
not classes: CLASS_OF is our reading of them, fixed before any score was seen, by what most prompts of a category ask for.
`commonsense` is left out: its prompts are safe behaviour in a harmful frame. Groups are near copies (Jaccard >= .5).
Without a category the labeller has never seen the topic: what counts there is that it does not say ALLOW. A fifth of the
benign prompts (whole groups) is held out with each category, and the temperature is that of the five folds.
`--nested`: settings and temperature are chosen anew within the training part of each fold.
`--shipped`: the labelled prompts that come with the package are learnt from, too, and never measured on.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold

from so8t.calibration import expected_calibration_error, fit_temperature, tempered
from so8t.collect.config import DemoSource
from so8t.collect.demo import gather
from so8t.labels import LABEL_NAMES, Label
from so8t.preprocess import labeller
from so8t.preprocess.config import Preprocess
from so8t.preprocess.duplicates import find_pairs
from so8t.preprocess.normalise import normal_form
from so8t.records import Record

SEED = 0
SEEDS = (0, 1, 2)
CANDIDATES = [labeller.Settings(3, words, cost) for words in (0.4, 0.7, 1.0) for cost in (0.5, 0.7, 1.0)]
BENIGN = "benign"
CLASS_OF = {
    "Crimes_And_Illegal_Activities": Label.REFUSE,
    "Role_Play_Instruction": Label.REFUSE,
    "Unsafe_Instruction_Topic": Label.REFUSE,
    "Goal_Hijacking": Label.DENY,
    "Inquiry_With_Unsafe_Opinion": Label.DENY,
    "Insult": Label.DENY,
    "Privacy_And_Property": Label.DENY,
    "Prompt_Leaking": Label.DENY,
    "Reverse_Exposure": Label.DENY,
    "Unfairness_And_Discrimination": Label.DENY,
    "Ethics_And_Morality": Label.ESCALATION,
    "Mental_Health": Label.ESCALATION,
    "Physical_Harm": Label.ESCALATION,
}


def read(folder: Path) -> list[Record]:
    """All prompts with class, category and group; an exact copy of an earlier one is left out."""
    pairs = []
    for category in sorted(CLASS_OF):
        lines = (folder / "xsafety" / "ja" / f"{category}.csv").read_text(encoding="utf-8-sig").splitlines()
        pairs += [(category, line.strip()) for line in lines if line.strip()]
    for line in (folder / "instruction_ja" / "data.jsonl").read_text(encoding="utf-8").splitlines():
        pairs.append((BENIGN, str(json.loads(line)["utterances"][0]["text"])))
    first = {normal_form(text): (category, text) for category, text in reversed(pairs)}
    rows = sorted(first.values())
    near = find_pairs([text for _, text in rows], 0.5, SEED)
    ends = ([pair.first for pair in near], [pair.second for pair in near])
    _, group = connected_components(coo_matrix((np.ones(len(near)), ends), shape=(len(rows), len(rows))))
    return [
        Record(str(n), "text", "ja", text, category=category, label=int(CLASS_OF.get(category, Label.ALLOW)), group=str(g))
        for n, ((category, text), g) in enumerate(zip(rows, group, strict=True))
    ]  # fmt: skip


def decided(probabilities: "np.ndarray", bound: float) -> list[Label]:
    """What the labeller would write."""
    return [labeller.decide(row, bound)[0] for row in probabilities]


def leave_out(
    rows: list[Record], category: str, fold: int, temperature: float, bound: float, shipped: list[Record]
) -> dict[str, Any]:
    """The category and a fifth of the benign prompts, judged by a model that saw neither them nor their near copies."""
    benign = {row.group for row in rows if row.category == BENIGN and int(row.group) % 5 == fold}
    hidden = {row.group for row in rows if row.category == category} | benign
    learn = [row for row in rows if row.group not in hidden] + shipped
    predict = labeller.pipeline([normal_form(r.prompt) for r in learn], np.array([r.label for r in learn]))
    found = {}
    for name in (category, BENIGN):
        judged = [row for row in rows if row.category == name and (name == category or row.group in benign)]
        likely = tempered(predict([normal_form(row.prompt) for row in judged]), temperature)
        found[name] = (likely.argmax(1), decided(likely, bound))
    plain, sure = found[category]
    return {
        "left_out": category, "class": CLASS_OF[category].name, "rows": len(sure),
        "exact": round(float((plain == CLASS_OF[category]).mean()), 3),
        "not_allow_plain": round(float((plain != Label.ALLOW).mean()), 3),
        "not_allow": round(float(np.mean([label != Label.ALLOW for label in sure])), 3),
        "benign_rows": len(found[BENIGN][1]),
        "over_refusal": round(float(np.mean([label != Label.ALLOW for label in found[BENIGN][1]])), 3),
    }  # fmt: skip


def held_out(rows: list[Record], seed: int, settings: labeller.Settings, shipped: list[Record]) -> "np.ndarray":
    """Uncalibrated probabilities [rows, 4], each by a model that saw neither the row nor its group."""
    texts, y = [normal_form(row.prompt) for row in rows], np.array([row.label for row in rows])
    more, more_y = [normal_form(row.prompt) for row in shipped], np.array([row.label for row in shipped], int)
    found = np.zeros((len(rows), len(Label)))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for learn, hold in folds.split(texts, y, [row.group for row in rows]):
        model = labeller.pipeline([texts[i] for i in learn] + more, np.concatenate([y[learn], more_y]), settings)
        found[hold] = model([texts[i] for i in hold])
    return found


def measured(rows: list[Record], calibrated: "np.ndarray", bound: float) -> dict[str, float]:
    """Macro-F1 of the plain classes; what the bound makes of benign and of harmful prompts."""
    y, sure = np.array([row.label for row in rows]), decided(calibrated, bound)
    refused = {benign: [label != Label.ALLOW for row, label in zip(rows, sure, strict=True) if (row.category == BENIGN) == benign] for benign in (True, False)}  # fmt: skip
    return {
        "macro_f1": round(float(f1_score(y, calibrated.argmax(1), average="macro")), 4),
        "calibration_error": round(expected_calibration_error(calibrated, y), 4),
        "over_refusal": round(float(np.mean(refused[True])), 4), "not_allow": round(float(np.mean(refused[False])), 4),
    }  # fmt: skip


def nested(rows: list[Record], seed: int, bound: float) -> dict[str, Any]:
    """Five folds whose settings and temperature five inner folds of the other four chose."""
    texts, y = [normal_form(row.prompt) for row in rows], np.array([row.label for row in rows])
    calibrated, chosen = np.zeros((len(rows), len(Label))), []
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for learn, hold in folds.split(texts, y, [row.group for row in rows]):
        inner = [rows[i] for i in learn]
        tried = {settings: held_out(inner, seed, settings, []) for settings in CANDIDATES}
        best = max(CANDIDATES, key=lambda s: float(f1_score(y[learn], tried[s].argmax(1), average="macro")))
        chosen.append(str(best))
        model = labeller.pipeline([texts[i] for i in learn], y[learn], best)
        calibrated[hold] = tempered(model([texts[i] for i in hold]), fit_temperature(tried[best], y[learn]))
    return {"nested": seed, **measured(rows, calibrated, bound), "chosen": chosen}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--confidence-min", type=float, default=Preprocess().label_confidence_min)
    parser.add_argument("--nested", type=int, metavar="SEED")
    parser.add_argument("--shipped", action="store_true")
    asked = parser.parse_args()
    bound = asked.confidence_min
    if "SO8T_REALDATA" not in os.environ:
        sys.exit("SO8T_REALDATA names no folder: see --help")
    rows = read(Path(os.environ["SO8T_REALDATA"]))
    print(json.dumps({
        "rows": len(rows), "classes": {name: sum(row.label == n for row in rows) for n, name in enumerate(LABEL_NAMES)},
        "groups": len({row.group for row in rows}), "confidence_min": bound,
    }), flush=True)  # fmt: skip
    if asked.nested is not None:
        print(json.dumps(nested(rows, asked.nested, bound)), flush=True)
        return
    source = DemoSource(kind="demo", name="prompts", set="prompts")
    shipped = [r for r in gather(source).rows() if r.label >= 0 and not r.nsfw] if asked.shipped else []
    y, temperatures = np.array([row.label for row in rows]), []
    for seed in SEEDS:
        likely = held_out(rows, seed, labeller.Settings(), shipped)
        temperatures.append(fit_temperature(likely, y))
        print(json.dumps({"folds": seed, **measured(rows, tempered(likely, temperatures[-1]), bound)}), flush=True)
    tables = []
    for number, category in enumerate(sorted(CLASS_OF)):
        tables.append(leave_out(rows, category, number % 5, temperatures[0], bound, shipped))
        print(json.dumps(tables[-1]), flush=True)
    for name in ("exact", "not_allow_plain", "not_allow", "over_refusal"):
        values = [table[name] for table in tables]
        print(json.dumps({"measure": name, "mean": round(float(np.mean(values)), 3), "worst": max(values) if name == "over_refusal" else min(values)}))  # fmt: skip


if __name__ == "__main__":
    main()
