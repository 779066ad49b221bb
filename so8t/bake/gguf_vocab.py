"""The vocabulary of a GGUF from `tokenizer.json` alone: SentencePiece's (Phi-3, Phi-3.5) and byte-level BPE (Phi-4).

For the former llama.cpp merges the neighbouring pair whose result has the highest score; the rank of a merge in
`tokenizer.json`, negated, is such a score, so both merge in the same order. For the latter it gets the merges, and the
name of the rule that cuts a text into words, which it knows by name only.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from so8t import durable
from so8t.errors import InputError

NORMAL, CONTROL = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
USER_DEFINED, UNUSED, BYTE = gguf.TokenType.USER_DEFINED, gguf.TokenType.UNUSED, gguf.TokenType.BYTE
ADDED_SCORE, HOLE_SCORE = -1000.0, -10000.0
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


# The rules of tokenizer.json by llama.cpp's names. Its own regexes are other spellings of the same.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_HEAD = r"[^\r\n\p{L}\p{N}]?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_GPT4O = (
    f"{_HEAD}{_UPPER}*{_LOWER}+{_ENDING}|{_HEAD}{_UPPER}+{_LOWER}*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
RULES = {_GPT4O: "gpt-4o", _WORDS % "{1,3}": "dbrx", _WORDS % "": "qwen2"}
BYTE_LEVEL_RULE = "gpt-2"


@dataclass(frozen=True)
class Vocabulary:
    """Piece and type of each id; scores where llama.cpp merges by score, else the rule's name."""

    pieces: list[str]
    types: list[int]
    scores: list[float] | None = None
    rule: str = ""


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The `size` rows of a tokenizer folder; InputError where it is no BPE that llama.cpp knows, or does not fit."""
    tokenizer = durable.read_json(folder / "tokenizer.json")
    model = tokenizer["model"]
    if model.get("type") != "BPE":
        raise InputError(f"{folder} has a {model.get('type')} tokenizer", "BPE, as Phi-3 and Phi-4 have")
    rule = "" if model.get("byte_fallback") else _rule(folder, tokenizer)
    pieces = [f"[PAD{index}]" for index in range(size)]
    scores, types = [HOLE_SCORE] * size, [int(UNUSED)] * size
    ranks = {} if rule else _ranks(model["merges"])
    for piece, index in model["vocab"].items():
        _demand_room(folder, piece, index, size)
        is_byte = not rule and _BYTE.fullmatch(piece) is not None
        pieces[index], types[index] = piece, int(BYTE if is_byte else NORMAL)
        scores[index] = 0.0 if is_byte else -float(ranks.get(piece, len(model["merges"])))
    for entry in tokenizer["added_tokens"]:
        index, piece = entry["id"], entry["content"]
        _demand_room(folder, piece, index, size)
        pieces[index], scores[index] = piece, ADDED_SCORE
        types[index] = int(CONTROL if entry["special"] else USER_DEFINED)
    return Vocabulary(pieces, types, rule=rule) if rule else Vocabulary(pieces, types, scores)


def _rule(folder: Path, tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name of the rule that cuts a text into words."""
    cutter = tokenizer.get("pre_tokenizer") or {}
    parts = cutter.get("pretokenizers", [cutter])
    regexes = [part["pattern"].get("Regex") for part in parts if part.get("type") == "Split"]
    byte_level = [part for part in parts if part.get("type") == "ByteLevel"]
    if byte_level and not tokenizer.get("normalizer"):
        if not regexes and byte_level[0].get("use_regex", True):
            return BYTE_LEVEL_RULE
        if len(regexes) == 1 and regexes[0] in RULES and not byte_level[0].get("use_regex", True):
            return RULES[regexes[0]]
    raise InputError(
        f"{folder} cuts texts by a rule that llama.cpp has no name for: {cutter}",
        f"byte-level BPE by one of the rules of {', '.join((*RULES.values(), BYTE_LEVEL_RULE))}, or BPE with byte fallback",
        "choose a Phi-3, Phi-3.5 or Phi-4-mini base",
    )


def strips_right(folder: Path) -> bool:
    """Whether white space after an added token is dropped, as llama.cpp does where the model's name holds phi-3."""
    tokenizer = durable.read_json(folder / "tokenizer.json")
    return any(entry.get("rstrip") for entry in tokenizer["added_tokens"])


def _ranks(merges: list[Any]) -> dict[str, int]:
    """The best rank at which each piece is made."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    return ranks


def _demand_room(folder: Path, piece: str, index: int, size: int) -> None:
    if index >= size:
        raise InputError(f"{folder}: {piece!r} has the id {index}", f"ids below the vocab_size of {size}")


def add_vocabulary(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    """Write tokens, special ids, `add_bos_token` and the chat template of a tokenizer folder."""
    vocabulary = read_vocabulary(folder, size)
    writer.add_tokenizer_model("gpt2" if vocabulary.rule else "llama")
    writer.add_tokenizer_pre(vocabulary.rule or "default")
    writer.add_token_list(vocabulary.pieces)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    special = gguf.SpecialVocab(folder, load_merges=bool(vocabulary.rule), n_vocab=size)
    # Without the key llama.cpp adds a BOS that transformers does not.
    special.add_special_token.setdefault("bos", False)
    special.add_special_token.setdefault("eos", False)
    special.add_to_gguf(writer, quiet=True)
