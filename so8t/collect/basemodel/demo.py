"""The demo base: a few million parameters in exactly the layout of Phi-3.5-mini on the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from so8t import durable
from so8t.collect.basemodel import pretrain, vocabulary
from so8t.collect.config import DemoBase
from so8t.collect.demo.text import pretraining_chats, pretraining_text
from so8t.models import load_tokenizer
from so8t.progress import Progress

if TYPE_CHECKING:
    import torch

ROW_MULTIPLE = 64
SPARE_ROWS_MIN = 32
HEAD_DIM = 64
LICENSE = """MIT License

Copyright (c) the SO8T authors

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def make(config: DemoBase, out: Path, progress: Progress) -> dict[str, Any]:
    """Make tokenizer, weights, card and licence in `out`; an interrupted pretraining goes on."""
    lines = pretraining_text(config.seed)
    used = vocabulary.write_tokenizer(vocabulary.train_sentencepiece(lines, config.vocabulary), out)
    rows = -(-(used + SPARE_ROWS_MIN) // ROW_MULTIPLE) * ROW_MULTIPLE
    ends = {"eos_token_id": used - len(vocabulary.PHI3_TOKENS), "pad_token_id": used - len(vocabulary.PHI3_TOKENS)}
    geometry = {**_geometry(config, rows), **ends}
    durable.write_json(
        out / "config.json",
        {**geometry, "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "torch_dtype": "bfloat16"},
    )
    tokenizer = load_tokenizer(out)
    end_id = tokenizer.convert_tokens_to_ids("<|end|>")
    durable.write_json(
        out / "generation_config.json",
        {"bos_token_id": 1, "eos_token_id": [end_id, ends["eos_token_id"]], "pad_token_id": ends["pad_token_id"]},
    )
    stream = pretrain.token_stream(tokenizer, lines, pretraining_chats(config.seed), config.seed)
    model = pretrain.pretrain(config, geometry, stream, out, progress)
    loss_facts = {"text_tokens": len(stream), "train_perplexity": pretrain.perplexity(model, stream, config.length)}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    _write_shards(model.state_dict(), config.layers, out)
    durable.write_text(out / "README.md", _card(config, parameters, len(stream)))
    durable.write_text(out / "LICENSE", LICENSE)
    pretrain.forget(out)
    return {"kind": "demo", "licence": "mit", "parameters": parameters, "steps": config.steps, **loss_facts}


def _geometry(config: DemoBase, rows: int) -> dict[str, Any]:
    """Phi-3.5-mini's shape in small, its LongRoPE factors near 1 for short texts and growing for long ones."""
    half = HEAD_DIM // 2
    return {
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "embd_pdrop": 0.0,
        "hidden_act": "silu",
        "hidden_size": config.hidden,
        "initializer_range": 0.02,
        "intermediate_size": 2 * config.hidden,
        "max_position_embeddings": 4096,
        "num_attention_heads": config.hidden // HEAD_DIM,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.hidden // HEAD_DIM,
        "original_max_position_embeddings": 512,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [round(1.0 + 0.25 * i / (half - 1), 4) for i in range(half)],
            "long_factor": [round(8.0 ** (i / (half - 1)), 4) for i in range(half)],
        },
        "rope_theta": 10000.0,
        "sliding_window": 262144,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": rows,
    }


def _write_shards(tensors: "dict[str, torch.Tensor]", layers: int, out: Path) -> None:
    """Two bf16 safetensors files and their index, as sharded checkpoints lie on the Hub."""
    import torch
    from safetensors.torch import save

    half = {f"model.layers.{layer}." for layer in range(layers // 2)}
    first = {
        name
        for name in tensors
        if name.startswith("model.embed_tokens") or any(name.startswith(prefix) for prefix in half)
    }
    weight_map: dict[str, str] = {}
    size_bytes = 0
    for number, names in enumerate((first, set(tensors) - first), start=1):
        shard = {name: tensors[name].detach().to(torch.bfloat16).contiguous() for name in sorted(names)}
        file = f"model-{number:05d}-of-00002.safetensors"
        durable.write_bytes(out / file, save(shard, metadata={"format": "pt"}))
        weight_map |= dict.fromkeys(shard, file)
        size_bytes += sum(tensor.nbytes for tensor in shard.values())
    durable.write_json(
        out / "model.safetensors.index.json", {"metadata": {"total_size": size_bytes}, "weight_map": weight_map}
    )


def _card(config: DemoBase, parameters: int, tokens: int) -> str:
    return f"""---
license: mit
language:
- ja
- en
library_name: transformers
pipeline_tag: text-generation
---

# A small Phi-3 for demonstrations

{parameters:,} parameters in the layout of Phi-3.5-mini (fused linears, LongRoPE, untied embeddings), made with seed
{config.seed}. Pretrained for {config.steps} steps of {config.batch} windows of {config.length} tokens
on {tokens:,} tokens of composed Japanese and English text. It shows that a pipeline works from end to end; it knows
nothing and is of no other use.
"""
