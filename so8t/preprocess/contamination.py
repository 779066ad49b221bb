"""Benchmark prompts in the training rows: found verbatim, inside longer texts, and with a few edits.

Shared character 13-grams of the compare key propose (as in GPT-3's overlap analysis, arXiv 2005.14165, appendix C;
8-grams for prompts so short that two edits might leave no 13), and the share of the prompt's 5-grams that the place in
the row holds decides, because openings such as "answer the following question" are shared by clean rows too. Of a
prompt below 24 characters an edit takes too many n-grams: its place in the row must be the prompt but for one edit.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from so8t.errors import InputError
from so8t.preprocess.config import Prompts
from so8t.preprocess.normalise import compare_key

CONTAINED = 0.7  # of a prompt's 5-grams; 2 % edits leave .75 or more of a prompt that is not short
VERIFIED_BY = 5
SHORT = 24
TINY = 13  # says too little inside a longer text: it must be at least half of the row
PROPOSED_BY = ((39, 13), (SHORT, 8))  # (shortest prompt, length of the n-grams that propose it)
REASON = "benchmark prompt"
# Under which names datasets keep what is asked.
ASKED = frozenset(
    {
        "question",
        "input",
        "input_text",
        "prompt",
        "instruction",
        "problem",
        "query",
        "ctx",
        "context",
        "sent",
        "sentence",
        "text",
    }
)


class Contamination:
    """Benchmark prompts, indexed; `holds` asks whether a text holds one of them."""

    def __init__(self, prompts: Iterable[str]) -> None:
        keys = sorted({compare_key(prompt) for prompt in prompts} - {""})
        # By length, then by text: a short prompt lies in a row only if one of its halves lies there whole.
        self._halves: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for key in (key for key in keys if len(key) < SHORT):
            for half in (key[: len(key) // 2], key[len(key) // 2 :]):
                self._halves[len(half)][half].add(key)
        self._long = [key for key in keys if len(key) >= SHORT]
        self._grams = [set(ngrams(key, VERIFIED_BY)) for key in self._long]
        self._index: dict[int, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        for number, key in enumerate(self._long):
            size = next(size for shortest, size in PROPOSED_BY if len(key) >= shortest)
            for gram in ngrams(key, size):
                self._index[size][gram].add(number)

    def holds(self, text: str) -> bool:
        """Whether a benchmark prompt lies in the text."""
        key = compare_key(text)
        short = {
            found
            for size, halves in self._halves.items()
            for half in ngrams(key, size)
            for found in halves.get(half, ())
        }
        return any(_nearly_in(one, key) for one in short) or any(
            self._contained(key, number, step) for number, step in self._proposed(key)
        )

    def _proposed(self, key: str) -> set[tuple[int, int]]:
        """(prompt, where in the text a shared n-gram stands, in steps of the prompt's length)."""
        return {
            (number, start // len(self._long[number]))
            for size, index in self._index.items()
            for start, gram in enumerate(ngrams(key, size))
            for number in index.get(gram, ())
        }

    def _contained(self, key: str, number: int, step: int) -> bool:
        wanted, length = self._grams[number], len(self._long[number])
        window = key[max(0, (step - 1) * length) : (step + 2) * length + VERIFIED_BY]
        return len(wanted & set(ngrams(window, VERIFIED_BY))) >= CONTAINED * len(wanted)


def _nearly_in(short: str, key: str) -> bool:
    """Whether the prompt lies in the key but for one edit: then one of its halves lies there whole."""
    if len(short) < TINY and len(key) > 2 * len(short):
        return False
    half = len(short) // 2
    first, second = short[:half], short[half:]
    after = any(_one_edit(second, key[end : end + len(second) + 1]) for _, end in _places(first, key))
    return after or any(
        _one_edit(first[::-1], key[max(0, start - half - 1) : start][::-1]) for start, _ in _places(second, key)
    )


def _places(part: str, key: str) -> Iterator[tuple[int, int]]:
    start = key.find(part)
    while start >= 0:
        yield start, start + len(part)
        start = key.find(part, start + 1)


def _one_edit(wanted: str, found: str) -> bool:
    """Whether `found` begins with `wanted` but for one character changed, lost or added."""
    same = next(
        (n for n, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), min(len(wanted), len(found))
    )
    rest, after = wanted[same:], found[same:]
    return len(rest) <= 1 or after.startswith((rest[1:], rest)) or after[1:].startswith((rest[1:], rest))


def ngrams(key: str, size: int) -> Iterator[str]:
    """All n-grams of a key in order."""
    return (key[start : start + size] for start in range(len(key) - size + 1))


def load(files: Iterable[Prompts], questions: Iterable[Path] = ()) -> Contamination:
    """All prompts of these files, and the texts of a benchmark's questions as `collect.questions` brought them."""
    prompts = [prompt for file in files for prompt in read_prompts(file.path, file.key)]
    return Contamination(prompts + [text for path in questions for text in read_questions(path)])


def read_questions(path: Path) -> list[str]:
    """Of each row what stands under a question's usual name, and every other text too long for a choice or a category."""
    found = []
    # JSON leaves U+2028 and U+0085 as they are, at which `splitlines` would break a row in two.
    for line in path.read_text(encoding="utf-8").split("\n"):
        texts = {
            key: value for key, value in (json.loads(line)["row"] if line else {}).items() if isinstance(value, str)
        }
        found += [text for key, text in texts.items() if key.lower() in ASKED or len(compare_key(text)) >= SHORT]
    return found


def read_prompts(path: Path, key: str) -> list[str]:
    """The texts under `key` in a JSONL file; InputError names the line that has none."""
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)[key]
        except (ValueError, KeyError, TypeError):
            value = None
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{path}, line {number}, has no text under {key!r}", "one JSON object a line", "mend it")
        prompts.append(value)
    return prompts
