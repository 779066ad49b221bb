"""How far rotations are from SO(8): watched, never optimised."""

from collections.abc import Iterable

import torch

from so8t.so8.adapter import Adapters
from so8t.so8.rotation import determinant_error, orthogonality_error, rotations_of

ROTATIONS = (".so8_out", ".so8_in")


@torch.no_grad()
def rotation_errors(parts: Iterable[Adapters]) -> dict[str, float]:
    """Largest |R'R - I|, largest |det R - 1|, and the largest entry of a generator; empty without rotations."""
    found = [
        (orthogonality_error(rotations), determinant_error(rotations), float(entries.abs().max()))
        for adapters in parts
        for name, entries in adapters.parameters().items()
        if name.endswith(ROTATIONS)
        for rotations in [rotations_of(entries, adapters.setting.alpha, adapters.setting.rotation_map)]
    ]
    names = ("orthogonality_error", "determinant_error", "largest_generator_entry")
    return dict(zip(names, map(max, zip(*found, strict=True)), strict=True)) if found else {}
