"""Batches of token ids: rows of unequal length side by side, in an order that is a pure function of seed and position.

Legend: B rows, L tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def positions_of(mask: Tensor) -> Tensor:
    """[B, L] position ids: cumsum(mask) - 1, not below 0; padding on either side does not move them."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def pad(rows: Sequence[Sequence[float]], value: float, left: bool = False, dtype: torch.dtype = torch.long) -> Tensor:
    """Rows of unequal length -> [B, L]."""
    width = max(len(row) for row in rows)
    filled = [[value] * (width - len(r)) + list(r) if left else list(r) + [value] * (width - len(r)) for r in rows]
    return torch.tensor(filled, dtype=dtype)


def indices(n: int, seed: int, position: int, batch: int) -> list[int]:
    """The batch at a position of the endless order."""
    first = position * batch
    picked: list[int] = []
    while len(picked) < batch:
        epoch, start = divmod(first + len(picked), n)
        permutation = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 7919 * epoch)).tolist()
        picked += permutation[start : start + batch - len(picked)]
    return picked
