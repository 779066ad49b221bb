"""The demo base's tokenizer: a small SentencePiece BPE with byte fallback, dressed as Phi-3's."""

import io
import json
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.errors import StepFailed

# In Phi-3's order: the ids follow the last SentencePiece id.
PHI3_TOKENS = (
    "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
    "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>",
)  # fmt: skip
# Each of these must be one token where a reply's bare answer stands, so that a benchmark can compare them.
ANSWERS = tuple("0123456789*#ABCD")
ANSWER_LINES = 40
META = "\u2581"  # SentencePiece writes a space as this character

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] in ('system', 'user', 'assistant') and message['content'] %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def train_sentencepiece(lines: list[str], size: int) -> bytes:
    """A serialised SentencePiece BPE model of exactly `size` pieces; the same lines give the same bytes."""
    import sentencepiece

    answers = " ".join(ANSWERS)
    out = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*lines, *[answers] * ANSWER_LINES]),
            model_writer=out,
            model_type="bpe",
            vocab_size=size,
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise StepFailed(f"no vocabulary of {size} pieces could be made from {len(lines)} lines: {error}") from None
    return out.getvalue()


def write_tokenizer(model: bytes, out: Path) -> int:
    """Write all tokenizer files; give the number of ids in use. StepFailed if an answer needs two tokens."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {pieces.id_to_piece(index): index for index in range(pieces.get_piece_size())}
    absent = [answer for answer in ANSWERS if META + answer not in vocab]
    if absent:
        raise StepFailed(f"the answers {absent} are no single tokens of the vocabulary")
    special = [
        index
        for index in range(len(vocab))
        if pieces.is_control(index) or pieces.is_unknown(index) or pieces.is_byte(index)
    ]
    added = _added_tokens(len(vocab))
    durable.write_bytes(out / "tokenizer.model", model)
    _write(out / "tokenizer.json", _fast_tokenizer(vocab, set(special), added))
    _write(out / "tokenizer_config.json", _settings(added))
    _write(
        out / "special_tokens_map.json",
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>"},
    )
    durable.write_text(out / "chat_template.jinja", CHAT_TEMPLATE)
    return len(vocab) + len(PHI3_TOKENS)


def _write(path: Path, value: object) -> None:
    durable.write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def _added_tokens(first: int) -> list[dict[str, Any]]:
    """With the flags that llama.cpp takes for granted in a model named phi-3."""
    rows = [(0, "<unk>", False, True), (1, "<s>", False, True), (2, "</s>", True, False)]
    rows += [(first + i, token, token != "<|endoftext|>", True) for i, token in enumerate(PHI3_TOKENS)]
    return [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": rstrip,
            "normalized": False,
            "special": special,
        }
        for index, token, rstrip, special in rows
    ]


def _fast_tokenizer(vocab: dict[str, int], special: set[int], added: list[dict[str, Any]]) -> dict[str, Any]:
    """tokenizer.json as transformers converts a llama-style SentencePiece model."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": META},
                {"type": "Replace", "pattern": {"String": " "}, "content": META},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": META}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": _merges(vocab, special),
        },
    }


def _merges(vocab: dict[str, int], special: set[int]) -> list[list[str]]:
    """Every pair that makes a piece, best piece first: SentencePiece numbers its BPE pieces by score."""
    words = [piece for piece, index in sorted(vocab.items(), key=lambda item: item[1]) if index not in special]
    known = set(words)
    return [
        [word[:cut], word[cut:]]
        for word in words
        for cut in range(len(word) - 1, 0, -1)
        if word[:cut] in known and word[cut:] in known
    ]


def _settings(added: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": {str(row["id"]): {key: row[key] for key in row if key != "id"} for row in added},
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "legacy": False,
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }
