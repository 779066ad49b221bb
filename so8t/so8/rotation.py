"""The Cayley map from so(8) to SO(8), and how its rotations act on groups of 8 channels.

R(alpha) = (I - alpha A / 2)^-1 (I + alpha A / 2) lies in SO(8) for every alpha and every skew A
(Golub and Van Loan, Matrix Computations, P2.1.3). It is solved exactly: a truncated Neumann series
leaves the group, and so does a blend (1 - alpha) I + alpha R.
"""

import torch
from torch import Tensor

from so8t.so8.generators import BLOCK, skew


def cayley(entries: Tensor, alpha: float = 1.0) -> Tensor:
    """Rotations [..., 8, 8] of the so(8) entries [..., 28], in fp32 or wider."""
    wide = entries if entries.dtype == torch.float64 else entries.float()
    half = skew(wide) * (alpha / 2)
    identity = torch.eye(BLOCK, dtype=wide.dtype, device=wide.device)
    rotations: Tensor = torch.linalg.solve(identity - half, identity + half)
    return rotations


def rotate(rotations: Tensor, x: Tensor) -> Tensor:
    """R x for column vectors: x [..., channels], rotations [channels / 8, 8, 8]; computed no narrower than fp32."""
    blocks = x.to(rotations.dtype).reshape(*x.shape[:-1], -1, BLOCK)
    return torch.einsum("nij,...nj->...ni", rotations, blocks).flatten(-2).to(x.dtype)


def rotate_rows(rotations: Tensor, weight: Tensor) -> Tensor:
    """R W: the output side of a weight [out, in], rotations [out / 8, 8, 8]."""
    return torch.bmm(rotations, weight.reshape(-1, BLOCK, weight.shape[1])).flatten(0, 1)


def rotate_columns(weight: Tensor, rotations: Tensor) -> Tensor:
    """W R: the input side of a weight [out, in], rotations [in / 8, 8, 8]."""
    blocks = weight.reshape(weight.shape[0], -1, BLOCK).transpose(0, 1)
    return torch.bmm(blocks, rotations).transpose(0, 1).flatten(1)


def orthogonality_error(rotations: Tensor) -> float:
    """Largest entry of |R'R - I|."""
    identity = torch.eye(BLOCK, dtype=rotations.dtype, device=rotations.device)
    return float((rotations.mT @ rotations - identity).abs().max())


def determinant_error(rotations: Tensor) -> float:
    """Largest |det R - 1|."""
    return float((torch.linalg.det(rotations) - 1).abs().max())
