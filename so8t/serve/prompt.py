"""A conversation as token ids, from what the GGUF itself holds: its vocabulary and its chat template.

What a user writes never becomes one of the added tokens: such text gets a space inside, and afterwards the prompt's
added tokens are compared with those of the same conversation with other words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from so8t.errors import InputError
from so8t.llama import UBATCH, Floats, Llama, Part
from so8t.models import neutral
from so8t.thinking import ADDED_TOKENS, IMAGE_TOKEN

Role = Literal["system", "user", "assistant"]
# No token stands for more characters than this; longer texts are refused before they are tokenised.
CHARACTERS_A_TOKEN = 32


class BadRequest(ValueError):
    """The request cannot be answered as it is; the text is for who sent it."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; only the last one may have an image."""

    role: Role
    text: str


class Prompts:
    """Makes prompts for one open model."""

    def __init__(self, model: Llama) -> None:
        """InputError for a model without our tags, or without a chat template that can be rendered."""
        self._model, self._added = model, model.added_tokens()
        absent = [token for token in ADDED_TOKENS if model.tokenize(token) != [self._added.get(token)]]
        if absent:
            raise InputError(
                f"{model.path} has no token for {', '.join(absent)}",
                "a model made by this pipeline, which thinks in tags",
                "choose a GGUF of a bake or upload artifact (so8t status names them)",
            )
        self._ids = frozenset(self._added.values())
        self._template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
            model.metadata("tokenizer.chat_template")
        )
        ids = model.special_ids()
        self._special = {f"{name}_token": model.detokenize([ids[name]]) for name in ("bos", "eos") if ids[name] >= 0}
        try:
            if "x" not in self._render([Turn("user", "x")]):
                raise InputError(f"the chat template of {model.path} leaves the user's words out", "Phi-3's")
        except TemplateError as error:
            raise InputError(f"{model.path} has no usable chat template: {error}", "Phi-3's") from None

    def id_of(self, token: str) -> int:
        """The id of one of our tokens."""
        return self._added[token]

    def get_added_vocab(self) -> dict[str, int]:
        """Ids by text, as a tokenizer gives them."""
        return self._added

    def parts(self, turns: Sequence[Turn], image: Floats | None = None) -> list[Part]:
        """Ids of the conversation up to where the reply starts, in pieces of at most UBATCH; the image embedded.

        BadRequest for one that is too long for the context. An image stands at the beginning of the last turn.
        """
        if sum(len(turn.text) for turn in turns) > CHARACTERS_A_TOKEN * self._model.context:
            raise BadRequest("the messages are longer than the model's context")
        marker = f"{IMAGE_TOKEN}\n" if image is not None else ""
        ids = self._tokenize([Turn(turn.role, neutral(self, turn.text).lstrip()) for turn in turns], marker)
        if self._skeleton(ids) != self._skeleton(self._tokenize([Turn(turn.role, "x") for turn in turns], marker)):
            raise BadRequest("the messages hold a control token")
        length = len(ids) + (len(image) - 1 if image is not None else 0)
        if length >= self._model.context:
            raise BadRequest(f"the prompt has {length} tokens; the model's context holds {self._model.context}")
        if image is None:
            return list(_slices(ids))
        at = ids.index(self._added[IMAGE_TOKEN])
        return [*_slices(ids[:at]), image, *_slices(ids[at + 1 :])]

    def _tokenize(self, turns: list[Turn], marker: str) -> list[int]:
        """The text before and after an image is tokenised by itself, as in training."""
        text = self._render([*turns[:-1], Turn(turns[-1].role, marker + turns[-1].text)])
        if not marker:
            return self._model.tokenize(text)
        before, after = text.split(IMAGE_TOKEN)
        return [*self._model.tokenize(before), self._added[IMAGE_TOKEN], *self._model.tokenize(after)]

    def _skeleton(self, ids: list[int]) -> list[int]:
        return [token for token in ids if token in self._ids]

    def _render(self, turns: Sequence[Turn]) -> str:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        return self._template.render(messages=messages, add_generation_prompt=True, **self._special)


def _slices(ids: list[int]) -> list[list[int]]:
    """Pieces between whose evaluation the work may be stopped."""
    return [ids[start : start + UBATCH] for start in range(0, len(ids), UBATCH)]
