"""Labelled prompts: of the preprocessed data, or of JSONL files. A label that is missing or unknown is an error.

Never a default: a row that became ALLOW because nobody had labelled it would teach the opposite of safety.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from so8t import records
from so8t.errors import InputError
from so8t.four_class.config import Data
from so8t.labels import LABEL_NAMES, Label, parse_label
from so8t.step import Inputs

CLASSES = f"one of {', '.join(LABEL_NAMES)}, or 0 to 3"


@dataclass(frozen=True)
class Row:
    """One prompt with its class."""

    id: str
    prompt: str
    label: Label


@dataclass(frozen=True)
class Rows:
    """What is learnt from and what steers; `warnings` are for whoever watches."""

    train: list[Row]
    validation: list[Row]
    warnings: list[str]


def load(config: Data, inputs: Inputs) -> Rows:
    """InputError where a class is missing that should be learnt, or where a validation row is learnt from, too."""
    if config.train_data:
        train = [row for path in config.train_data for row in _jsonl(path, config)]
        validation = [row for path in config.val_data for row in _jsonl(path, config)]
    else:
        folder = inputs["data"].path
        train, validation = (_parquet(folder, split) for split in ("train", "validation"))
    for part, name in ((train, "train"), (validation, "validation")):
        if not part:
            raise InputError(f"no text rows for {name}", "labelled prompts")
    _refuse_shared(train, validation)
    return Rows(train, validation, _faults(train, config.absent_class) + _thin(validation))


def _faults(train: list[Row], absent_class: str) -> list[str]:
    counts = Counter(row.label for row in train)
    absent = [label.name for label in Label if not counts[label]]
    found = f"the training rows hold {', '.join(f'{n} {label.name}' for label, n in sorted(counts.items()))}"
    if len(counts) < 2:
        raise InputError(found, "rows of all four classes", "one class alone teaches nothing: add the others")
    if absent and absent_class == "refuse":
        raise InputError(
            f"{found}; none is {', '.join(absent)}",
            "rows of all four classes",
            "add some, or set four_class.data.absent_class to warn: that class is then never learnt",
        )
    return [f"WARNING: no training row is {name}: it will never be recognised" for name in absent]


def _thin(validation: list[Row]) -> list[str]:
    counts = Counter(row.label for row in validation)
    return [
        f"WARNING: no validation row is {label.name}: its quality is unknown, and macro-F1 leaves it out"
        for label in Label
        if not counts[label]
    ]


def _refuse_shared(train: list[Row], validation: list[Row]) -> None:
    known = {row.prompt.strip(): row.id for row in train}
    shared = [(row.id, known[row.prompt.strip()]) for row in validation if row.prompt.strip() in known]
    if shared:
        raise InputError(
            f"{len(shared)} validation prompts are learnt from, too, for example {shared[0][0]} is {shared[0][1]}",
            "rows that are in one of the two only",
            "remove them from the training file",
        )


def _parquet(folder: Path, split: str) -> list[Row]:
    """The split's texts, with and without a reply, in the order of their ids, whatever order they were written in."""
    rows = []
    every = [*records.iterate(folder / f"{split}.parquet"), *records.without_reply(folder, split)]
    for record in sorted(every, key=lambda record: record.id):
        if record.modality == "text":
            if record.label not in Label.__members__.values():
                raise InputError(f"{folder} row {record.id} has the label {record.label}", CLASSES)
            rows.append(Row(record.id, record.prompt, record.klass))
    return rows


def _jsonl(path: Path, config: Data) -> Iterator[Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error.reason} at byte {error.start}", "UTF-8") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _row(f"{path.name}:{number}", line, config)


def _row(where: str, line: str, config: Data) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON: {error.msg}", "a JSON object on each line") from None
    if not isinstance(value, dict):
        raise InputError(f"{where} holds {type(value).__name__}", "a JSON object on each line")
    prompt = value.get(config.prompt_key)
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f"{where} has no text under {config.prompt_key!r}", "a prompt", "see data.prompt_key")
    return Row(where, prompt, _label(where, value.get(config.label_key)))


def _label(where: str, value: object) -> Label:
    try:
        if isinstance(value, str):
            return parse_label(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return Label(value)
    except ValueError:
        pass
    raise InputError(f"{where} has the label {value!r}", CLASSES, "label it, or leave the row out")
