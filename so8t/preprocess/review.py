"""Rows for a person to look at, as a file to fill in, and the answers read back as human labels.

The list holds rows that nobody has labelled, the least sure first but none like one already on it, and rows whose given
class the labeller contradicts. No row of the test split is on it: labels mended by the model's doubts would flatter it.
"""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from so8t.errors import InputError
from so8t.labels import LABEL_NAMES, Label, parse_label
from so8t.preprocess.config import HumanLabels
from so8t.preprocess.normalise import normal_form
from so8t.records import Record

COLUMNS = ("id", "label", "labeller", "confidence", "why", "prompt")
POOL = 10  # times the rows wanted: how many of the least sure the most different are chosen from
# A table program would run a cell that begins so.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Doubt:
    """One row of the list."""

    record: Record
    labeller: Label
    confidence: float
    why: str


def unsure(records: list[Record], most: int) -> list[Doubt]:
    """Of rows that a model labelled the least sure, chosen greedily: doubt times distance to what is chosen already.

    Distance is one minus the cosine of TF-IDF vectors of characters 1-3. Ties go by id.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    pool = least_sure(records, most)
    if not pool or not most:
        return []
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3)).fit_transform([normal_form(r.prompt) for r in pool])
    doubt = np.array([1 - record.label_confidence for record in pool])
    near = np.zeros(len(pool))
    chosen: list[int] = []
    for _ in range(min(most, len(pool))):
        score = doubt * (1 - near)
        score[chosen] = -1.0
        best = int(score.argmax())
        chosen.append(best)
        near = np.maximum(near, (vectors @ vectors[best].T).toarray()[:, 0])
    return [Doubt(pool[i], pool[i].klass, pool[i].label_confidence, "unsure") for i in chosen]


def least_sure(records: list[Record], most: int) -> list[Record]:
    """The rows from which `unsure` chooses `most`: asked for again and again, it needs no others."""
    texts = (record for record in records if record.modality == "text" and record.split != "test")
    return sorted(texts, key=lambda record: (record.label_confidence, record.id))[: POOL * most]


def contradicted(records: Iterable[Record], ranking: list[dict[str, Any]]) -> list[Doubt]:
    """The rows of `labeller.review`."""
    known = {record.id: record for record in records if record.split != "test"}
    return [
        Doubt(known[row["id"]], Label[row["labeller"]], row["probability_of_given"], f"given as {row['given']}")
        for row in ranking
        if row["id"] in known
    ]


def as_csv(doubts: list[Doubt]) -> str:
    """A table with an empty column `label` to fill in; begins with a BOM, without which Excel reads no UTF-8."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for doubt in doubts:
        cells = (doubt.record.id, "", doubt.labeller.name, f"{doubt.confidence:.3f}", doubt.why, doubt.record.prompt)
        writer.writerow([f"'{cell}" if cell.startswith(FORMULA) else cell for cell in cells])
    return "\ufeff" + file.getvalue()


def as_markdown(doubts: list[Doubt]) -> str:
    """The same for reading."""
    lines = ["# Rows for a person", "", f"Fill in `label` in active.csv ({', '.join(LABEL_NAMES)}) and name the file in `preprocess.human_labels`.", ""]  # fmt: skip
    lines += ["| id | labeller | confidence | why | prompt |", "|---|---|---|---|---|"]
    for doubt in doubts:
        prompt = " ".join(doubt.record.prompt.split()).replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {doubt.record.id} | {doubt.labeller.name} | {doubt.confidence:.3f} | {doubt.why} | {prompt} |")
    return "\n".join([*lines, ""])


def read_answers(file: HumanLabels) -> dict[str, Label]:
    """Class by id from a filled-in CSV or JSONL file; rows without an answer are passed over.

    InputError names the line of an unknown class, of an answer without an id, or of two answers that disagree.
    """
    answers: dict[str, Label] = {}
    for number, row in _rows(file.path):
        name, given = str(row.get("id") or "").removeprefix("'"), str(row.get("label") or "").strip()
        if not given:
            continue
        try:
            label = parse_label(given)
        except ValueError as error:
            raise InputError(f"{file.path}, line {number}: {error}", ", ".join(LABEL_NAMES), "mend the line") from None
        if not name or answers.setdefault(name, label) != label:
            fault = f"{name} is also {answers[name].name}" if name else "an answer without an id"
            raise InputError(f"{file.path}, line {number}: {fault}", "one answer for each id", "mend the line")
    return answers


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8", "UTF-8", "save the table as CSV UTF-8") from None
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if not {"id", "label"} <= set(reader.fieldnames or ()):
            raise InputError(f"{path} has the columns {reader.fieldnames}", "id and label", "fill in active.csv")
        return [(reader.line_num, row) for row in reader]
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is no JSON object", "one JSON object a line", "mend the line")
        found.append((number, row))
    return found


def answered(record: Record, answers: dict[str, Label]) -> Record:
    """The row with the person's class, which goes before any other."""
    if record.id not in answers:
        return record
    return record.with_(label=int(answers[record.id]), label_source="human", label_confidence=1.0)
