"""Which class each row has, and in which file it ends: decided row by row once the labeller has learnt.

The labeller learns from `labeller_rows_max` labelled texts at most; how likely it finds a given label is measured out
of fold for these, and for all others by the model that never saw them.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from so8t.labels import Label
from so8t.preprocess import labeller, replies, review
from so8t.preprocess.config import Preprocess
from so8t.preprocess.index import NONE, SPLITS, Index
from so8t.records import Record

NOBODY = "held out, but nobody has labelled it"
CLASSES = "classes.jsonl"  # of preprocess.classes
REMOVED, POOL, BY_MODEL, LABELLED = "removed", "nsfw", "model_labelled", "labelled"
TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")


@dataclass
class Labelling:
    """What was learnt, and what the rows' decisions need."""

    index: Index
    config: Preprocess
    model: labeller.Labeller | None
    answers: dict[str, Label]
    classified: "Classified | None"
    likely: dict[int, float] = field(default_factory=dict)  # of rows that the labeller learnt from
    contradicted: list[dict[str, Any]] = field(default_factory=list)
    doubts: list[review.Doubt] = field(default_factory=list)
    _unsure: list[Record] = field(default_factory=list)

    def ends(self, rows: np.ndarray, found: list[Record]) -> Iterator[tuple[str, Record, str]]:
        """(file, row as it is written there, why it was removed or "") of some rows, in order."""
        likely = self._predicted(rows, found)
        for place, (row, record) in enumerate(zip(rows.tolist(), found, strict=True)):
            yield self._end(row, review.answered(record, self.answers), likely.get(place))
        self._unsure = review.least_sure(self._unsure, self.config.active_max)

    def active(self) -> list[review.Doubt]:
        """Rows for a person to look at, once all rows have ended."""
        return self.doubts + review.unsure(self._unsure, self.config.active_max)

    def _predicted(self, rows: np.ndarray, found: list[Record]) -> dict[int, np.ndarray]:
        """Probabilities by place of the texts whose decision needs them."""
        if self.model is None:
            return {}
        index, free = self.index, self.classified is None
        places = [
            place
            for place, row in enumerate(rows.tolist())
            if index.text_N[row] and index.split_N[row] != NONE and row not in self.likely
            if index.label_N[row] >= 0 or (free and index.split_N[row] == TRAIN)
        ]
        if not places:
            return {}
        return dict(zip(places, self.model.predict([found[place].prompt for place in places]), strict=True))

    def _end(self, row: int, record: Record, likely: np.ndarray | None) -> tuple[str, Record, str]:
        index = self.index
        if reason := index.reasons.text(row, index.ids):
            return REMOVED, record.with_(image=b""), reason
        if index.nsfw_N[row]:
            return POOL, record.with_(nsfw=True, image=b""), ""
        split = int(index.split_N[row])
        record = record.with_(split=SPLITS[split], group=index.ids[index.root_N[row]])
        if record.label >= 0:
            sure = self.likely.get(row, record.label_confidence if likely is None else float(likely[record.label]))
            taught = replies.usable(record).with_(label_confidence=round(sure, 6))
            return (SPLITS[split] if taught.response or split == TEST else LABELLED), taught, ""
        if split != TRAIN:
            return REMOVED, record.with_(image=b""), NOBODY
        return self._by_model(row, record, likely)

    def _by_model(self, row: int, record: Record, likely: np.ndarray | None) -> tuple[str, Record, str]:
        """It joins the labelled ones where its reply may be learnt, because the model is sure of ALLOW."""
        label, confidence, source = Label.ESCALATION, 0.0, "model"
        if self.classified is not None:
            label, confidence, source = self.classified.get(row, (label, confidence, source))
        elif likely is not None:
            label, confidence = labeller.decide(likely, self.config.label_confidence_min)
        record = record.with_(label=int(label), label_source=source, label_confidence=round(confidence, 6))
        taught = replies.usable(record)
        if taught.response and confidence > self.config.reply_confidence_min:
            return SPLITS[TRAIN], taught, ""
        self._unsure.append(taught)
        return BY_MODEL, taught, ""


def learn(index: Index, config: Preprocess, answers: dict[str, Label], classes: Path | None) -> Labelling:
    """Fit the labeller on labelled texts outside of test. Rows that a person answered for are labelled ones."""
    labelled = np.flatnonzero(index.text_N & (index.label_N >= 0) & (index.split_N != NONE) & (index.split_N != TEST))
    drawn_L = np.fromiter((_draw(index.ids[int(row)]) for row in labelled), np.uint64, len(labelled))
    rows = np.sort(labelled[np.argsort(drawn_L, kind="stable")[: config.labeller_rows_max]])
    learnt = [
        record.with_(
            label=int(index.label_N[row]), split=SPLITS[index.split_N[row]], group=index.ids[index.root_N[row]]
        )
        for row, record in zip(rows.tolist(), index.records(rows), strict=True)
    ]
    model = labeller.fit(learnt, config.seed)
    made = Labelling(index, config, model, answers, Classified(index, classes) if classes else None)
    if model:
        made.contradicted = labeller.review(learnt, model, config.review_max)
        given = model.out_of_fold[np.arange(len(learnt)), [record.label for record in learnt]]
        made.likely = dict(zip(rows.tolist(), given.tolist(), strict=True))
        made.doubts = review.contradicted(learnt, made.contradicted)
    return made


def places(ids: list[str], index: Index) -> list[int]:
    """Row numbers of ids; NONE for an id that no row has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(pa.array(ids, index.ids.values.type), value_set=index.ids.values)
    return [NONE if row is None else row for row in found.to_pylist()]


class Classified:
    """What the trained classifier found, by row: 9 bytes a row."""

    def __init__(self, index: Index, path: Path) -> None:
        self._class_N, self._likely_N = np.full(index.rows, NONE, np.int8), np.zeros(index.rows)
        self._source = "model"
        with (path / CLASSES).open(encoding="utf-8") as file:
            while lines := file.readlines(1 << 20):
                found = [json.loads(line) for line in lines]
                for row, said in zip(places([said["id"] for said in found], index), found, strict=True):
                    if row != NONE:
                        self._class_N[row], self._likely_N[row] = Label[said["class"]], said["confidence"]
                        self._source = said["source"]

    def get(self, row: int, otherwise: tuple[Label, float, str]) -> tuple[Label, float, str]:
        """(class, confidence, source) of a row."""
        if self._class_N[row] == NONE:
            return otherwise
        return Label(int(self._class_N[row])), float(self._likely_N[row]), self._source


def _draw(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
