"""Small Phi-3 checkpoints of every shape that the family has, with random weights."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from so8t import durable
from so8t.bake.gguf_vocab import RULES
from so8t.collect.basemodel import vocabulary
from so8t.collect.demo.text import pretraining_text

PIECES = 2000
LINES = 400
GPT4O = next(regex for regex, name in RULES.items() if name == "gpt-4o")
PHI4_TOKENS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


@dataclass(frozen=True)
class Shape:
    """What distinguishes one checkpoint from another."""

    kv_heads: int = 4
    tied: bool = False
    longrope: bool = True
    rotary_share: float = 1.0
    bpe: bool = False
    sentencepiece_file: bool = True
    shards: int = 1
    hidden: int = 256
    intermediate: int = 512
    dtype: torch.dtype = torch.bfloat16

    heads = 4
    layers = 2


def write(folder: Path, shape: Shape) -> Path:
    """A Hub-layout folder."""
    folder.mkdir(parents=True)
    used = _write_bpe(folder) if shape.bpe else _write_sentencepiece(folder, shape)
    size = (used // 64 + 1) * 64
    durable.write_json(folder / "config.json", _config(shape, size))
    _write_weights(folder, shape, size)
    return folder


def _config(shape: Shape, size: int) -> dict:
    bos, eos = (0, 0) if shape.bpe else (1, 2)
    half = int(shape.hidden * shape.rotary_share) // shape.heads // 2
    rope = {
        "type": "longrope",
        "short_factor": [1.0 + 0.01 * i for i in range(half)],
        "long_factor": [2.0 + 0.5 * i for i in range(half)],
    }
    return {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": shape.hidden, "vocab_size": size,
        "intermediate_size": shape.intermediate, "num_attention_heads": shape.heads, "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads, "partial_rotary_factor": shape.rotary_share, "hidden_act": "silu",
        "max_position_embeddings": 4096 if shape.longrope else 512, "original_max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": rope if shape.longrope else None,
        "sliding_window": None if shape.bpe else 262144, "tie_word_embeddings": shape.tied,
        "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": eos, "torch_dtype": "bfloat16",
    }  # fmt: skip


def _write_weights(folder: Path, shape: Shape, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    head = shape.hidden // shape.heads
    qkv = shape.hidden + 2 * shape.kv_heads * head

    def draw(*dims: int) -> torch.Tensor:
        return (0.05 * torch.randn(*dims, generator=generator)).to(shape.dtype)

    tensors = {"model.embed_tokens.weight": draw(size, shape.hidden), "model.norm.weight": 1 + draw(shape.hidden)}
    if not shape.tied:
        tensors["lm_head.weight"] = draw(size, shape.hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        tensors |= {
            f"{prefix}self_attn.qkv_proj.weight": draw(qkv, shape.hidden),
            f"{prefix}self_attn.o_proj.weight": draw(shape.hidden, shape.hidden),
            f"{prefix}mlp.gate_up_proj.weight": draw(2 * shape.intermediate, shape.hidden),
            f"{prefix}mlp.down_proj.weight": draw(shape.hidden, shape.intermediate),
            f"{prefix}input_layernorm.weight": 1 + draw(shape.hidden),
            f"{prefix}post_attention_layernorm.weight": 1 + draw(shape.hidden),
        }
    if shape.shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    names, weight_map = sorted(tensors), {}
    for number in range(shape.shards):
        file = f"model-{number + 1:05d}-of-{shape.shards:05d}.safetensors"
        mine = {name: tensors[name] for name in names[number :: shape.shards]}
        save_file(mine, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(mine, file)
    durable.write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


@cache
def _sentencepiece() -> bytes:
    return vocabulary.train_sentencepiece(pretraining_text(0), PIECES)


def _write_sentencepiece(folder: Path, shape: Shape) -> int:
    used = vocabulary.write_tokenizer(_sentencepiece(), folder)
    if not shape.sentencepiece_file:
        (folder / "tokenizer.model").unlink()
    return used


@cache
def _byte_level() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(GPT4O), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in PHI4_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pretraining_text(0)[:LINES], trainer)
    return tokenizer.to_str(pretty=True)


def _write_bpe(folder: Path) -> int:
    """As Phi-4-mini has it: byte-level BPE by the rule of GPT-4o."""
    durable.write_text(folder / "tokenizer.json", _byte_level())
    settings = {
        "tokenizer_class": "GPT2Tokenizer", "bos_token": PHI4_TOKENS[0], "eos_token": PHI4_TOKENS[0],
        "unk_token": PHI4_TOKENS[0], "pad_token": PHI4_TOKENS[0], "add_bos_token": False,
        "chat_template": "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    }  # fmt: skip
    durable.write_json(folder / "tokenizer_config.json", settings)
    return Tokenizer.from_str(_byte_level()).get_vocab_size()
