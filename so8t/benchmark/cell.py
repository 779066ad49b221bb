"""One system on one task: every item through the sample store, then answers in a fixed order.

answers.jsonl   one line an item: ids_sha256, log-probability of each choice, answer, truth, status
replies.jsonl   a few items answered in full
samples.sqlite  the store; speed.json  timings (both volatile)
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.artifacts import hash_json
from so8t.benchmark.config import Cell
from so8t.benchmark.prompts import Question, Tokenizer, Unanswerable, original_context, question
from so8t.benchmark.scorer import Scorer, model_digest, open_scorer
from so8t.benchmark.store import SampleStore
from so8t.benchmark.task import TaskFile, items, load_task, prefixes
from so8t.errors import StepFailed
from so8t.models import stop_ids
from so8t.progress import Progress
from so8t.records import Record
from so8t.resident import memory_peak_bytes
from so8t.step import Facts, Inputs
from so8t.thinking import parse


@dataclass(frozen=True)
class Exam:
    """A task's items as ids, ready to be asked."""

    task: TaskFile
    rows: list[Record]
    asked: list[Question]
    unanswerable: list[Unanswerable]
    tokenizer: Tokenizer
    prefix_shares: dict[str, float]


def run(config: Cell, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Ask every item and write the answers; StepFailed if no item at all could be asked."""
    started = time.monotonic()
    exam = prepare(config, inputs)
    if not exam.asked:
        raise StepFailed(
            f"{config.task}: none of {len(exam.rows)} items can be asked; first: {exam.unanswerable[0].why}"
        )
    identity = hash_json([model_digest(config.system, inputs), exam.tokenizer.sha256, config.model_dump(mode="json")])
    lazy = LazyScorer(config, inputs, exam, progress)
    with SampleStore(out / "samples.sqlite") as store:
        scores, asked_now = score(exam.asked, identity, config.batch_items, lazy, store, progress)
        replies = reply(exam.asked[: config.replies], identity, config.reply_tokens, lazy, store)
        model_seconds, damaged = store.seconds(), store.was_damaged
    lazy.close()
    answers = answers_of(exam, scores)
    write_jsonl(out / "answers.jsonl", answers)
    shown = replies_of(exam, replies)
    write_jsonl(out / "replies.jsonl", shown)
    right = [a["predicted"] == a["truth"] for a in answers if a["status"] == "ok"]
    facts: Facts = {
        "system": config.system,
        "task": config.task,
        "task_version": exam.task.version,
        "n": len(answers),
        "errors": len(answers) - len(right),
        "accuracy": sum(right) / len(right) if right else None,
        "replies": len(shown),
        "replies_well_formed": sum(s["well_formed"] for s in shown),
        "prefix_shares": exam.prefix_shares,
        "asked_now": asked_now,
        "store_was_damaged": damaged,
        "model_seconds": model_seconds,
        "items_per_second": len(exam.asked) / model_seconds if model_seconds else None,
        "seconds": time.monotonic() - started,
        "memory_peak_bytes": memory_peak_bytes(),
    }
    durable.write_json(out / "speed.json", facts)
    return facts


def prepare(config: Cell, inputs: Inputs) -> Exam:
    """Make every item's ids. The tokenizer is training's for all systems, so the ids are the same."""
    task = load_task(config.task)
    data, train = inputs["data"].path, inputs["train"].path
    tokenizer = Tokenizer(train / "tokenizer")
    image_tokens = int(durable.read_json(train / "vision" / "config.json")["tokens"])
    context = min(config.context_tokens, original_context(train / "tokenizer"))
    rows, heads = items(task, data), prefixes(task, data)
    made = [question(task, row, heads.get(row.language), tokenizer, image_tokens, context) for row in rows]
    return Exam(
        task,
        rows,
        [q for q in made if isinstance(q, Question)],
        [q for q in made if isinstance(q, Unanswerable)],
        tokenizer,
        {language: head.share for language, head in heads.items()},
    )


class LazyScorer:
    """Opens the model at the first question that the store cannot answer."""

    def __init__(self, config: Cell, inputs: Inputs, exam: Exam, progress: Progress) -> None:
        self._config, self._inputs, self._machine = config, inputs, progress.machine
        longest = max(q.length for q in exam.asked)
        limit = original_context(inputs["train"].path / "tokenizer")
        self._context = min(longest + (config.reply_tokens if config.replies else 0), limit)
        self.stop = stop_ids(inputs["train"].path / "tokenizer")
        self._scorer: Scorer | None = None

    def open(self) -> Scorer:
        """The scorer, opened once."""
        if self._scorer is None:
            self._scorer = open_scorer(self._config.system, self._inputs, self._machine, self._context)
        return self._scorer

    def close(self) -> None:
        """Close what was opened."""
        if self._scorer is not None:
            self._scorer.close()


def batches(questions: Sequence[Question], size: int) -> list[list[Question]]:
    """Fixed batches of similar length: what was answered before never changes who shares a batch."""
    ordered = sorted(questions, key=lambda q: (q.length, q.id))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def score(
    questions: Sequence[Question], identity: str, size: int, lazy: LazyScorer, store: SampleStore, progress: Progress
) -> tuple[dict[str, list[float]], int]:
    """Log-probabilities by item id, and how many items were asked now rather than found."""
    found: dict[str, list[float]] = {}
    asked_now = 0
    for batch in batches(questions, size):
        keys = [hash_json([identity, "choose", q.id, q.ids_sha256]) for q in batch]
        values = [store.get(key) for key in keys]
        if any(value is None for value in values):
            scorer = lazy.open()
            began = time.monotonic()
            values = [value if all(map(math.isfinite, value)) else [] for value in scorer.choose(batch)]
            store.put(dict(zip(keys, values, strict=True)), time.monotonic() - began)
            asked_now += len(batch)
        found.update((q.id, value) for q, value in zip(batch, values, strict=True) if value is not None)
        progress.update(len(found), len(questions), "items asked", asked_now=asked_now)
    return found, asked_now


def reply(
    questions: Sequence[Question], identity: str, tokens_max: int, lazy: LazyScorer, store: SampleStore
) -> list[list[int]]:
    """Greedy ids for each question, with nothing forced."""
    found: list[list[int]] = []
    for q in (forced.free() for forced in questions):
        key = hash_json([identity, "generate", q.id, q.ids_sha256])
        ids = store.get(key)
        if ids is None:
            ids = lazy.open().generate(q, tokens_max, lazy.stop)
            store.put({key: ids}, 0.0)
        found.append(ids)
    return found


def answers_of(exam: Exam, scores: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The lines of answers.jsonl, by id. Status is `ok` or `error`; an error has no answer."""
    names = [choice.name for choice in exam.task.choices]
    digests = {q.id: q.ids_sha256 for q in exam.asked}
    reasons = {q.id: q.why for q in exam.unanswerable}
    lines = []
    for row in exam.rows:
        logprobs = scores.get(row.id, [])
        best = max(range(len(logprobs)), key=lambda k: (logprobs[k], -k), default=None)
        lines.append(
            {
                "id": row.id,
                "language": row.language,
                "category": row.category,
                "truth": exam.task.truth_of(row),
                "predicted": "" if best is None else names[best],
                "logprobs": dict(zip(names, logprobs, strict=False)),
                "ids_sha256": digests.get(row.id, ""),
                "status": "error" if best is None else "ok",
                "error": reasons.get(row.id, "a log-probability is not finite") if best is None else "",
            }
        )
    return lines


def replies_of(exam: Exam, replies: Sequence[list[int]]) -> list[dict[str, Any]]:
    """The lines of replies.jsonl: full replies, with whether their format holds and which class they name."""
    lines = []
    for asked, ids in zip(exam.asked, replies, strict=False):
        text = exam.tokenizer.decode(ids)
        parsed = parse(text)
        label = parsed.label.name if parsed and parsed.label is not None else ""
        lines.append({"id": asked.id, "ids": ids, "text": text, "well_formed": parsed is not None, "label": label})
    return lines


def write_jsonl(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """One JSON object a line, keys sorted."""
    text = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n" for line in lines)
    durable.write_text(path, text)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every line of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
