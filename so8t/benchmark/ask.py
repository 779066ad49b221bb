"""Asks a system through the sample store: what is stored is not asked again, what fails is an error of that item."""

import math
import time
from collections.abc import Sequence

from so8t.artifacts import hash_json
from so8t.benchmark.config import Cell
from so8t.benchmark.prompts import Question
from so8t.benchmark.scorer import Scorer, open_scorer
from so8t.benchmark.store import Cost, SampleStore
from so8t.config import Machine
from so8t.errors import StepFailed
from so8t.models import stop_ids
from so8t.progress import Progress
from so8t.step import Inputs

Written = tuple[list[int], bool]  # ids, and whether the reply ended by itself


class LazyScorer:
    """Opens the model at the first question that the store cannot answer.

    `context`: tokens of the longest prompt with its reply. One for the whole cell: llama.cpp's numbers depend on it.
    """

    def __init__(self, config: Cell, inputs: Inputs, machine: Machine, context: int) -> None:
        self._config, self._inputs, self._machine, self._context = config, inputs, machine, context
        self._scorer: Scorer | None = None
        self.stop = stop_ids(inputs["train"].path / "tokenizer")

    def open(self) -> Scorer:
        """The scorer, opened once."""
        if self._scorer is None:
            config = self._config
            self._scorer = open_scorer(config.system, self._inputs, self._machine, self._context, config.kv_cache)
        return self._scorer

    def close(self) -> None:
        """Close what was opened."""
        if self._scorer is not None:
            self._scorer.close()


class Asker:
    """One system. `failed` says why the backend gave no answer to an item; such a one is asked again next time."""

    def __init__(self, identity: str, lazy: LazyScorer, store: SampleStore, progress: Progress) -> None:
        self._identity, self._lazy, self._store, self._progress = identity, lazy, store, progress
        self.failed: dict[str, str] = {}
        self.asked_now = 0

    def choose(self, questions: Sequence[Question], size: int) -> dict[str, list[float]]:
        """Log-probabilities by item id; [] where one is not finite."""
        found: dict[str, list[float]] = {}
        for batch in batches(questions, size):
            keys = {q.id: hash_json([self._identity, "choose", q.id, q.ids_sha256]) for q in batch}
            values = {q.id: self._store.get(keys[q.id]) for q in batch}
            if None in values.values():
                scorer, began = self._lazy.open(), time.monotonic()
                values = self._choose(scorer, batch)
                share = (time.monotonic() - began) / len(batch)
                there = [q for q in batch if q.id in values]
                self._store.put({keys[q.id]: (values[q.id], Cost(q.length, 0, share)) for q in there})
                self.asked_now += len(there)
            found.update((item_id, value) for item_id, value in values.items() if value is not None)
            done = len(found) + len(self.failed)
            self._progress.update(done, len(questions), "items asked", asked_now=self.asked_now)
        return found

    def _choose(self, scorer: Scorer, batch: list[Question]) -> dict[str, list[float] | None]:
        """A batch; where it fails, its items one by one, so that one of them costs no other its answer."""
        try:
            values = scorer.choose(batch)
        except StepFailed as error:
            if len(batch) == 1:
                self.failed[batch[0].id] = str(error)
                return {}
            return {item_id: value for q in batch for item_id, value in self._choose(scorer, [q]).items()}
        return {
            q.id: list(value) if all(map(math.isfinite, value)) else [] for q, value in zip(batch, values, strict=True)
        }

    def write(
        self, questions: Sequence[Question], tokens_max: int, stop: Sequence[int] | None = None
    ) -> dict[str, Written]:
        """Greedy replies by item id."""
        found: dict[str, Written] = {}
        ends = sorted(self._lazy.stop if stop is None else stop)
        for q in questions:
            key = hash_json([self._identity, "generate", q.id, q.ids_sha256, tokens_max, ends])
            value = self._store.get(key)
            if value is None:
                try:
                    reply = self._lazy.open().generate(q, tokens_max, ends)
                except StepFailed as error:
                    self.failed[q.id] = str(error)
                    continue
                value = [reply.ids, reply.ended]
                self._store.put({key: (value, Cost(q.length, len(reply.ids), reply.prompt_s, reply.new_s))})
                self.asked_now += 1
            found[q.id] = (value[0], value[1])
            self._progress.update(len(found) + len(self.failed), len(questions), "replies", asked_now=self.asked_now)
        return found


def batches(questions: Sequence[Question], size: int) -> list[list[Question]]:
    """Fixed batches of similar length: what was answered before never changes who shares a batch."""
    ordered = sorted(questions, key=lambda q: (q.length, q.id))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
