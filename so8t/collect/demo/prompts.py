"""Four-class prompts in Japanese and English, written for this package.

prompts.jsonl holds one row a line: prompt, language, label (null where nobody has decided), category,
licence as a card would state it, nsfw, and group for prompts that share a sentence frame. The rows also
hold near-duplicates, made-up personal data, licences that do not pass and broken text, so that each gate
of preprocess has something to do.
"""

import json
from collections.abc import Iterator
from importlib.resources import files

from so8t.collect.demo.replies import text_reply
from so8t.collect.gathered import Gathered
from so8t.collect.licence import normal_form
from so8t.labels import Label, parse_label
from so8t.records import Record

FILE = "prompts.jsonl"


def gather(source: str) -> Gathered:
    """All prompts; a row without a label has no reference reply."""
    return Gathered(list(_records(source)))


def _records(source: str) -> Iterator[Record]:
    lines = files(__package__).joinpath(FILE).read_text(encoding="utf-8").splitlines()
    for index, line in enumerate(lines):
        row = json.loads(line)
        label = None if row["label"] is None else parse_label(row["label"])
        yield Record(
            id=f"{source}-{index:05d}",
            modality="text",
            language=row["language"],
            prompt=row["prompt"],
            response="" if label is None else _reply(row, label),
            category=row["category"],
            label=-1 if label is None else int(label),
            label_source="" if label is None else "human",
            label_confidence=0.0 if label is None else 1.0,
            nsfw=row["nsfw"],
            group=f"{source}:{row['group']}" if "group" in row else "",
            file=FILE,
            row=index,
            licence=normal_form(row["licence"]),
            licence_evidence=f"{FILE} line {index + 1}",
        )


def _reply(row: dict[str, str], label: Label) -> str:
    return text_reply(row["language"], label, row["category"])
