"""The llama.cpp backend: GGUF files in this process, as a user of the published files would run them."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from so8t.benchmark.prompts import Question
from so8t.benchmark.scorer import Reply, scored
from so8t.config import Machine
from so8t.errors import StepFailed
from so8t.llama import KV, ImageReader, Llama, Part


class LlamaScorer:
    """A GGUF with its mmproj; one prompt at a time. See `scorer.Scorer`."""

    def __init__(self, model: Path, mmproj: Path, *, machine: Machine, context: int, kv: KV = "F16") -> None:
        threads = machine.threads or int(os.environ.get("OMP_NUM_THREADS", "0"))
        gpu = machine.device != "cpu"
        self._model = Llama(model, context=context, kv=kv, threads=threads, gpu=gpu)
        self._mmproj, self._gpu = mmproj, gpu
        self._reader: ImageReader | None = None

    def choose(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `scorer.Scorer`; the prompt is evaluated once for all its choices."""
        found = []
        for question in questions:
            scores = self._model.score(self._parts(question), question.choices)
            found.append([scored(question, choice, tokens) for choice, tokens in enumerate(scores)])
        return found

    def generate(self, question: Question, tokens_max: int, stop: Sequence[int]) -> Reply:
        """See `scorer.Scorer`."""
        began = time.monotonic()
        parts = self._parts(question)
        logits = self._model.last_logits(parts)
        read = time.monotonic()
        length = sum(map(len, parts))
        tokens_max = min(tokens_max, self._model.context - length)
        ids = self._model.extend(logits, length, tokens_max, stop)
        return Reply(ids, len(ids) < tokens_max, read - began, time.monotonic() - read)

    def close(self) -> None:
        """See `scorer.Scorer`."""
        if self._reader is not None:
            self._reader.close()
        self._model.close()

    def _parts(self, question: Question) -> list[Part]:
        if not question.image:
            return [question.tail]
        if self._reader is None:
            self._reader = ImageReader(self._mmproj, self._model, gpu=self._gpu)
        image = self._reader.embed(question.image)
        if len(image) != question.image_tokens:
            raise StepFailed(
                f"{self._mmproj} makes {len(image)} tokens of an image, training made {question.image_tokens}"
            )
        return [question.before, image, question.tail]
