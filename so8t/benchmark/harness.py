"""Tasks of lm-evaluation-harness, asked through this project's scorers and sample store.

The harness makes prompts and judges replies; ids, models, resume and statistics stay here. Its own cache is not used: it
is not keyed by the model. Only tasks that compare choices or write a reply are taken: what else it knows needs more of a
model than a `Scorer` gives.
"""

import math
from collections.abc import Sequence
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager

from so8t.artifacts import hash_json
from so8t.benchmark.answers import Line
from so8t.benchmark.ask import Asker
from so8t.benchmark.config import HARNESS, Cell
from so8t.benchmark.items import Form
from so8t.benchmark.prompts import Question
from so8t.errors import InputError

TAKEN = ("multiple_choice", "generate_until")
# In this order: the first that a task reports decides right and wrong.
METRICS = ("acc", "exact_match", "em", "pass@1")
NEW_TOKENS_MAX = 256  # as in the harness, where a task says nothing


class HarnessLM(TemplateLM):  # type: ignore[misc]
    """What the harness takes for a model. `asked` holds the ids of every document's questions."""

    def __init__(self, form: Form, asker: Asker, batch_items: int) -> None:
        super().__init__()
        self._form, self._asker, self._batch_items = form, asker, batch_items
        self.asked: dict[str, list[str]] = {}
        self.failed: dict[str, str] = {}

    @property
    def eot_token_id(self) -> int:
        """What stands in front of an empty context."""
        return self._form.tokenizer.plain("")[0]

    @property
    def tokenizer_name(self) -> str:
        """Names the harness's request cache, which is off."""
        return self._form.tokenizer.sha256

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text, behind BOS unless that is refused."""
        ids = self._form.tokenizer.plain(string)
        return ids if add_special_tokens is not False else ids[1:]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability, False) of each continuation; nan for one without an answer.

        The requests of a document that share their context are one question, so the context is read once.
        """
        pairs = [self._pair(*request.args) for request in requests]
        groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for index, (request, (context, _)) in enumerate(zip(requests, pairs, strict=True)):
            groups.setdefault((document(request), tuple(context)), []).append(index)
        questions = []
        members: dict[str, list[int]] = {}
        for number, ((doc, head), indices) in enumerate(groups.items()):
            choices = tuple(tuple(pairs[index][1]) for index in indices)
            made = Question(f"{doc}#{number}", (), b"", 0, head, (), choices)
            members[made.id] = indices
            self._note(doc, made)
            if made.length > self._form.context:
                self.failed[doc] = f"{made.length} tokens, the context holds {self._form.context}"
            else:
                questions.append(made)
        found = [math.nan] * len(requests)
        for item_id, values in self._asker.choose(questions, self._batch_items).items():
            for index, value in zip(members[item_id], values, strict=False):
                found[index] = value
        for item_id, why in self._asker.failed.items():
            self.failed[item_id.partition("#")[0]] = why
        return [(value, False) for value in found]

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if not context:
            return [self.eot_token_id], self.tok_encode(continuation, add_special_tokens=False)
        first, second = self._encode_pair(context, continuation)
        return list(first), list(second)

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        raise NotImplementedError("loglikelihood is answered as a whole")

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Refused by `examine` before it is asked."""
        raise NotImplementedError("tasks of perplexity are not taken")

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy replies, cut at the task's stop strings."""
        found = []
        for request in requests:
            context, settings = request.args
            tokens_max = int(settings.get("max_gen_toks", NEW_TOKENS_MAX))
            doc = document(request)
            made = Question(doc, (), b"", 0, tuple(self.tok_encode(context)), (), ())
            self._note(doc, made)
            if made.length + tokens_max > self._form.context:
                self.failed[doc] = f"{made.length} tokens and a reply of {tokens_max}: the context is shorter"
                found.append("")
                continue
            written = self._asker.write([made], tokens_max)
            if doc in self._asker.failed:
                self.failed[doc] = self._asker.failed[doc]
            text = self._form.tokenizer.decode(written[doc][0]) if doc in written else ""
            until = settings.get("until") or []
            for stop in [until] if isinstance(until, str) else until:
                text = text.split(stop)[0]
            found.append(text)
        return found

    def _note(self, doc: str, made: Question) -> None:
        self.asked.setdefault(doc, []).append(made.ids_sha256)


def document(request: Any) -> str:
    """A document's id: its task and its number there."""
    return f"{request.task_name}-{int(request.doc_id):05d}"


def examine(config: Cell, form: Form, asker: Asker) -> list[Line]:
    """Ask a task (or every task of a group); one line a document. InputError for a kind that is not taken."""
    model = HarnessLM(form, asker, config.batch_items)
    name = config.task.removeprefix(HARNESS)
    manager = TaskManager(include_path=str(config.harness_tasks) if config.harness_tasks else None)
    results = simple_evaluate(
        model=model,
        tasks=[name],
        task_manager=manager,
        limit=config.items_max or None,
        bootstrap_iters=0,
        log_samples=True,
    )
    configs = results["configs"]
    other = {task: c.get("output_type") for task, c in configs.items() if c.get("output_type") not in TAKEN}
    if other:
        raise InputError(f"{name} has tasks of another kind: {other}", " or ".join(TAKEN))
    lines = [_line(task, sample, model) for task, samples in results["samples"].items() for sample in _first(samples)]
    return sorted(lines, key=lambda line: str(line["id"]))


def _first(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of several filters of the same replies the first one's."""
    return [sample for sample in samples if sample["filter"] == samples[0]["filter"]]


def _line(task: str, sample: dict[str, Any], model: HarnessLM) -> Line:
    doc = f"{task}-{int(sample['doc_id']):05d}"
    metric = next((name for name in METRICS if name in sample), None)
    if metric is None:
        raise InputError(f"{task} reports {sample['metrics']}", "one of " + ", ".join(METRICS))
    error = model.failed.get(doc, "")
    return {
        "id": doc,
        "language": "",
        "category": task,
        "truth": "right",
        "predicted": "" if error else "right" if sample[metric] else "wrong",
        "metric": metric,
        "doc_sha256": sample["doc_hash"],
        "ids_sha256": "" if error else hash_json(model.asked[doc]),
        "status": "error" if error else "ok",
        "error": error,
    }
