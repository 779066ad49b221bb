"""PEFT's OFT and LoRA adapters as what a fold needs: exactly PEFT's matrices, whatever the block size.

PEFT's OFT computes y = W R' x on column vectors (`peft.py`), so W' = W R'. A cut Neumann series is no rotation, but
what PEFT computes with it is folded all the same: nothing is projected onto SO(8) here, as `peft_import.py` must.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from so8t.errors import InputError
from so8t.so8.merge import Adapter, Change, Floats64, rotations, skew_of
from so8t.so8.peft import ROWS_OF
from so8t.so8.peft_import import is_series, neumann, read_config, read_parts, scale_of, token_rows


def read_peft(source: Path, base: Path) -> Adapter:
    """PEFT's folder `source`, trained on `base`, a Hub-layout folder; InputError for what cannot be folded."""
    config = read_config(source)
    parts, rows = read_parts(source)
    modules = sorted({name.rpartition(".")[0] for name in parts})
    change_of = _rotated if config["peft_type"] == "OFT" else _low_rank
    changes = {f"{module}.weight": change_of(source, module, parts, config) for module in modules}
    ids, found = token_rows(rows, config, base)
    names = {part: f"{module}.weight" for module, part in ROWS_OF.items()}
    return Adapter(changes, {names[part]: _wide(tensor) for part, tensor in found.items()}, tuple(ids))


def _rotated(source: Path, module: str, parts: Mapping[str, Tensor], config: Mapping[str, Any]) -> Change:
    """W' = W R', R' [in/b, b, b] = (I - Q)^-1 (I + Q), or the transposed series."""
    half = _wide(_part(source, module, "so8_in", parts))
    if not is_series(module, config):
        return Change(r_in=rotations(half, 2.0))
    # torch's own powers: the very polynomial that peft_import compares with.
    import torch

    terms = config.get("num_cayley_neumann_terms", 5)
    return Change(r_in=neumann(torch.from_numpy(skew_of(half)), terms).mT.contiguous().numpy())


def _low_rank(source: Path, module: str, parts: Mapping[str, Tensor], config: Mapping[str, Any]) -> Change:
    """W' = W + s B A."""
    a, b = (_wide(_part(source, module, part, parts)) for part in ("lora_a", "lora_b"))
    return Change(lora_a=scale_of(module, config) * a, lora_b=b)


def _part(source: Path, module: str, part: str, parts: Mapping[str, Tensor]) -> Tensor:
    tensor = parts.get(f"{module}.{part}")
    if tensor is None or tensor.ndim != 2:
        raise InputError(
            f"{source} has {'an odd' if tensor is not None else 'no'} {part} of {module}", "a matrix of it"
        )
    return tensor


def _wide(tensor: Tensor) -> Floats64:
    wide: Floats64 = tensor.double().numpy()
    return wide
