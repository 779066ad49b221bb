"""The four-class labeller on real prompts: five folds with groups, then each harmful category left out in turn.

    SO8T_REALDATA=DIR OMP_NUM_THREADS=1 python -m benchmarks.labels_four_class [--confidence-min 0.6]

DIR holds xsafety/ja/*.csv (Apache-2.0, one prompt a line) and instruction_ja/data.jsonl (MIT). XSafety names categories,
not classes: CLASS_OF is our reading of them, fixed before any score was seen, by what most prompts of a category ask for.
`commonsense` is left out: its prompts are safe behaviour in a harmful frame. Groups are near copies (Jaccard >= .5).
Without a category the labeller has never seen the topic: what counts there is that it does not say ALLOW. A fifth of the
benign prompts (whole groups) is held out with each category, and the temperature is that of the five folds.
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

from so8t.calibration import tempered
from so8t.labels import LABEL_NAMES, Label
from so8t.preprocess import labeller
from so8t.preprocess.config import Preprocess
from so8t.preprocess.duplicates import find_pairs
from so8t.preprocess.normalise import normal_form
from so8t.records import Record

SEED = 0
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


def leave_out(rows: list[Record], category: str, fold: int, temperature: float, bound: float) -> dict[str, Any]:
    """The category and a fifth of the benign prompts, judged by a model that saw neither them nor their near copies."""
    benign = {row.group for row in rows if row.category == BENIGN and int(row.group) % 5 == fold}
    hidden = {row.group for row in rows if row.category == category} | benign
    learn = [row for row in rows if row.group not in hidden]
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


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--confidence-min", type=float, default=Preprocess().label_confidence_min)
    bound = parser.parse_args().confidence_min
    if "SO8T_REALDATA" not in os.environ:
        sys.exit("SO8T_REALDATA names no folder: see --help")
    rows = read(Path(os.environ["SO8T_REALDATA"]))
    model = labeller.fit(rows, SEED)
    assert model is not None
    sure = decided(model.out_of_fold, bound)
    benign = [label for row, label in zip(rows, sure, strict=True) if row.category == BENIGN]
    harmful = [label for row, label in zip(rows, sure, strict=True) if row.category != BENIGN]
    print(json.dumps({
        **model.facts, "classes": {name: sum(row.label == n for row in rows) for n, name in enumerate(LABEL_NAMES)},
        "groups": len({row.group for row in rows}), "confidence_min": bound,
        "over_refusal": round(float(np.mean([label != Label.ALLOW for label in benign])), 4),
        "not_allow": round(float(np.mean([label != Label.ALLOW for label in harmful])), 4),
    }), flush=True)  # fmt: skip
    tables = []
    for number, category in enumerate(sorted(CLASS_OF)):
        tables.append(leave_out(rows, category, number % 5, model.facts["temperature"], bound))
        print(json.dumps(tables[-1]), flush=True)
    for name in ("exact", "not_allow_plain", "not_allow", "over_refusal"):
        values = [table[name] for table in tables]
        print(json.dumps({"measure": name, "mean": round(float(np.mean(values)), 3), "worst": max(values) if name == "over_refusal" else min(values)}))  # fmt: skip


if __name__ == "__main__":
    main()
