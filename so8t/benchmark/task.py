"""A task is versioned YAML; its items are the test split's rows of one modality."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from so8t import records
from so8t.benchmark.config import task_text
from so8t.errors import InputError
from so8t.labels import LABEL_NAMES
from so8t.records import Modality, Record
from so8t.section import Section


class Choice(Section):
    """One admissible answer: its name in the results, and the text that the model would write."""

    name: str
    text: str


class TaskFile(Section):
    """What a task's YAML holds."""

    name: str
    version: int
    title: str
    modality: Modality
    prefix_until: str
    truth: Literal["label", "answer"]
    choices: tuple[Choice, ...]
    metric: Literal["accuracy", "macro_f1"]

    def truth_of(self, row: Record) -> str:
        """The right choice's name; it may be none of the choices."""
        if self.truth == "answer":
            return row.answer
        return LABEL_NAMES[row.label] if row.label in range(len(LABEL_NAMES)) else ""


@dataclass(frozen=True)
class Prefix:
    """What the reply is forced to begin with, and how usual that is in the training split."""

    text: str
    share: float


def load_task(name: str) -> TaskFile:
    """Read and check a task that comes with the package."""
    return TaskFile.model_validate(yaml.safe_load(task_text(name)))


def items(task: TaskFile, data: Path) -> list[Record]:
    """The task's rows of the test split, by id; InputError if there is none."""
    rows = [row for row in records.iterate(data / "test.parquet") if row.modality == task.modality and not row.nsfw]
    if not rows:
        raise InputError(
            f"{data / 'test.parquet'} has no {task.modality} row",
            f"test items for the task {task.name}",
            "drop the task from benchmark.tasks, or collect such data",
        )
    return sorted(rows, key=lambda row: row.id)


def prefixes(task: TaskFile, data: Path) -> dict[str, Prefix]:
    """The most usual beginning of the training split's replies, by language: no test row is looked at."""
    return _prefixes(task, records.iterate(data / "train.parquet"))


def _prefixes(task: TaskFile, rows: Iterable[Record]) -> dict[str, Prefix]:
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        head, found, _ = row.response.partition(task.prefix_until)
        if row.modality == task.modality and found:
            counts.setdefault(row.language, Counter())[head + found] += 1
    best = {}
    for language, counter in sorted(counts.items()):
        text, count = min(counter.items(), key=lambda pair: (-pair[1], pair[0]))
        best[language] = Prefix(text, count / counter.total())
    return best
