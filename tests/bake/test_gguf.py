import dataclasses
import json
import math
import shutil

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from so8t import durable, models
from so8t.bake import checks
from so8t.bake.gguf_model import attention_factor, original_context, write_model
from so8t.bake.gguf_vision import check_shape, gguf_name
from so8t.bake.gguf_vocab import read_vocabulary
from so8t.bake.quantize import model_gguf
from so8t.bake.texts import parity_texts
from so8t.errors import InputError
from so8t.llama import Llama
from so8t.so8.merge import Adapter, Folded, Tensors, read_train_adapter
from so8t.thinking import ADDED_TOKENS
from tests.bake import shapes


def write(path, base, tokenizer, name="toy-phi-3", adapter=None, file_type="F32"):
    folded = Folded(Tensors.of_model(base), adapter or Adapter({}))
    write_model(path, base, folded, tokenizer, name, file_type, {}, lambda done, total: None)
    return path


def field(path, key):
    return gguf.GGUFReader(path).get_field(key).contents()


def test_keys_are_read_back(world, folded):
    path = model_gguf(folded.path / "gguf")
    config = durable.read_json(world.base.path / "config.json")
    assert field(path, "general.architecture") == "phi3"
    assert field(path, "general.name") == "so8t-phi-3"
    assert field(path, "general.license") == "mit"
    assert field(path, "general.file_type") == 1
    assert field(path, "so8t.train_content") == world.train.content
    assert field(path, "phi3.block_count") == config["num_hidden_layers"]
    assert field(path, "phi3.rope.dimension_count") == 64
    assert field(path, "phi3.rope.scaling.original_context_length") == 512
    assert field(path, "phi3.rope.scaling.attn_factor") == pytest.approx(math.sqrt(1 + math.log(8) / math.log(512)))
    assert field(path, "tokenizer.ggml.add_bos_token") is False


def test_tensor_data_are_the_folded_weights_cast_once(world, folded):
    exact = Folded(Tensors.of_model(world.base.path), read_train_adapter(world.train.path))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.PHI3, 2)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(model_gguf(folded.path / "gguf")).tensors}
    for name in exact.base.names():
        tensor = found.pop(names.get_name(name, try_suffixes=(".weight",)))
        wanted = exact.whole(name)
        assert tensor.tensor_type.name == ("F16" if wanted.ndim > 1 else "F32")
        np.testing.assert_array_equal(tensor.data, wanted.astype(tensor.data.dtype))
    config = durable.read_json(world.base.path / "config.json")
    assert sorted(found) == ["rope_factors_long.weight", "rope_factors_short.weight"]
    np.testing.assert_array_equal(
        found["rope_factors_long.weight"].data, np.float32(config["rope_scaling"]["long_factor"])
    )


def test_rope_settings_are_found_wherever_they_lie():
    inside = {
        "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 64},
        "max_position_embeddings": 512,
    }
    assert original_context(inside) == 64
    assert original_context({"max_position_embeddings": 512}) == 512
    assert attention_factor({"max_position_embeddings": 512}) == 1.0


def test_transformers_and_f32_agree(world, tmp_path):
    tokenizer = models.load_tokenizer(world.train.path / "tokenizer")
    path = write(tmp_path / "m.gguf", world.base.path, world.train.path / "tokenizer")
    base = models.load_base(world.base.path)
    ids = [models.prompt_ids(tokenizer, "こんにちは。How are you?"), models.reply_ids(tokenizer, "<final>7</final> x")]
    with torch.inference_mode():
        logits = [base(input_ids=torch.tensor([row])).logits[0].numpy() for row in ids]
    parity = checks.measure(path, ids, logits, 1)
    assert parity.difference_max <= 1e-4
    assert parity.reference_max > 1  # else agreement would say nothing
    assert parity.top1 == 1.0


def test_long_context_takes_other_factors_than_transformers(world, tmp_path):
    """Why everything is verified at no more than the original context."""
    tokenizer = models.load_tokenizer(world.train.path / "tokenizer")
    path = write(tmp_path / "m.gguf", world.base.path, world.train.path / "tokenizer")
    ids = models.prompt_ids(tokenizer, "Tell me a long story, please.")
    with Llama(path, kv="F32", threads=1) as short, Llama(path, context=1024, kv="F32", threads=1) as long:
        assert (short.context, long.context) == (512, 1024)
        assert np.abs(short.logits([ids]) - long.logits([ids])).max() > 1e-2


def test_name_without_phi_3_is_caught_by_the_tokenizer_gate(world, tmp_path):
    folder = world.train.path / "tokenizer"
    tokenizer = models.load_tokenizer(folder)
    texts = parity_texts(tokenizer, ["こんにちは", "What is 2 + 2?"], 200)
    good = write(tmp_path / "good.gguf", world.base.path, folder, "Borea-Phi-3.5-toy")
    bad = write(tmp_path / "bad.gguf", world.base.path, folder, "toy")
    assert checks.tokenizer_gates(good, tokenizer, texts)[0].passed
    (gate,) = checks.tokenizer_gates(bad, tokenizer, texts)
    assert not gate.passed
    assert gate.value >= 10
    assert "<|" in gate.detail


def test_tags_without_rstrip_are_caught_by_the_tokenizer_gate(world, tmp_path):
    folder = tmp_path / "tokenizer"
    shutil.copytree(world.train.path / "tokenizer", folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        rows = data["added_tokens"] if "added_tokens" in data else list(data["added_tokens_decoder"].values())
        for row in rows:
            row["rstrip"] = row["rstrip"] and row["content"] not in ADDED_TOKENS
        (folder / name).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8", newline="\n")
    path = write(tmp_path / "m.gguf", world.base.path, folder)
    tokenizer = models.load_tokenizer(folder)
    (gate,) = checks.tokenizer_gates(path, tokenizer, ["<final> x", "<final>x"])
    assert gate.value == 1
    assert gate.detail == f"of 2, for example {'<final> x'!r}"


def test_byte_level_vocabulary_of_a_tied_head(tmp_path):
    """As Phi-4-mini has it: merges and the rule's name instead of scores, and no tensor of the head."""
    base = shapes.write(tmp_path / "base", shapes.Shape(bpe=True, tied=True, kv_heads=2, rotary_share=0.5))
    path = write(tmp_path / "m.gguf", base, base, "phi-4-toy")
    assert field(path, "tokenizer.ggml.pre") == "gpt-4o"
    assert field(path, "phi3.rope.dimension_count") == 32
    assert "output.weight" not in {tensor.name for tensor in gguf.GGUFReader(path).tensors}
    tokenizer = models.load_tokenizer(base)
    texts = [
        "Hello, world! It's 12345 o'clock.",
        "こんにちは、世界。\n\n  def f(x):\n\treturn x",
        "<|user|>Hi<|end|> x",
        "🐈‍⬛ Ünïcödé",
    ]
    assert checks.tokenizer_gates(path, tokenizer, texts)[0].value == 0
    data = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"
    durable.write_json(base / "tokenizer.json", data)
    with pytest.raises(InputError, match="has no name for"):
        read_vocabulary(base, 4096)


def test_vocabulary_types_and_scores(world):
    folder = world.train.path / "tokenizer"
    size = durable.read_json(world.base.path / "config.json")["vocab_size"]
    vocabulary = read_vocabulary(folder, size)
    kinds = dict(zip(vocabulary.pieces, vocabulary.types, strict=True))
    assert len(kinds) == size
    assert kinds["<0x0A>"] == gguf.TokenType.BYTE
    assert kinds["<unk>"] == kinds["<|user|>"] == gguf.TokenType.CONTROL
    assert kinds["</s>"] == kinds["<final>"] == kinds["<|allow|>"] == gguf.TokenType.USER_DEFINED
    assert kinds[f"[PAD{size - 1}]"] == gguf.TokenType.UNUSED
    with pytest.raises(InputError, match="ids below the vocab_size"):
        read_vocabulary(folder, 300)


def test_bf16_beyond_f16_is_refused_and_leaves_nothing(world, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(world.base.path, base)
    shard = base / "model-00001-of-00002.safetensors"
    tensors = load_file(shard)
    tensors["model.layers.0.mlp.down_proj.weight"][3, :2] = 1e5
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"blk\.0\.ffn_down\.weight: 2 value\(s\) are not finite as F16"):
        write(tmp_path / "m.gguf", base, world.train.path / "tokenizer", file_type="F16")
    assert not (tmp_path / "m.gguf").exists()
    assert write(tmp_path / "m32.gguf", base, world.train.path / "tokenizer").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "clip_vision_model"),
        ("hidden_act", "quick_gelu"),
        ("feature_layer", -2),
        ("vision_use_head", True),
    ],
)
def test_towers_that_llama_cpp_computes_otherwise_are_refused(folded, key, value):
    vision = durable.read_json(folded.path / "vision" / "config.json")
    check_shape(vision)
    place = vision if key in vision else vision["vision_config"]
    place[key] = value
    with pytest.raises(InputError, match=key):
        check_shape(vision)


def test_class_token_has_no_name():
    assert gguf_name("vision_tower.encoder.layers.11.mlp.fc2.bias") == "v.blk.11.ffn_down.bias"
    with pytest.raises(InputError, match="class_embedding"):
        gguf_name("vision_tower.embeddings.class_embedding")


def test_gate_reads_metadata_back(world, folded, tmp_path):
    path = model_gguf(folded.path / "gguf")
    tokenizer = models.load_tokenizer(folded.path / "hf")
    assert checks.metadata_gates(path, tokenizer, folded.path / "hf", "so8t-phi-3")[0].passed
    (gate,) = checks.metadata_gates(path, tokenizer, folded.path / "hf", "another")
    assert (gate.value, gate.passed) == (1, False)
    assert "general.name" in gate.detail
    assert dataclasses.asdict(gate)["limit"] == 0
