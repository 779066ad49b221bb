"""One system on one task: every item through the sample store, then answers in a fixed order.

answers.jsonl   one line an item: ids_sha256, log-probability of each choice or the reply, answer, truth, status
replies.jsonl   a few items answered in full
samples.sqlite  the store; speed.json  timings (both volatile)
"""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from so8t import durable
from so8t.artifacts import hash_json
from so8t.benchmark.answers import Line, chosen_lines, write_jsonl, written_lines
from so8t.benchmark.ask import Asker, LazyScorer
from so8t.benchmark.config import Cell
from so8t.benchmark.items import Form, Item, outside_items, probe_items
from so8t.benchmark.prompts import Question, Tokenizer, Unanswerable, original_context
from so8t.benchmark.scorer import file_bytes, model_digest
from so8t.benchmark.store import SampleStore
from so8t.benchmark.task import Choose, Generate, Harness, Probe, Rate, TaskFile, load_task
from so8t.errors import InputError, StepFailed
from so8t.progress import Progress
from so8t.resident import memory_peak_bytes
from so8t.step import Facts, Inputs
from so8t.thinking import parse


@dataclass(frozen=True)
class Exam:
    """A task's items as ids, ready to be asked."""

    task: TaskFile
    items: list[Item]
    form: Form
    prefix_shares: dict[str, float] = field(default_factory=dict)

    @property
    def asked(self) -> list[Question]:
        """The items that can be asked."""
        return [item.asked for item in self.items if isinstance(item.asked, Question)]


def run(config: Cell, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Ask every item and write the answers; StepFailed if no item at all could be answered."""
    started = time.monotonic()
    exam = prepare(config, inputs)
    if not exam.asked and not isinstance(exam.task, Harness):
        why = next(item.asked.why for item in exam.items if isinstance(item.asked, Unanswerable))
        raise StepFailed(f"{config.task}: none of {len(exam.items)} items can be asked; first: {why}")
    decides = config.model_dump(mode="json", include={"system", "task", "task_sha256", "batch_items", "kv_cache"})
    context = room(config, exam)
    identity = hash_json([model_digest(config.system, inputs), exam.form.tokenizer.sha256, decides, context])
    lazy = LazyScorer(config, inputs, progress.machine, context)
    with SampleStore(out / "samples.sqlite") as store:
        asker = Asker(identity, lazy, store, progress)
        answers = _answers(config, exam, asker)
        replies = _replies(config, exam, asker)
        cost, damaged = store.cost(), store.was_damaged
    lazy.close()
    write_jsonl(out / "answers.jsonl", answers)
    write_jsonl(out / "replies.jsonl", replies)
    right = [a["predicted"] == a["truth"] for a in answers if a["status"] == "ok"]
    if not right:
        raise StepFailed(f"{config.task}: none of {len(answers)} items was answered; first: {answers[0]['error']}")
    facts: Facts = {
        "system": config.system,
        "task": config.task,
        "task_version": exam.task.version,
        "n": len(answers),
        "errors": len(answers) - len(right),
        "accuracy": sum(right) / len(right) if exam.task.metric != "rating" else None,
        "replies": len(replies),
        "replies_well_formed": sum(s["well_formed"] for s in replies),
        "prefix_shares": exam.prefix_shares,
        "asked_now": asker.asked_now,
        "store_was_damaged": damaged,
        **asdict(cost),
        "prompt_tokens_per_s": cost.prompt_tokens / cost.prompt_s if cost.prompt_s else None,
        "new_tokens_per_s": cost.new_tokens / cost.new_s if cost.new_s else None,
        "seconds": time.monotonic() - started,
        "file_bytes": file_bytes(config.system, inputs),
        "memory_peak_bytes": memory_peak_bytes(),
    }
    durable.write_json(out / "speed.json", facts)
    return facts


def prepare(config: Cell, inputs: Inputs) -> Exam:
    """Make every item's ids. The tokenizer is training's for all systems, so the ids are the same."""
    task, train = load_task(config.task), inputs["train"].path
    if isinstance(task, Generate | Rate) and config.tokens_max:
        task = task.model_copy(update={"tokens_max": config.tokens_max})
    tokenizer = Tokenizer(train / "tokenizer")
    image_tokens = int(durable.read_json(train / "vision" / "config.json")["tokens"])
    limit = original_context(train / "tokenizer")
    form = Form(tokenizer, image_tokens, min(config.context_tokens, limit), limit)
    if isinstance(task, Harness):
        return Exam(task, [], form)
    if isinstance(task, Probe):
        items, shares = probe_items(task, inputs["data"].path, form)
        return Exam(task, items, form, shares)
    return Exam(task, outside_items(task, inputs["questions"].path, config.items_max, form), form)


def room(config: Cell, exam: Exam) -> int:
    """Tokens of the longest prompt with its reply."""
    if isinstance(exam.task, Harness):
        return exam.form.context
    probe = config.reply_tokens if config.replies else 0
    reply = {"probe": probe, "choose": 0}.get(exam.task.kind, getattr(exam.task, "tokens_max", 0))
    return min(max(q.length for q in exam.asked) + reply, exam.form.limit)


def _answers(config: Cell, exam: Exam, asker: Asker) -> list[Line]:
    if isinstance(exam.task, Harness):
        try:
            from so8t.benchmark.harness import examine
        except ModuleNotFoundError as error:
            raise InputError(
                f"{config.task} needs lm-evaluation-harness and {error.name} is not installed",
                "the extra lm-eval",
                'pip install -c constraints.txt "so8t[lm-eval]"',
            ) from error

        return examine(config, exam.form, asker)
    if isinstance(exam.task, Probe | Choose):
        scores = asker.choose(exam.asked, config.batch_items)
        return chosen_lines(exam.items, scores, asker.failed)
    written = asker.write(exam.asked, exam.task.tokens_max)
    return written_lines(exam.task, exam.items, written, asker.failed, exam.form.tokenizer)


def _replies(config: Cell, exam: Exam, asker: Asker) -> list[Line]:
    """The lines of replies.jsonl: full replies, with whether their format holds and which class they name."""
    if not isinstance(exam.task, Probe):
        return []
    lines = []
    asked = exam.asked[: config.replies]
    written = asker.write([question.free() for question in asked], config.reply_tokens)
    for question in asked:
        if question.id not in written:
            continue
        ids, _ = written[question.id]
        text = exam.form.tokenizer.decode(ids)
        parsed = parse(text)
        label = parsed.label.name if parsed and parsed.label is not None else ""
        lines.append({"id": question.id, "ids": ids, "text": text, "well_formed": parsed is not None, "label": label})
    return lines
