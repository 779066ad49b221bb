"""Prompts as token ids, the same for every system and without importing torch or transformers.

A llama.cpp system must start fast; and ids that are made once, by one tokenizer, cannot differ.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.artifacts import hash_json
from so8t.benchmark.task import Form, Prefix, Probe
from so8t.errors import InputError
from so8t.models import prompt_ids, reply_ids
from so8t.records import Record
from so8t.thinking import IMAGE_TOKEN


class Tokenizer:
    """The part of a transformers tokenizer that `so8t.models` uses, on `tokenizers` and Jinja alone."""

    def __init__(self, folder: Path) -> None:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        from tokenizers import Tokenizer as Fast

        self._fast = Fast.from_file(str(folder / "tokenizer.json"))
        settings = durable.read_json(folder / "tokenizer_config.json")
        template = folder / "chat_template.jinja"
        source = template.read_text(encoding="utf-8") if template.is_file() else settings["chat_template"]
        # These two options and the special tokens are what chat templates are written for.
        self._template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)
        self._special = {
            name: _text(settings.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        }
        self.sha256 = hash_json([(folder / "tokenizer.json").read_text(encoding="utf-8"), source])

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """Ids of a text."""
        return {"input_ids": self._fast.encode(text, add_special_tokens=add_special_tokens).ids}

    def plain(self, text: str) -> list[int]:
        """Ids of a text that begins here: BOS, whatever the chat template does, then the text."""
        begin = self._fast.token_to_id(self._special["bos_token"])
        return [*([] if begin is None else [begin]), *self(text)["input_ids"]]

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """The rendered chat; `tokenize` must be False."""
        if tokenize:
            raise ValueError("render first, tokenise afterwards: then every system gets the same ids")
        return self._template.render(messages=messages, add_generation_prompt=add_generation_prompt, **self._special)

    def get_added_vocab(self) -> dict[str, int]:
        """Ids of the added tokens."""
        return {token.content: index for index, token in self._fast.get_added_tokens_decoder().items()}

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of one token."""
        return self._fast.token_to_id(token)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, tags included."""
        return self._fast.decode(list(ids), skip_special_tokens=False)


def _text(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token or "")


@dataclass(frozen=True)
class Question:
    """One item as every system gets it: before, image, after, the forced beginning of the reply, a choice.

    `given` [choice]: how many of a choice's first ids are not scored; none scores them all.
    """

    id: str
    before: tuple[int, ...]
    image: bytes
    image_tokens: int
    after: tuple[int, ...]
    forced: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    given: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the prompt with its image and the longest choice."""
        return len(self.before) + self.image_tokens + len(self.tail) + max(map(len, self.choices), default=0)

    @property
    def tail(self) -> tuple[int, ...]:
        """Every token after the image, up to where a choice would stand."""
        return self.after + self.forced

    def free(self) -> "Question":
        """The same item with nothing of the reply forced."""
        return replace(self, forced=(), choices=(), given=())

    @property
    def ids_sha256(self) -> str:
        """Digest of everything that the model is given."""
        image = hashlib.sha256(self.image).hexdigest() if self.image else ""
        given = [list(self.given)] if self.given else []
        return hash_json([self.before, self.image_tokens, image, self.after, self.forced, self.choices, *given])


@dataclass(frozen=True)
class Unanswerable:
    """An item that no system can be asked, and why: an error, not a wrong answer."""

    id: str
    why: str


def probe_question(
    task: Probe, row: Record, prefix: Prefix | None, tokenizer: Any, image_tokens: int, context: int
) -> Question | Unanswerable:
    """Make the ids of an item, or say why there are none."""
    if prefix is None:
        return Unanswerable(row.id, f"the training split has no reply in {row.language!r} to take the prefix from")
    if task.truth_of(row) not in {choice.name for choice in task.choices}:
        return Unanswerable(row.id, f"its truth {task.truth_of(row)!r} is none of the choices")
    pictured = task.modality != "text"
    if pictured and not row.image:
        return Unanswerable(row.id, "it has no image")
    before, after = _around(prompt_ids(tokenizer, row.prompt, int(pictured)), tokenizer, pictured)
    made = Question(
        row.id,
        tuple(before),
        row.image if pictured else b"",
        image_tokens if pictured else 0,
        tuple(after),
        tuple(reply_ids(tokenizer, prefix.text)),
        choice_ids(task, prefix, tokenizer),
    )
    if made.length > context:
        return Unanswerable(row.id, f"{made.length} tokens, the context holds {context}")
    return made


def _around(ids: list[int], tokenizer: Any, pictured: bool) -> tuple[list[int], list[int]]:
    """Ids before and after the image marker; a text has none."""
    if not pictured:
        return [], ids
    at = ids.index(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    return ids[:at], ids[at + 1 :]


def choice_ids(task: Probe, prefix: Prefix, tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    """Ids of each choice where it follows the prefix; InputError where a token would span the border."""
    head = reply_ids(tokenizer, prefix.text)
    found = []
    for choice in task.choices:
        whole = reply_ids(tokenizer, prefix.text + choice.text)
        if whole[: len(head)] != head or len(whole) == len(head):
            raise InputError(
                f"{choice.text!r} after {prefix.text[-20:]!r} is not a continuation in tokens",
                "a prefix that ends at a token border, such as an added tag",
                f"change prefix_until of the task {task.name}",
            )
        found.append(tuple(whole[len(head) :]))
    if len(set(found)) != len(found):
        raise InputError(f"two choices of {task.name} have the same ids", "choices that the tokenizer can tell apart")
    return tuple(found)


def start_ids(text: str, form: Form, tokenizer: Tokenizer) -> list[int]:
    """Ids of a prompt: a user's turn, or plain text behind the tokenizer's own beginning of a text."""
    return prompt_ids(tokenizer, text) if form == "chat" else tokenizer.plain(text.rstrip())


def continuations(
    item_id: str, prompt: str, options: Sequence[str], ending: str, form: Form, tokenizer: Tokenizer, context: int
) -> Question | Unanswerable:
    """A question whose choices are continuations of a text.

    Tokens may span the border between prompt and option, so what all the whole texts begin with is the prompt. With an
    `ending`, what follows an option is scored and the option is given.
    """
    head = start_ids(prompt, form, tokenizer)

    def ids_of(rest: str) -> list[int]:
        return [*head, *reply_ids(tokenizer, rest)] if form == "chat" else tokenizer.plain(prompt.rstrip() + rest)

    wholes = [ids_of(option + ending) for option in options]
    shared = min(_shared(head, whole) for whole in wholes)
    shared = min(shared, *(len(whole) - 1 for whole in wholes))
    given = tuple(
        max(0, _shared(ids_of(option), whole) - shared) for option, whole in zip(options, wholes, strict=True)
    )
    choices = tuple(tuple(whole[shared:]) for whole in wholes)
    if shared == 0:
        return Unanswerable(item_id, "the prompt is empty")
    if len(set(choices)) < len(choices):
        return Unanswerable(item_id, "two options have the same ids")
    made = Question(item_id, (), b"", 0, tuple(head[:shared]), (), choices, given if ending else ())
    return (
        made if made.length <= context else Unanswerable(item_id, f"{made.length} tokens, the context holds {context}")
    )


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def written_question(
    item_id: str, prompt: str, form: Form, tokens_max: int, tokenizer: Tokenizer, context: int
) -> Question | Unanswerable:
    """A question to be answered in writing; its longest reply must fit into the context beside it."""
    ids = start_ids(prompt, form, tokenizer)
    if len(ids) + tokens_max > context:
        return Unanswerable(item_id, f"{len(ids)} tokens and a reply of {tokens_max}, the context holds {context}")
    return Question(item_id, (), b"", 0, tuple(ids), (), ())


def original_context(folder: Path) -> int:
    """Tokens up to which LongRoPE's short factors hold: beyond, llama.cpp and transformers may differ."""
    config = durable.read_json(folder / "config.json")
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    original = config.get("original_max_position_embeddings") or scaling.get("original_max_position_embeddings")
    return int(original or config["max_position_embeddings"])
