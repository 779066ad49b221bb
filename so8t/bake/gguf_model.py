"""A Phi-3 model as GGUF, straight from base and adapter: folded in float64, cast once, one pass.

Keys and tensor names as llama.cpp's own converter writes them; nothing is permuted: `qkv_proj` stays
fused (q|k|v), `gate_up_proj` too (gate|up).
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from so8t import durable
from so8t.bake.gguf_file import FileType, Slot, add_general, new_gguf, write_tensors
from so8t.bake.gguf_vocab import add_vocabulary
from so8t.errors import InputError
from so8t.so8.merge import Folded

ARCHITECTURE = "Phi3ForCausalLM"
HEAD = "lm_head.weight"
LONGROPE = ("longrope", "su")
Report = Callable[[int, int], object]


def write_model(
    path: Path,
    base: Path,
    folded: Folded,
    tokenizer: Path,
    name: str,
    file_type: FileType,
    notes: dict[str, str],
    report: Report,
) -> int:
    """Write the model's GGUF; give its tensor bytes. InputError for another architecture or values that do not fit."""
    config = durable.read_json(base / "config.json")
    if config.get("architectures") != [ARCHITECTURE]:
        raise InputError(f"{base} holds {config.get('architectures')}", f"[{ARCHITECTURE!r}]")
    slots = [*_rope_slots(config), *_slots(folded, config, file_type)]
    total = sum(slot.size_bytes for slot in slots)
    with new_gguf(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.PHI3]) as writer:
        add_general(writer, name, "model", file_type, notes)
        weights = sum(math.prod(slot.shape) for slot in slots)
        writer.add_size_label(gguf.size_label(weights, weights, 0, 0))
        _add_shape(writer, config)
        add_vocabulary(writer, tokenizer, config["vocab_size"])
        for done in write_tensors(writer, slots):
            report(done, total)
    return total


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    rope = rope_settings(config)
    share = config.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_rope_scaling_orig_ctx_len(original_context(config))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(int(share * config["hidden_size"]) // config["num_attention_heads"])
    writer.add_rope_freq_base(config.get("rope_theta", rope.get("rope_theta", 10000.0)))
    writer.add_sliding_window(config.get("sliding_window") or 0)
    if _is_longrope(rope):
        writer.add_rope_scaling_attn_factors(attention_factor(config))


def rope_settings(config: dict[str, Any]) -> dict[str, Any]:
    """`rope_scaling` of older configs, `rope_parameters` of transformers 5, or nothing."""
    return config.get("rope_scaling") or config.get("rope_parameters") or {}


def original_context(config: dict[str, Any]) -> int:
    """Tokens before any stretching; the key lies on top or inside the rope settings."""
    inside = rope_settings(config).get("original_max_position_embeddings")
    return int(config.get("original_max_position_embeddings") or inside or config["max_position_embeddings"])


def attention_factor(config: dict[str, Any]) -> float:
    """LongRoPE's attention scale sqrt(1 + ln(s)/ln(original)), s the stretch (Ding et al. 2024, appendix)."""
    original = original_context(config)
    stretch = config["max_position_embeddings"] / original
    return math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0


def _is_longrope(rope: dict[str, Any]) -> bool:
    kind = str(rope.get("rope_type", rope.get("type", "default"))).lower()
    if kind not in (*LONGROPE, "default"):
        raise InputError(f"rope scaling {kind!r}", "longrope, or none", "choose a Phi-3 or Phi-3.5 base")
    return kind in LONGROPE


def _rope_slots(config: dict[str, Any]) -> Iterator[Slot]:
    rope = rope_settings(config)
    if _is_longrope(rope):
        for kind in ("long", "short"):
            factors = np.array(rope[f"{kind}_factor"], np.float64)
            yield Slot(f"rope_factors_{kind}.weight", factors.shape, "F32", [factors])


def _slots(folded: Folded, config: dict[str, Any], file_type: FileType) -> Iterator[Slot]:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.PHI3, config["num_hidden_layers"])
    for name in folded.base.names():
        # transformers ties the head to the embedding and does not read it; llama.cpp would.
        if name == HEAD and config.get("tie_word_embeddings"):
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise InputError(f"the base has a tensor {name!r}", "the tensors of a Phi-3 model only")
        shape = folded.base.info(name).shape
        dtype = file_type if len(shape) > 1 else "F32"
        # A generator: read when its turn comes.
        yield Slot(target, shape, dtype, folded.cast(name, dtype, target))
