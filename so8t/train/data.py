"""Records become token ids, weights and pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from so8t.batching import positions_of
from so8t.errors import InputError
from so8t.labels import LABEL_TOKENS, Label
from so8t.models import END_TOKEN, prompt_ids, reply_ids
from so8t.records import Record

SAFETY, FINAL = "<think-safety>", "<final>"


@dataclass(frozen=True)
class Sample:
    """One record, tokenised. `weights` belong to the reply's tokens."""

    record: Record
    prompt: list[int]
    reply: list[int]
    weights: list[float] = field(repr=False)

    @property
    def ids(self) -> list[int]:
        """Prompt and reply."""
        return self.prompt + self.reply

    def prefix(self, mark: str, tokenizer: Any) -> list[int]:
        """The prompt and the reference reply up to and including a tag: the forced prefix of a measurement."""
        end = self.record.response.index(mark) + len(mark)
        return self.prompt + reply_ids(tokenizer, self.record.response[:end])


def encode(record: Record, tokenizer: Any, image_tokens: int, key_weight: float) -> Sample:
    """Tokenise; the class token, and the answer's first token where an image is asked about, weigh `key_weight`."""
    if not record.response:
        raise InputError(
            f"training row {record.id} has no reference reply", "rows with a response in the thinking format"
        )
    prompt = prompt_ids(tokenizer, record.prompt, image_tokens if record.image else 0)
    reply = reply_ids(tokenizer, record.response + END_TOKEN)
    keys = set(tokenizer.convert_tokens_to_ids(list(LABEL_TOKENS)))
    weights = [key_weight if token in keys else 1.0 for token in reply]
    if record.answer:
        weights[reply.index(tokenizer.convert_tokens_to_ids(FINAL)) + 1] = key_weight
    return Sample(record, prompt, reply, weights)


def answer_token(answer: str, tokenizer: Any) -> int:
    """The first token of an answer where it follows `<final>`."""
    return reply_ids(tokenizer, FINAL + answer)[1]


@dataclass(frozen=True)
class Batch:
    """Padded sequences [B, L]; `weights` is 0 on prompt and padding."""

    ids: Tensor
    mask: Tensor
    weights: Tensor
    pixels: Tensor | None

    @property
    def positions(self) -> Tensor:
        """Position ids that padding on either side does not move."""
        return positions_of(self.mask)


def require(samples: Sequence[Any], what: str) -> None:
    """InputError where a phase has nothing to learn from."""
    if not samples:
        raise InputError(
            f"no {what} in the preprocessed data", "at least one", "add a source, or set that phase's steps to 0"
        )


def label_counts(samples: Sequence[Sample]) -> list[int]:
    """How many samples each class has, in the order of `Label`."""
    return [sum(sample.record.label == label for sample in samples) for label in Label]
