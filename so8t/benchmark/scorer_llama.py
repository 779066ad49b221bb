"""The llama.cpp backend: GGUF files in this process, as a user of the published files would run them."""

import os
from collections.abc import Sequence
from pathlib import Path

from so8t.benchmark.prompts import Question
from so8t.config import Machine
from so8t.errors import StepFailed
from so8t.llama import ImageReader, Llama, Part


class LlamaScorer:
    """A GGUF with its mmproj; one prompt at a time, the default F16 cache. See `scorer.Scorer`."""

    def __init__(self, model: Path, mmproj: Path, *, machine: Machine, context: int) -> None:
        threads = machine.threads or int(os.environ.get("OMP_NUM_THREADS", "0"))
        gpu = machine.device != "cpu"
        self._model = Llama(model, context=context, threads=threads, gpu=gpu)
        self._mmproj, self._gpu = mmproj, gpu
        self._reader: ImageReader | None = None

    def choose(self, questions: Sequence[Question]) -> list[list[float]]:
        """See `scorer.Scorer`; the prompt is evaluated once for all its choices."""
        found = []
        for question in questions:
            scores = self._model.score(self._parts(question), question.choices)
            found.append([sum(tokens) for tokens in scores])
        return found

    def generate(self, question: Question, tokens_max: int, stop: Sequence[int]) -> list[int]:
        """See `scorer.Scorer`."""
        return self._model.generate(self._parts(question), tokens_max, stop)

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
