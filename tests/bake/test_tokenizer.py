"""Tokenizer and chat template: zero differences between transformers and llama.cpp on more than 2,000 strings."""

import json
import os
from pathlib import Path

import gguf
import pytest

from so8t import durable, models
from so8t.bake import checks
from so8t.bake.gguf_vocab import read_vocabulary
from so8t.bake.quantize import model_gguf
from so8t.bake.texts import ODD_TEXTS, conversations, parity_texts
from so8t.collect.basemodel import vocabulary
from so8t.llama import Llama
from so8t.thinking import ADDED_TOKENS
from tests.vocab_gguf import write_vocabulary

REAL = Path(os.environ.get("SO8T_REALDATA", "-")) / "gguf-vocab"
SIZE, FIRST_ADDED = 32064, 32000
PROMPTS = ["こんにちは。", "What is 2 + 2?"]


def test_no_string_is_read_in_two_ways(folded):
    tokenizer = models.load_tokenizer(folded.path / "hf")
    texts = parity_texts(tokenizer, PROMPTS, 2000)
    assert len(texts) >= 2000
    assert all(any(token in text for text in texts) for token in tokenizer.get_added_vocab())
    (gate,) = checks.tokenizer_gates(model_gguf(folded.path / "gguf"), tokenizer, texts)
    assert gate.passed, str(gate)
    assert gate.detail == f"of {len(texts)}"


def test_strings_are_the_same_in_every_run_and_of_every_kind(folded):
    tokenizer = models.load_tokenizer(folded.path / "hf")
    texts = parity_texts(tokenizer, PROMPTS, 300)
    assert texts == parity_texts(tokenizer, PROMPTS, 300)
    assert {*ODD_TEXTS, *PROMPTS} <= set(texts)
    assert sum(text.startswith("<|user|>\n") for text in texts) > 100


def test_templates_are_rendered_in_one_way_and_a_change_is_seen(folded, tmp_path):
    tokenizer = models.load_tokenizer(folded.path / "hf")
    path = model_gguf(folded.path / "gguf")
    (gate,) = checks.template_gates(path, tokenizer, PROMPTS)
    assert gate.passed, str(gate)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>\\n", "<|end|>")
    (gate,) = checks.template_gates(path, tokenizer, PROMPTS)
    assert gate.value == len(conversations(PROMPTS)) == 6


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Phi-3's own pieces as a transformers folder with the thinking tokens."""
    base, out = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("real")
    reader = gguf.GGUFReader(REAL / "ggml-vocab-phi-3.gguf")
    pieces, scores = (reader.get_field(f"tokenizer.ggml.{key}").contents() for key in ("tokens", "scores"))
    vocab = {piece: index for index, piece in enumerate(pieces[:FIRST_ADDED])}
    plain = {index for index in range(FIRST_ADDED) if index < 3 or pieces[index].startswith("<0x")}
    # Merged in the order of their scores: runs of spaces, though they have low ids, last.
    ranks = {pieces[i]: rank for rank, i in enumerate(sorted(range(FIRST_ADDED), key=lambda i: (-scores[i], i)))}
    added = vocabulary._added_tokens(FIRST_ADDED)
    assert [row["content"] for row in added[3:]] == pieces[FIRST_ADDED : FIRST_ADDED + len(added) - 3]
    tokenizer = vocabulary._fast_tokenizer(vocab, plain, added)
    tokenizer["model"]["merges"] = vocabulary._merges(ranks, {ranks[pieces[index]] for index in plain})
    files = {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": vocabulary._settings(added),
        "config.json": {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "vocab_size": SIZE},
        "generation_config.json": {"eos_token_id": [32007, 32001, 32000]},
    }
    for name, value in files.items():
        # Sorted, the merges' vocabulary would lose its order.
        durable.write_text(base / name, json.dumps(value, ensure_ascii=False))
    durable.write_text(base / "chat_template.jinja", vocabulary.CHAT_TEMPLATE)
    models.write_thinking_tokenizer(base, out)
    return out


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="SO8T_REALDATA names no folder with gguf-vocab")
def test_phi_3_s_own_vocabulary_is_read_in_one_way(real, tmp_path):
    tokenizer = models.load_tokenizer(real)
    texts = parity_texts(tokenizer, PROMPTS, 4000)
    path = write_vocabulary(real, tmp_path / "real.gguf", SIZE)
    (gate,) = checks.tokenizer_gates(path, tokenizer, texts)
    assert gate.passed, str(gate)
    untagged = [text for text in texts if not any(token in text for token in ADDED_TOKENS)]
    assert len(untagged) > 2000
    with Llama(REAL / "ggml-vocab-phi-3.gguf", vocab_only=True) as theirs, Llama(path, vocab_only=True) as ours:
        assert [text for text in untagged if theirs.tokenize(text) != ours.tokenize(text)] == []


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="SO8T_REALDATA names no folder with gguf-vocab")
def test_vocabulary_is_llama_cpp_s_own_of_phi_3(real):
    """Pieces and types. Scores are ranks here: merging looks at nothing but their order."""
    reader = gguf.GGUFReader(REAL / "ggml-vocab-phi-3.gguf")
    pieces, types = (reader.get_field(f"tokenizer.ggml.{key}").contents() for key in ("tokens", "token_type"))
    ours = read_vocabulary(real, SIZE)
    count = FIRST_ADDED + len(vocabulary.PHI3_TOKENS)
    assert ours.pieces[:count] == pieces[:count]
    assert ours.types[:count] == types[:count]
