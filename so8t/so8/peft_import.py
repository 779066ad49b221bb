"""PEFT's OFT and LoRA adapters as an adapter folder of ours. What would not mean the same is refused."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from so8t import durable
from so8t.errors import InputError
from so8t.so8.generators import BLOCK, GENERATORS, skew
from so8t.so8.peft import CONFIG, PART_OF, PREFIX, ROWS_OF, ROWS_SUFFIX, TENSORS, TOLERANCE, of_base
from so8t.so8.rotation import inverse_cayley
from so8t.so8.saved import Saved

# The settings that are read here, and those that say nothing about a trained adapter. Any other must be off.
READ = frozenset({
    "peft_type", "peft_version", "bias", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
    "init_lora_weights", "oft_block_size", "use_cayley_neumann", "num_cayley_neumann_terms",
    "trainable_token_indices", "modules_to_save",
})  # fmt: skip
WITHOUT_EFFECT = frozenset({
    "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout", "module_dropout", "init_weights",
    "megatron_core", "qalora_group_size", "eps",
})  # fmt: skip
# The other ways to start a LoRA (pissa, olora, corda, ..) take something out of the base.
INITS_THAT_KEEP_THE_BASE = (True, False, "gaussian", "orthogonal", "eva")
ROWS_PART = {f"{module}{suffix}": part for module, part in ROWS_OF.items() for suffix in (ROWS_SUFFIX, ".weight")}


def import_peft(source: Path, out: Path, base: Path | None = None, tolerance: float = TOLERANCE) -> Saved:
    """Write PEFT's adapter folder `source`, OFT in blocks of 8 or LoRA, as an adapter folder of ours; give it.

    An OFT adapter with the Neumann series is taken only where its matrices are within `tolerance`, in every entry,
    of the nearest rotations, which are what is written. `base` is needed where a whole embedding or head was
    saved, or the rows of one of the two only.
    """
    config = read_config(source)
    parts, rows = read_parts(source)
    scale = 1.0
    if config["peft_type"] == "OFT":
        parts = {name: _generators(name, half, config, tolerance) for name, half in parts.items()}
    else:
        parts, scale = _scaled(parts, config)
    ids, found_rows = token_rows(rows, config, base)
    saved = Saved({**parts, **found_rows}, lora_scale=scale, token_ids={str(token): token for token in ids})
    saved.write(out)
    return saved


def read_parts(source: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The adapter's tensors by our names, and rows of embedding and head by PEFT's; InputError for any other."""
    parts: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    if not (source / TENSORS).is_file():
        raise InputError(f"there is no {source / TENSORS}", "the adapter's weights as safetensors, not as a pickle")
    for key, tensor in load_file(source / TENSORS).items():
        path = key.removeprefix(PREFIX)
        module, _, kind = path.removesuffix(".weight").rpartition(".")
        if path in ROWS_PART:
            rows[path] = tensor
        elif key.startswith(PREFIX) and kind in PART_OF:
            parts[f"{module}.{PART_OF[kind]}"] = tensor.float()
        else:
            raise InputError(f"{source} holds {key}", f"{', '.join(PART_OF)}, rows of embedding and head")
    return parts, rows


def read_config(source: Path) -> dict[str, Any]:
    """adapter_config.json; InputError for settings that mean another computation than plain OFT or LoRA."""
    path = source / CONFIG
    if not path.is_file():
        raise InputError(f"there is no {path}", "a folder that PEFT's save_pretrained wrote")
    config: dict[str, Any] = durable.read_json(path)
    if config.get("peft_type") not in ("OFT", "LORA"):
        raise InputError(f"{path}: peft_type {config.get('peft_type')}", "OFT or LORA")
    odd = {key: value for key, value in config.items() if value and key not in READ | WITHOUT_EFFECT}
    if config.get("bias", "none") != "none":
        odd["bias"] = config["bias"]
    if config.get("init_lora_weights", True) not in INITS_THAT_KEEP_THE_BASE:
        odd["init_lora_weights"] = config["init_lora_weights"]
    if odd:
        told = ", ".join(f"{key}: {value}" for key, value in odd.items())
        raise InputError(f"{path}: {told}", "plain OFT or LoRA", "merge it into its base with peft, and use that base")
    return config


def _generators(name: str, half: Tensor, config: Mapping[str, Any], tolerance: float) -> Tensor:
    """A [blocks, 28] of PEFT's Q [blocks, 28]."""
    if half.shape[1:] != (GENERATORS,):
        raise InputError(f"{name} has the shape {tuple(half.shape)}", f"[blocks, {GENERATORS}]: blocks of {BLOCK}")
    if not is_series(name, config):
        return 2 * half
    series = neumann(skew(half.double()), config.get("num_cayley_neumann_terms", 5)).mT
    left, _, right = torch.linalg.svd(series)
    nearest = left @ right
    distance = float((series - nearest).abs().max())
    if distance > tolerance or (torch.linalg.det(nearest) < 0).any():
        raise InputError(
            f"{name} uses PEFT's Neumann series, up to {distance:.1e} away from rotations",
            f"use_cayley_neumann: false, or a distance of at most {tolerance:.0e}",
            "train it with use_cayley_neumann: false, or allow the distance (--tolerance)",
        )
    return inverse_cayley(nearest).float()


def is_series(name: str, config: Mapping[str, Any]) -> bool:
    """Whether PEFT took the Neumann series instead of the exact Cayley map; absent means true, as it does to PEFT."""
    if not config.get("use_cayley_neumann", True):
        return False
    if "peft_version" not in config:
        raise InputError(f"{name} is a Neumann series from before peft 0.18, which was another one", "a newer adapter")
    return True


def neumann(q: Tensor, terms: int) -> Tensor:
    """PEFT's series of (I + Q)(I - Q)^-1: I + 2 Q + .. + 2 Q^(terms - 2) + Q^(terms - 1), for 4 terms and more."""
    if terms < 4:
        raise InputError(f"num_cayley_neumann_terms: {terms}", "at least 4", "train with use_cayley_neumann: false")
    powers = torch.stack([torch.linalg.matrix_power(q, n) for n in range(terms)])
    return 2 * powers.sum(0) - powers[0] - powers[-1]


def _scaled(parts: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], float]:
    """The parts and their one scale; where PEFT has several, they go into lora_b."""
    scales = {name: scale_of(name.removesuffix(".lora_b"), config) for name in parts if name.endswith(".lora_b")}
    if len(set(scales.values())) == 1:
        return dict(parts), next(iter(scales.values()))
    return {name: tensor * scales.get(name, 1.0) for name, tensor in parts.items()}, 1.0


def scale_of(module: str, config: Mapping[str, Any]) -> float:
    """LoRA's factor of one module: alpha / r, or alpha / sqrt(r), with the patterns that name it."""

    def of(patterns: str, default: str) -> float:
        found = [value for key, value in (config.get(patterns) or {}).items() if re.match(rf"(.*\.)?({key})$", module)]
        return float(found[0] if found else config[default])

    rank = of("rank_pattern", "r")
    return of("alpha_pattern", "lora_alpha") / (math.sqrt(rank) if config.get("use_rslora") else rank)


def token_rows(
    rows: Mapping[str, Tensor], config: Mapping[str, Any], base: Path | None
) -> tuple[list[int], dict[str, Tensor]]:
    """The ids whose rows differ from the base's, and their rows in embedding and head."""
    told = config.get("trainable_token_indices") or {}
    indices = told if isinstance(told, dict) else {"embed_tokens": told}
    changed: dict[str, dict[int, Tensor]] = {part: {} for part in ROWS_OF.values()}
    for path, tensor in rows.items():
        if path.endswith(ROWS_SUFFIX):
            tokens = indices[path.removesuffix(ROWS_SUFFIX).rpartition(".")[2]]
            changed[ROWS_PART[path]] |= dict(zip(tokens, tensor.float(), strict=True))
        else:
            differs = (tensor != of_base(base, path).to(tensor.dtype)).any(1)
            changed[ROWS_PART[path]] |= {token: tensor[token].float() for token in differs.nonzero()[:, 0].tolist()}
    ids = sorted(set().union(*changed.values()))
    if not ids:
        return [], {}
    found: dict[str, Tensor] = {}
    for module, part in ROWS_OF.items():
        have = changed[part]
        if missing := [token for token in ids if token not in have]:
            plain = of_base(base, f"{module}.weight")
            have |= {token: plain[token].float() for token in missing}
        found[part] = torch.stack([have[token] for token in ids])
    return ids, found
