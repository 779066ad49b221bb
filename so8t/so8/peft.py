"""Our adapters as a folder that Hugging Face's PEFT loads; `peft_import.py` is the way back. peft itself is not needed.

PEFT's OFT rotates a linear's input, y = W R' x with R = (I - Q)(I + Q)^-1 and Q skew, where `use_cayley_neumann` is
false. R' is our Cayley(2 Q), so Q = alpha A / 2, with the same sign. Where it is true, PEFT's default, R is a cut
series of (I + Q)(I - Q)^-1: about the inverse rotation, and outside SO(8). Compared with peft 0.21.
"""

from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from so8t import durable
from so8t.errors import InputError
from so8t.so8.adapter import EMBED_ROWS, HEAD_ROWS, placements_of
from so8t.so8.generators import BLOCK
from so8t.so8.linear import Placement
from so8t.so8.merge import Tensors
from so8t.so8.rotation import cayley, expm, inverse_cayley
from so8t.so8.saved import Saved, write_tensors

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PART_OF = {"oft_R": "so8_in", "lora_A": "lora_a", "lora_B": "lora_b"}
ROWS_OF = {"model.embed_tokens": EMBED_ROWS, "lm_head": HEAD_ROWS}
ROWS_SUFFIX = ".token_adapter.trainable_tokens_delta"
# How far a rotation may be from the one that was asked for, in any entry: as far as fp32 puts it.
TOLERANCE = 1e-5


def export_peft(source: Path, out: Path, base: Path | None = None, base_name: str = "") -> dict[str, Any]:
    """Write the adapter folder `source` as PEFT's; give the config that was written.

    Rotated inputs become an OFT adapter, low-rank terms a LoRA adapter; InputError for anything else. The rows of
    added tokens go along, in LoRA as trainable tokens. OFT knows no such thing: there the whole embedding and head
    of `base` do, a folder in the Hub's layout.
    """
    saved = Saved.read(source)
    placements = placements_of(saved.state)
    kinds = {_kind(name, placement) for name, placement in placements.items()}
    if len(kinds) != 1:
        raise InputError(
            f"{source} has {len(kinds)} kinds of placements", "rotated inputs everywhere or low-rank terms everywhere"
        )
    config, tensors = (_oft if kinds == {"OFT"} else _lora)(saved, placements)
    if EMBED_ROWS in saved.state:
        more, rows = _rows(saved, config["peft_type"], base)
        config |= more
        tensors |= rows
    config |= {
        "target_modules": sorted(placements), "bias": "none", "task_type": "CAUSAL_LM", "inference_mode": True,
        "base_model_name_or_path": base_name,
    }  # fmt: skip
    write_tensors(out / TENSORS, {PREFIX + name: tensor for name, tensor in tensors.items()})
    durable.write_json(out / CONFIG, config)
    return config


def of_base(base: Path | None, name: str) -> Tensor:
    """A whole tensor of the base."""
    if base is None:
        raise InputError("no base is given", f"the base's own {name}", "name the base's folder (--base)")
    model = Tensors.of_model(base)
    if name not in model.names():
        raise InputError(f"{base} has no {name}", "a Phi-3 model, whose head is not tied to the embedding")
    with safe_open(model.info(name).path, "pt") as file:
        found: Tensor = file.get_tensor(name)
    return found


def _kind(name: str, placement: Placement) -> str:
    if placement.output:
        raise InputError(
            f"{name} is rotated on its output side, and PEFT's OFT rotates inputs only",
            "an adapter with output: false",
            "fold it into the base instead: the baked model loads without PEFT",
        )
    if placement.input and placement.rank:
        raise InputError(f"{name} has a rotation and a low-rank term", "one of them: a PEFT adapter is OFT or LoRA")
    return "OFT" if placement.input else "LORA"


def _oft(saved: Saved, placements: dict[str, Placement]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config = {"peft_type": "OFT", "r": 0, "oft_block_size": BLOCK, "use_cayley_neumann": False}
    tensors = {f"{name}.oft_R.weight": _half(name, saved) for name in placements}
    return config, tensors


def _half(name: str, saved: Saved) -> Tensor:
    """The 28 numbers a block of Q = alpha A / 2, A being the generators of the Cayley map whatever ours is."""
    entries = saved.state[f"{name}.so8_in"].double()
    if saved.rotation_map == "cayley":
        return (saved.alpha * entries / 2).float()
    rotations = expm(entries, saved.alpha)
    half = (inverse_cayley(rotations) / 2).float()
    if not (cayley(2 * half) - rotations).abs().max() <= TOLERANCE:
        raise InputError(f"{name} turns by an angle of pi", "angles below it, which the Cayley map of PEFT can reach")
    return half


def _lora(saved: Saved, placements: dict[str, Placement]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    rank = max(placement.rank for placement in placements.values())
    others = {name: placement.rank for name, placement in placements.items() if placement.rank != rank}
    config = {
        "peft_type": "LORA", "r": rank, "lora_alpha": saved.lora_scale * rank, "rank_pattern": others,
        "alpha_pattern": {name: saved.lora_scale * other for name, other in others.items()},
    }  # fmt: skip
    tensors = {
        f"{name}.{theirs}.weight": saved.state[f"{name}.{ours}"]
        for name in placements
        for theirs, ours in PART_OF.items()
        if ours != "so8_in"
    }
    return config, tensors


def _rows(saved: Saved, kind: str, base: Path | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    ids = sorted(saved.token_ids.values())
    short = [module.rpartition(".")[2] for module in ROWS_OF]
    if kind == "LORA":
        tensors = {f"{module}{ROWS_SUFFIX}": saved.state[part] for module, part in ROWS_OF.items()}
        return {"trainable_token_indices": dict.fromkeys(short, ids)}, tensors
    whole = {f"{module}.weight": of_base(base, f"{module}.weight") for module in ROWS_OF}
    for module, part in ROWS_OF.items():
        matrix = whole[f"{module}.weight"]
        matrix[ids] = saved.state[part].to(matrix.dtype)
    return {"modules_to_save": short}, whole
