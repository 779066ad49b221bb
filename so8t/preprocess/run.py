"""Cleans, labels and splits what was collected.

Writes train, validation, test .parquet: labelled rows with a reply that may be learnt (`replies`), in test also those
without, which the benchmark can ask. labelled.parquet: the other train and validation rows with a given class, for
four-class heads alone. model_labelled.parquet: train rows whose class only a model gave and that teach nothing.
nsfw.parquet: a pool of its own. removed.parquet with a `reason` for each row, masked like the rest; active.csv for a
person to fill in, and active.md; data_card.json and data_card.md.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from so8t import durable, records
from so8t.errors import InputError
from so8t.labels import Label
from so8t.preprocess import (
    card,
    contamination,
    duplicates,
    labeller,
    leaks,
    media,
    nsfw,
    pii,
    quality,
    replies,
    review,
    split,
)
from so8t.preprocess.config import Preprocess
from so8t.preprocess.pictures import UnreadableMedia, picture
from so8t.progress import Progress
from so8t.records import Record
from so8t.step import Facts, Inputs

PHASES = 6
NOBODY = "nobody has labelled it"
SHOWN = (
    "rows", "class", "modality", "removed", "masked", "labeller", "without_reply", "model_labelled", "human_labels", "active",
)  # fmt: skip
CLASSES = "classes.jsonl"  # of preprocess.classes
Removed = list[tuple[Record, str]]
Classified = tuple[Label, float, str]  # class, confidence, source


@dataclass
class _Notes:
    masked: Counter[str] = field(default_factory=Counter)
    labeller: dict[str, Any] | None = None
    contradicted: list[dict[str, Any]] = field(default_factory=list)
    opposite_pairs: int = 0
    people: dict[str, int] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)  # ids of rows whose class a person gave in an answer
    active: list[review.Doubt] = field(default_factory=list)


def run(config: Preprocess, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """See the module. The same rows in any order give the same files."""
    collected = inputs["collected"].path
    notes = _Notes()
    removed: Removed = []
    progress.update(0, PHASES, "masking personal data")
    rows = split.canonical(_clean(records.iterate(collected / "records.parquet"), config, notes, removed))
    nsfw_rows, rows = nsfw.pooled(rows, config.near_duplicate, config.seed)
    progress.update(1, PHASES, "quality")
    rows = _take(rows, _poor(rows, config), removed)
    progress.update(2, PHASES, "duplicates and splits")
    rows = _split(rows, config, notes, removed)
    progress.update(3, PHASES, "labels")
    rows, by_model = _label(rows, config, notes, removed, _classified(inputs))
    progress.update(4, PHASES, "pictures")
    rows = _draw(rows, config, removed, progress)
    progress.update(5, PHASES, "writing")
    return _write(
        rows, nsfw_rows, by_model, removed, notes, durable.read_json(collected / "sources.json")["sources"], out
    )


def _clean(rows: Iterable[Record], config: Preprocess, notes: _Notes, removed: Removed) -> list[Record]:
    """Masked rows with a person's answers, and without benchmark prompts: looked for before the masks could hide one."""
    answers = review.read_answers(config.human_labels) if config.human_labels else {}
    prompts = contamination.load(config.benchmark_prompts)
    clean = []
    for record in rows:
        masked = review.answered(_masked(record, notes.masked), answers)
        notes.answered |= {record.id} & answers.keys()
        if prompts.holds(record.prompt) or prompts.holds(record.response):
            removed.append((masked, contamination.REASON))
        else:
            clean.append(masked)
    used = len(notes.answered)
    notes.people = {"answers": len(answers), "used": used, "no_such_row": len(answers) - used}
    return clean


def _masked(record: Record, counts: Counter[str]) -> Record:
    prompt, found = pii.mask(record.prompt)
    response, more = pii.mask(record.response)
    counts.update(found + more)
    return record.with_(prompt=prompt, response=response) if found or more else record


def _take(rows: list[Record], reasons: dict[int, str], removed: Removed) -> list[Record]:
    """The rows without a reason against them; the others go to `removed`."""
    removed += [(rows[row], reason) for row, reason in sorted(reasons.items())]
    return [record for row, record in enumerate(rows) if row not in reasons]


def _poor(rows: list[Record], config: Preprocess) -> dict[int, str]:
    texts = [row for row, record in enumerate(rows) if record.modality == "text"]
    reasons = {row: reason for row in texts if (reason := quality.broken(rows[row].prompt))}
    rest = [row for row in texts if row not in reasons]
    odd = quality.odd([rows[row] for row in rest], config.quality_worst, config.quality_z, config.seed)
    return reasons | {rest[place]: reason for place, reason in odd.items()}


def _split(rows: list[Record], config: Preprocess, notes: _Notes, removed: Removed) -> list[Record]:
    rows = _take(rows, media.copies(rows), removed)
    texts = [record for record in rows if record.modality == "text"]
    pairs = duplicates.find_pairs([record.prompt for record in texts], config.same_group, config.seed)
    dropped = duplicates.drop(texts, pairs, config.near_duplicate)
    notes.opposite_pairs = sum(texts[pair.first].label != texts[pair.second].label for pair in pairs)
    place = {row: new for new, row in enumerate(row for row in range(len(texts)) if row not in dropped)}
    pairs = [
        duplicates.Pair(place[pair.first], place[pair.second], pair.jaccard)
        for pair in pairs
        if pair.first in place and pair.second in place
    ]
    kept, conflicts = split.assign(_take(texts, dropped, removed), pairs, config)
    others = [record for record in rows if record.modality != "text"]
    others, more = split.assign(others, media.find_pairs(others), config)
    removed += [(record, split.CONFLICT) for record in conflicts + more]
    kept, leaked = leaks.remove(kept + others, config.same_group, config.leak_check_rows)
    removed += leaked
    leaks.assert_apart(kept)
    return kept


def _label(
    rows: list[Record], config: Preprocess, notes: _Notes, removed: Removed, classified: dict[str, Classified] | None
) -> tuple[list[Record], list[Record]]:
    """(rows with a given label and how likely the labeller finds it, train rows that a model labelled).

    Of the latter those join the former whose reply may be learnt, because the model is sure of ALLOW.

    A trained classifier learnt from rows like these, so how likely it finds a human label would say nothing.
    """
    texts = [record for record in rows if record.modality == "text"]
    learnt = [record for record in texts if record.label >= 0 and record.split != "test"]
    model = labeller.fit(learnt, config.seed)
    likely: dict[str, float] = {}
    if model:
        notes.labeller, notes.contradicted = model.facts, labeller.review(learnt, model, config.review_max)
        likely = {r.id: float(p[r.label]) for r, p in zip(learnt, model.out_of_fold, strict=True)}
        tested = [record for record in texts if record.label >= 0 and record.split == "test"]
        if tested:
            likely |= {
                r.id: float(p[r.label]) for r, p in zip(tested, model.predict([r.prompt for r in tested]), strict=True)
            }
    given = [replies.usable(r) for r in rows if r.label >= 0]
    kept = [r.with_(label_confidence=round(likely.get(r.id, r.label_confidence), 6)) for r in given]
    by_model: list[Record] = []
    for record in (r for r in rows if r.label < 0):
        if record.split != "train":
            removed.append((record, f"held out, but {NOBODY}"))
            continue
        label, confidence, source = Label.ESCALATION, 0.0, "model"
        if classified is not None:
            label, confidence, source = classified.get(record.id, (label, confidence, source))
        elif model and record.modality == "text":
            label, confidence = labeller.decide(model.predict([record.prompt])[0], config.label_confidence_min)
        labelled = record.with_(label=int(label), label_source=source, label_confidence=round(confidence, 6))
        taught = replies.usable(labelled)
        (kept if taught.response and confidence > config.reply_confidence_min else by_model).append(taught)
    notes.active = review.contradicted(learnt, notes.contradicted) + review.unsure(by_model, config.active_max)
    return kept, by_model


def _classified(inputs: Inputs) -> dict[str, Classified] | None:
    """By id what the trained classifier found; None where there is none."""
    if "classes" not in inputs:
        return None
    lines = (inputs["classes"].path / CLASSES).read_text(encoding="utf-8").splitlines()
    found = (json.loads(line) for line in lines)
    return {row["id"]: (Label[row["class"]], row["confidence"], row["source"]) for row in found}


def _draw(rows: list[Record], config: Preprocess, removed: Removed, progress: Progress) -> list[Record]:
    drawn = []
    for done, record in enumerate(rows):
        if record.modality == "text":
            drawn.append(record)
            continue
        if done % 200 == 0:
            progress.update(4 + done / len(rows), PHASES, "pictures")
        try:
            drawn.append(record.with_(image=picture(record, config)))
        except UnreadableMedia as reason:
            removed.append((record, str(reason)))
    return drawn


def _write(
    rows: list[Record],
    nsfw_rows: list[Record],
    by_model: list[Record],
    removed: Removed,
    notes: _Notes,
    sources: list[dict[str, Any]],
    out: Path,
) -> Facts:
    labelled = [record for record in rows if not record.response and record.split != "test"]
    for name in card.SPLITS:
        part = [record for record in rows if record.split == name]
        if not part:
            raise InputError(
                f"no row fell into the {name} split", "more rows", "collect more, or change preprocess.seed"
            )
        records.write(out / f"{name}.parquet", [record for record in part if record.response or name == "test"])
    records.write(out / "labelled.parquet", labelled)
    records.write(out / "nsfw.parquet", nsfw_rows)
    records.write(out / "model_labelled.parquet", by_model)
    removed.sort(key=lambda pair: pair[0].id)
    records.write(
        out / "removed.parquet", [record for record, _ in removed], {"reason": [reason for _, reason in removed]}
    )
    extra = {
        "masked": dict(sorted(notes.masked.items())),
        "labeller": notes.labeller,
        "review": notes.contradicted,
        "human_labels": notes.people,
        "active": len(notes.active),
        "opposite_pairs": notes.opposite_pairs,
        "without_reply": _by_class(record for record in rows if not record.response),
        "model_labelled": _by_class(by_model),
    }
    whole = card.build(rows, nsfw_rows, removed, sources, extra)
    durable.write_json(out / "data_card.json", whole)
    durable.write_text(out / "data_card.md", card.markdown(whole))
    durable.write_text(out / "active.csv", review.as_csv(notes.active))
    durable.write_text(out / "active.md", review.as_markdown(notes.active))
    return {name: whole[name] for name in SHOWN}


def _by_class(rows: Iterable[Record]) -> dict[str, int]:
    return dict(sorted(Counter(record.klass.name for record in rows).items()))
