"""A task is versioned YAML: what is asked, and how the answer is found.

probe     the pipeline's own test split; the reply is forced up to the answer, the choices are compared
choose    questions from outside; the choices are compared as continuations of the prompt
generate  questions from outside; the answer is looked for in a greedy reply
rate      questions from outside; a judge grades the greedy reply
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, TypeAdapter

from so8t import records
from so8t.benchmark.config import HARNESS, task_text
from so8t.errors import InputError
from so8t.labels import LABEL_NAMES
from so8t.records import Modality, Record
from so8t.section import Section

Form = Literal["raw", "chat"]


class Choice(Section):
    """One admissible answer: its name in the results, and the text that the model would write."""

    name: str
    text: str


class Probe(Section):
    """Asks rows of the test split of one modality."""

    kind: Literal["probe"]
    name: str
    version: int
    title: str
    modality: Modality
    prefix_until: str
    truth: Literal["label", "answer"]
    choices: tuple[Choice, ...]
    metric: Literal["accuracy", "macro_f1"]

    @property
    def names(self) -> tuple[str, ...]:
        """Every answer that there is."""
        return tuple(choice.name for choice in self.choices)

    def truth_of(self, row: Record) -> str:
        """The right choice's name; it may be none of the choices."""
        if self.truth == "answer":
            return row.answer
        return LABEL_NAMES[row.label] if row.label in range(len(LABEL_NAMES)) else ""


class Outside(Section):
    """What all tasks on questions from outside have. `prompt` is a Jinja template, the others are Jinja expressions,
    all over the columns of a row."""

    name: str
    version: int
    title: str
    language: Literal["ja", "en"]
    form: Form
    prompt: str
    category: str = "''"
    substitutions: tuple[tuple[str, str], ...] = ()  # regular expressions, applied to everything that is rendered


class Choose(Outside):
    """Compares continuations."""

    kind: Literal["choose"]
    options: str
    answer: str  # the right option's number, from 0
    delimiter: str = ""  # between prompt and option
    ending: str = "''"  # follows every option; only its log-probability counts then
    normalise: Literal["none", "characters"] = "none"  # of what the options' log-probabilities are divided by
    classes: tuple[str, ...] = ()  # names of the options where these are the same for all items
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    truth: Literal["answer"] = "answer"

    @property
    def names(self) -> tuple[str, ...]:
        """Every answer that there is, where all items have the same."""
        return self.classes


class Generate(Outside):
    """Looks for the answer in a reply."""

    kind: Literal["generate"]
    answer: str
    extract: str  # regular expression; its last match in the reply is the answer
    numeric: bool = False
    tokens_max: int
    metric: Literal["accuracy"] = "accuracy"
    truth: Literal["answer"] = "answer"
    names: tuple[str, ...] = ()


class Rate(Outside):
    """Has a reply graded."""

    kind: Literal["rate"]
    reference: str
    aspect: str
    tokens_max: int
    score: str  # what the mean grade is called where a judge has given it
    metric: Literal["rating"] = "rating"
    truth: Literal["answer"] = "answer"
    names: tuple[str, ...] = ()


class Harness(Section):
    """A task of lm-evaluation-harness; it brings its own questions."""

    kind: Literal["harness"] = "harness"
    name: str
    version: int = 0
    title: str
    metric: Literal["accuracy"] = "accuracy"
    truth: Literal["answer"] = "answer"
    names: tuple[str, ...] = ()


TaskFile = Probe | Choose | Generate | Rate | Harness
Written = Generate | Rate
_SHIPPED: TypeAdapter[TaskFile] = TypeAdapter(
    Annotated[Probe | Choose | Generate | Rate | Harness, Field(discriminator="kind")]
)


@dataclass(frozen=True)
class Prefix:
    """What the reply is forced to begin with, and how usual that is in the training split."""

    text: str
    share: float


def load_task(name: str) -> TaskFile:
    """Read and check a task that comes with the package, or describe one of lm-evaluation-harness."""
    if name.startswith(HARNESS):
        return Harness(name=name, title=f"{name.removeprefix(HARNESS)} as lm-evaluation-harness asks it")
    return _SHIPPED.validate_python(yaml.safe_load(task_text(name)))


def rows_of(task: Probe, data: Path) -> list[Record]:
    """The task's rows of the test split, by id; InputError if there is none."""
    rows = [row for row in records.iterate(data / "test.parquet") if row.modality == task.modality and not row.nsfw]
    if not rows:
        raise InputError(
            f"{data / 'test.parquet'} has no {task.modality} row",
            f"test items for the task {task.name}",
            "drop the task from benchmark.tasks, or collect such data",
        )
    return sorted(rows, key=lambda row: row.id)


def prefixes(task: Probe, data: Path) -> dict[str, Prefix]:
    """The most usual beginning of the training split's replies, by language: no test row is looked at."""
    return _prefixes(task, records.iterate(data / "train.parquet"))


def _prefixes(task: Probe, rows: Iterable[Record]) -> dict[str, Prefix]:
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
