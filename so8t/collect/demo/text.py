"""Plain Japanese and English text on everyday topics, for the demo's tokenizer and base model.

None of the four-class prompts is in it. It is composed from sentence frames and word lists
(text.yaml) by a seeded generator, so that a seed always gives the same lines.
"""

import random
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

PER_FRAME = 15
LANGUAGES = ("ja", "en")


@cache
def _grammar() -> dict[str, Any]:
    text = files(__package__).joinpath("text.yaml").read_text(encoding="utf-8")
    grammar: dict[str, Any] = yaml.safe_load(text)
    return grammar


def pretraining_text(seed: int) -> list[str]:
    """About 900 lines, 90 kB in UTF-8, Japanese and English mixed; lines of a chat are `question answer`."""
    lines = [line for language in LANGUAGES for line in _sentences(language, _rng(f"{seed}:{language}"))]
    lines += [f"{question} {answer}" for question, answer in pretraining_chats(seed)]
    _rng(f"{seed}:order").shuffle(lines)
    return lines


def pretraining_chats(seed: int) -> list[tuple[str, str]]:
    """About 250 pairs (user turn, assistant turn) on everyday topics, in a seeded order."""
    pairs = []
    for language in LANGUAGES:
        rng = _rng(f"{seed}:chat:{language}")
        grammar = _grammar()[language]
        for question, answer in grammar["chats"]:
            joined = [_fill(f"{question}\t{answer}", grammar["slots"], rng) for _ in range(PER_FRAME)]
            pairs += [(left, right) for left, _, right in (line.partition("\t") for line in dict.fromkeys(joined))]
    _rng(f"{seed}:chat").shuffle(pairs)
    return pairs


def _rng(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - for text, not for secrets


def _sentences(language: str, rng: random.Random) -> list[str]:
    grammar = _grammar()[language]
    filled = [_fill(frame, grammar["slots"], rng) for frame in grammar["sentences"] for _ in range(PER_FRAME)]
    return list(dict.fromkeys(line[0].upper() + line[1:] for line in filled))


def _fill(frame: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    """Each slot takes one value a line, except that a second mention takes another value."""
    used: dict[str, list[str]] = {}
    parts = frame.replace("}", "{").split("{")
    for index in range(1, len(parts), 2):
        taken = used.setdefault(parts[index], [])
        taken.append(rng.choice([value for value in slots[parts[index]] if value not in taken]))
        parts[index] = taken[-1]
    return "".join(parts)
