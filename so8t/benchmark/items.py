"""A task's items: what is asked as token ids, and what the right answer is. The same for every system."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from so8t.benchmark.prompts import Question, Tokenizer, Unanswerable, continuations, probe_question, written_question
from so8t.benchmark.task import Choose, Generate, Prefix, Probe, Rate, prefixes, rows_of
from so8t.errors import InputError
from so8t.records import Record

Row = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One item, ready to be asked."""

    id: str
    language: str
    category: str
    truth: str
    names: tuple[str, ...]  # of the choices, in their order
    asked: Question | Unanswerable
    divisors: tuple[float, ...] = ()  # of the choices' log-probabilities; none divides nothing
    reference: str = ""
    aspect: str = ""
    prompt: str = ""


@dataclass(frozen=True)
class Form:
    """What the ids are made with."""

    tokenizer: Tokenizer
    image_tokens: int
    context: int  # longest prompt, with the reply that is to be scored
    limit: int  # the base's original context


def probe_items(task: Probe, data: Path, form: Form) -> tuple[list[Item], dict[str, float]]:
    """The test split's rows by id, and how usual the forced beginning is in each language."""
    heads = prefixes(task, data)
    found = [_probe_item(task, row, heads.get(row.language), form) for row in rows_of(task, data)]
    return found, {language: head.share for language, head in heads.items()}


def _probe_item(task: Probe, row: Record, head: Prefix | None, form: Form) -> Item:
    asked = probe_question(task, row, head, form.tokenizer, form.image_tokens, form.context)
    return Item(row.id, row.language, row.category, task.truth_of(row), task.names, asked)


def outside_items(task: Choose | Generate | Rate, folder: Path, items_max: int, form: Form) -> list[Item]:
    """The items of a task on questions from outside, by id. InputError where a row is not what the task wants."""
    rows = list(read_rows(folder))
    if items_max:
        rows = sorted(rows, key=lambda pair: hashlib.sha256(pair[0].encode("utf-8")).hexdigest())[:items_max]
    view = View(task)
    make = _choose_item if isinstance(task, Choose) else _written_item
    return [make(task, view, item_id, row, form) for item_id, row in sorted(rows)]  # type: ignore[arg-type]


def read_rows(folder: Path) -> list[tuple[str, Row]]:
    """(id, row) of every question."""
    text = (folder / "items.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.split("\n") if line]
    return [(str(line["id"]), line["row"]) for line in lines]


class View:
    """A task's templates over a row's columns, in Jinja's sandbox."""

    def __init__(self, task: Choose | Generate | Rate) -> None:
        from jinja2 import StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._task, self._environment = task, ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        self._prompt = self._environment.from_string(task.prompt)
        self._compiled: dict[str, Callable[..., Any]] = {}

    def prompt(self, item_id: str, row: Row) -> str:
        """The prompt, cleaned."""
        return self.clean(str(self._try(item_id, row, self._prompt.render)))

    def value(self, expression: str, item_id: str, row: Row) -> Any:
        """The value of an expression; InputError where the row has no such column."""
        if expression not in self._compiled:
            self._compiled[expression] = self._environment.compile_expression(expression, undefined_to_none=False)
        found = self._try(item_id, row, self._compiled[expression])
        from jinja2 import is_undefined

        if is_undefined(found):
            raise self._mismatch(item_id, row, expression)
        return found

    def text(self, expression: str, item_id: str, row: Row) -> str:
        """The value of an expression as cleaned text."""
        return self.clean(str(self.value(expression, item_id, row)))

    def clean(self, text: str) -> str:
        """Apply the task's substitutions."""
        for pattern, replacement in self._task.substitutions:
            text = re.sub(pattern, replacement, text)
        return text

    def _try(self, item_id: str, row: Row, call: Callable[..., Any]) -> Any:
        from jinja2 import TemplateError

        try:
            return call(**row)
        except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise self._mismatch(item_id, row, str(error)) from error

    def _mismatch(self, item_id: str, row: Row, why: str) -> InputError:
        return InputError(
            f"row {item_id} does not suit the task {self._task.name}: {why}",
            f"the columns that so8t/benchmark/tasks/{self._task.name}.yaml names; the row has {sorted(row)}",
            "mend benchmark.data",
        )


def _choose_item(task: Choose, view: View, item_id: str, row: Row, form: Form) -> Item:
    options = [view.clean(str(option)) for option in view.value(task.options, item_id, row)]
    right, ending = int(view.value(task.answer, item_id, row)), view.text(task.ending, item_id, row)
    names = task.classes or tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)])
    if not (1 < len(options) == len(names) and 0 <= right < len(options)):
        raise InputError(
            f"row {item_id} of {task.name} has {len(options)} options and the answer {right}",
            f"{len(task.classes) or '2 to 26'} options, one of them right",
            "mend benchmark.data",
        )
    prompt = view.prompt(item_id, row)
    texts = [task.delimiter + option for option in options]
    asked = continuations(item_id, prompt, texts, ending, task.form, form.tokenizer, form.context)
    divisors = tuple(float(max(len(option), 1)) for option in options) if task.normalise == "characters" else ()
    shown = "\n".join([prompt, *([] if task.classes else options)])
    return Item(
        item_id,
        task.language,
        view.text(task.category, item_id, row),
        names[right],
        names,
        asked,
        divisors,
        prompt=shown,
    )


def _written_item(task: Generate | Rate, view: View, item_id: str, row: Row, form: Form) -> Item:
    prompt, category = view.prompt(item_id, row), view.text(task.category, item_id, row)
    asked = written_question(item_id, prompt, task.form, task.tokens_max, form.tokenizer, form.context)
    if isinstance(task, Rate):
        reference, aspect = view.text(task.reference, item_id, row), view.text(task.aspect, item_id, row)
        return Item(item_id, task.language, category, "", (), asked, reference=reference, aspect=aspect, prompt=prompt)
    truth = extract(task, view.text(task.answer, item_id, row))
    if not truth:
        raise InputError(f"row {item_id} of {task.name} has no answer of the form {task.extract}", "such an answer")
    return Item(item_id, task.language, category, truth, (), asked, prompt=prompt)


def extract(task: Generate, text: str) -> str:
    """The last match of the task's pattern, numbers in one form; "" where there is none."""
    found = re.findall(task.extract, text)
    if not found or not task.numeric:
        return found[-1] if found else ""
    number = float(found[-1].replace(",", ""))
    return str(int(number)) if number.is_integer() else repr(number)
