"""Joins the shards: duplicates, labels and splits over all that was collected.

Writes train, validation, test .parquet: labelled rows with a reply that may be learnt (`replies`), in test also those
without, which the benchmark can ask. labelled.parquet: the other train and validation rows with a given class, for
four-class heads alone. model_labelled.parquet: train rows whose class only a model gave and that teach nothing.
nsfw.parquet: a pool of its own. removed.parquet with a `reason` for each row, masked like the rest; active.csv for a
person to fill in, and active.md; data_card.json, .md and .png. In every Parquet file `written_in` says which language a
text is written in. What one row alone decides was done in `shard`; memory holds `Index` and a few shards' texts.
"""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from so8t import durable, records
from so8t.errors import InputError
from so8t.preprocess import balance, card, earlier, joins, labelling, plots, review, shard
from so8t.preprocess.config import Preprocess
from so8t.preprocess.index import SPLITS, Index
from so8t.preprocess.labelling import BY_MODEL, LABELLED, POOL, REMOVED, Labelling
from so8t.preprocess.order import Reader, shards_of
from so8t.progress import Progress
from so8t.resident import give_back_freed_memory
from so8t.step import Facts, Inputs

PHASES = 5
GIVEN_BACK_FROM_BYTES = 1 << 20  # a column of some hundred thousand rows
FILES = (*SPLITS, LABELLED, POOL, BY_MODEL, REMOVED)
SHOWN = (
    "rows", "class", "class_balance", "modality", "removed", "masked", "labeller", "without_reply", "model_labelled",
    "human_labels", "active", "placed_earlier",
)  # fmt: skip


def run(config: Preprocess, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """See the module. The same rows in any order, in shards of any size, give the same files."""
    import pyarrow as pa

    give_back_freed_memory(GIVEN_BACK_FROM_BYTES)
    done = iter(range(PHASES))

    def say(message: str) -> None:
        pa.default_memory_pool().release_unused()  # Arrow would keep it for tables of its own
        progress.update(next(done), PHASES, message)

    parts = [
        inputs[f"shard.{number}"]
        for number in range(shards_of(inputs["collected"].path / "records.parquet", config.shard_rows))
    ]
    index = Index([part.path for part in parts], out)
    answers = review.read_answers(config.human_labels) if config.human_labels else {}
    people = _answered(index, answers)
    if config.splits_of:
        earlier.read(config.splits_of, index)
    opposite = joins.join(index, config, say)
    say("labels")
    known = labelling.learn(index, config, answers, inputs["classes"].path if "classes" in inputs else None)
    counts = _write(index, known, out, progress)
    masked: Counter[str] = Counter()
    for part in parts:
        masked.update(part.manifest.facts["masked"])
    active = known.active()
    notes = {
        "masked": dict(sorted(masked.items())),
        "labeller": known.model and known.model.facts,
        "review": known.contradicted,
        "human_labels": people,
        "active": len(active),
        "opposite_pairs": opposite,
        "placed_earlier": earlier.kept(index),
    }
    sources = durable.read_json(inputs["collected"].path / "sources.json")["sources"]
    whole = card.build(counts, sources, notes)
    durable.write_json(out / "data_card.json", whole)
    durable.write_text(out / "data_card.md", card.markdown(whole))
    durable.write_bytes(out / "data_card.png", plots.draw(whole))
    durable.write_text(out / "active.csv", review.as_csv(active))
    durable.write_text(out / "active.md", review.as_markdown(active))
    if whole["class_balance"]["absent"]:
        progress.update(PHASES, PHASES, balance.sentences(whole["class_balance"])[0])
    return {name: whole[name] for name in SHOWN}


def _answered(index: Index, answers: dict[str, Any]) -> dict[str, int]:
    """Put a person's classes into the index; how many answers there are, and how many name a row."""
    rows = labelling.places(list(answers), index)
    for row, label in zip(rows, answers.values(), strict=True):
        if row >= 0:
            index.label_N[row] = label
    used = sum(row >= 0 for row in rows)
    return {"answers": len(answers), "used": used, "no_such_row": len(answers) - used}


def _write(index: Index, known: Labelling, out: Path, progress: Progress) -> card.Counts:
    """Every row into the file where it ends, a batch of a shard at a time."""
    counts, kept_N = card.Counts(), np.zeros(index.rows, bool)
    with ExitStack() as stack:
        streams = {
            name: stack.enter_context(
                records.Stream(out / f"{name}.parquet", *(["reason"] if name == REMOVED else []), "written_in")
            )
            for name in FILES
        }
        for folder, first, last in zip(index.folders, index.starts[:-1], index.starts[1:], strict=True):
            reader = Reader(folder / "rows.parquet")
            for start in range(first, last, shard.BATCH):
                progress.update(PHASES - 1 + start / index.rows, PHASES, "writing")
                rows = np.arange(start, min(last, start + shard.BATCH))
                for row, (name, record, reason) in zip(rows, known.ends(rows, reader.take(rows - first)), strict=True):
                    language = index.languages[index.language_N[row]]
                    streams[name].add(record, *([reason] if reason else []), language)
                    counts.add(name, record, reason, language)
                    kept_N[row] = name in (*SPLITS, LABELLED)
        counts.groups = len(np.unique(index.root_N[kept_N]))
        _refuse_empty(counts)
    return counts


def _refuse_empty(counts: card.Counts) -> None:
    for name in SPLITS:
        if not counts.rows[name]:
            raise InputError(
                f"no row fell into the {name} split", "more rows", "collect more, or change preprocess.seed"
            )
