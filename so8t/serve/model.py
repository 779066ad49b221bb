"""The model in process: reads a conversation, decides the class, writes a reply. One conversation at a time.

The class is not sampled: behind `<think-safety>` the likeliest of the four class tokens is taken, as the benchmark
measures it, and ESCALATION where none is likely enough.
"""

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from so8t.calibration import decide
from so8t.labels import Label
from so8t.llama import Floats, ImageReader, Llama, log_softmax
from so8t.serve.prompt import Prompts, Turn


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. The seed is always known, so that a reply can be made again."""

    temperature: float
    top_p: float
    seed: int
    max_tokens: int


@dataclass
class Count:
    """What a reply took, filled in while it is written. `probability` of the class before it was judged."""

    prompt_tokens: int = 0
    reply_tokens: int = 0
    probability: float = 0.0
    full: bool = False  # no tokens were left


class Writer(Protocol):
    """Writes the raw reply, thinking and all, in pieces that may be cut anywhere; the first one is empty."""

    def write(
        self, turns: Sequence[Turn], image: bytes, sampling: Sampling, count: Count, check: Callable[[], None]
    ) -> Iterator[str]:
        """`image`: a PNG of the tower's size, or nothing. `check` ends the work by raising."""


class Model:
    """One GGUF, and its image tower where there is one."""

    def __init__(
        self, path: Path, mmproj: Path | None, context: int, threads: int, confidence: float, gpu: bool
    ) -> None:
        """InputError for files that llama.cpp cannot read, that do not fit, or that do not think in our tags."""
        self._llama = Llama(path, context=context, threads=threads, gpu=gpu)
        self._images: ImageReader | None = None
        try:
            self.prompts = Prompts(self._llama)
            self._images = ImageReader(mmproj, self._llama, gpu=gpu) if mmproj else None
        except BaseException:
            self._llama.close()
            raise
        self._thresholds = (confidence,) * len(Label)
        self._classes = [self.prompts.id_of(label.token) for label in Label]
        self._before_class = self.prompts.id_of("<think-safety>")
        self._last = self.prompts.id_of("</final>")
        self._ends = frozenset(self._llama.ends())

    @property
    def context(self) -> int:
        """Tokens of prompt and reply together."""
        return self._llama.context

    @property
    def image_size(self) -> int:
        """Side of the square that the tower reads, in pixels; 0 without one."""
        return self._images.image_size if self._images else 0

    @property
    def name(self) -> str:
        """The name in the file."""
        return self._llama.metadata("general.name") or self._llama.path.stem

    def close(self) -> None:
        """Free the native memory; harmless when repeated."""
        if self._images:
            self._images.close()
        self._llama.close()

    def write(
        self, turns: Sequence[Turn], image: bytes, sampling: Sampling, count: Count, check: Callable[[], None]
    ) -> Iterator[str]:
        """The reply's text; it ends behind the last closer, at an end token, or where no tokens are left."""
        parts = self.prompts.parts(turns, self._images.embed(image) if image and self._images else None)
        count.prompt_tokens = sum(map(len, parts))
        yield ""
        draw = np.random.default_rng(sampling.seed)
        text = codecs.getincrementaldecoder("utf-8")("replace")
        last = -1

        def pick(logits: Floats) -> int:
            if last == self._before_class:
                return self._class(logits, count)
            return _draw(logits, sampling, draw)

        for token in self._llama.stream(parts, pick, sampling.max_tokens, check):
            if token in self._ends:
                return
            last = token
            count.reply_tokens += 1
            yield text.decode(self._llama.piece(token))
            if token == self._last:
                return
        count.full = True
        yield text.decode(b"", final=True)

    def _class(self, logits: Floats, count: Count) -> int:
        """The id of the class token that counts, of logits [vocab]."""
        probabilities = np.exp(log_softmax(logits[self._classes]))
        label = decide(probabilities.tolist(), self._thresholds)
        count.probability = float(probabilities[label])
        return self._classes[label]


def _draw(logits: Floats, sampling: Sampling, draw: np.random.Generator) -> int:
    """A token of the smallest set with `top_p` of the probability (Holtzman et al. 2020, section 3.1)."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    probabilities = np.exp(log_softmax(logits / sampling.temperature))
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = order[before < sampling.top_p]
    return int(draw.choice(kept, p=probabilities[kept] / probabilities[kept].sum()))
