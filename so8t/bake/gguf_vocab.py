"""The vocabulary of a GGUF from `tokenizer.json` alone, as llama.cpp's SentencePiece tokeniser wants it.

llama.cpp merges the neighbouring pair whose result has the highest score; the rank of a merge in
`tokenizer.json`, negated, is such a score, so both merge in the same order.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from so8t import durable
from so8t.errors import InputError

NORMAL, UNKNOWN, CONTROL = gguf.TokenType.NORMAL, gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL
USER_DEFINED, UNUSED, BYTE = gguf.TokenType.USER_DEFINED, gguf.TokenType.UNUSED, gguf.TokenType.BYTE
ADDED_SCORE, HOLE_SCORE = -1000.0, -10000.0
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Vocabulary:
    """Piece, score and type of each id."""

    pieces: list[str]
    scores: list[float]
    types: list[int]


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The `size` rows of a tokenizer folder; InputError where it is no llama-style BPE or does not fit."""
    tokenizer = durable.read_json(folder / "tokenizer.json")
    model = tokenizer["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise InputError(f"{folder} has a {model.get('type')} tokenizer", "BPE with byte fallback, as Phi-3 has")
    pieces = [f"[PAD{index}]" for index in range(size)]
    scores, types = [HOLE_SCORE] * size, [int(UNUSED)] * size
    ranks = _ranks(model["merges"])
    for piece, index in model["vocab"].items():
        _demand_room(folder, piece, index, size)
        is_byte = _BYTE.fullmatch(piece) is not None
        pieces[index], types[index] = piece, int(BYTE if is_byte else NORMAL)
        scores[index] = 0.0 if is_byte else -float(ranks.get(piece, len(ranks)))
    for entry in tokenizer["added_tokens"]:
        index, piece = entry["id"], entry["content"]
        _demand_room(folder, piece, index, size)
        kind = UNKNOWN if piece == model.get("unk_token") else CONTROL if entry["special"] else USER_DEFINED
        pieces[index], scores[index], types[index] = piece, ADDED_SCORE, int(kind)
    return Vocabulary(pieces, scores, types)


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
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    special = gguf.SpecialVocab(folder, n_vocab=size)
    # Without the key llama.cpp adds a BOS that transformers does not.
    special.add_special_token.setdefault("bos", False)
    special.add_special_token.setdefault("eos", False)
    special.add_to_gguf(writer, quiet=True)
