"""The Lie algebra so(8): 28 free numbers a block and the skew-symmetric 8x8 matrices that they stand for.

The order of the 28 numbers is the upper triangle, row by row: A[0,1], A[0,2], .., A[0,7], A[1,2], .., A[6,7].
"""

import torch
from torch import Tensor

BLOCK = 8
GENERATORS = BLOCK * (BLOCK - 1) // 2

_ROWS, _COLUMNS = torch.triu_indices(BLOCK, BLOCK, offset=1)


def skew(entries: Tensor) -> Tensor:
    """Skew matrices [..., 8, 8] of the entries [..., 28]: A[i, j] = a and A[j, i] = -a for i < j."""
    if entries.shape[-1] != GENERATORS:
        raise ValueError(f"{entries.shape[-1]} numbers a block, so(8) has {GENERATORS}")
    upper = entries.new_zeros(*entries.shape[:-1], BLOCK, BLOCK)
    upper[..., _ROWS, _COLUMNS] = entries
    return upper - upper.mT


def entries_of(matrices: Tensor) -> Tensor:
    """The entries [..., 28] of skew matrices [..., 8, 8]; the lower triangle is not read."""
    return matrices[..., _ROWS, _COLUMNS]


def blocks_of(channels: int) -> int:
    """How many groups of 8 consecutive channels there are; ValueError where some would be left over."""
    if channels % BLOCK:
        raise ValueError(f"{channels} channels are not a multiple of {BLOCK}: no block-diagonal SO(8) rotation fits")
    return channels // BLOCK
