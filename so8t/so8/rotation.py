"""From so(8) to SO(8), and how the rotations act on groups of 8 channels.

Cayley: R(alpha) = (I - alpha A / 2)^-1 (I + alpha A / 2) lies in SO(8) for every alpha and every skew A
(Golub and Van Loan, Matrix Computations, P2.1.3). It is solved exactly: a truncated Neumann series
leaves the group, and so does a blend (1 - alpha) I + alpha R. It reaches every rotation without an angle of pi.
expm: R(alpha) = exp(alpha A) reaches those too, at several times the price. Both agree to second order in A.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from so8t.so8.generators import BLOCK, entries_of, skew

RotationMap = Literal["cayley", "expm"]
MAPS: tuple[str, ...] = get_args(RotationMap)


class _Cayley(torch.autograd.Function):
    """(I - H)^-1 (I + H) for skew H [..., 8, 8]; the backward pass solves nothing.

    With K = (I - H)^-1 = (R + I) / 2, dR = 2 K dH K: the gradient is 2 K' G K'.
    """

    @staticmethod
    def forward(half: Tensor) -> Tensor:
        identity = torch.eye(BLOCK, dtype=half.dtype, device=half.device)
        rotations: Tensor = torch.linalg.solve(identity - half, identity + half)
        return rotations

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (rotations,) = ctx.saved_tensors
        # 2 K' G K' with 2 K = R + I; the 1/2 that is left over is exact in binary.
        twice = rotations.mT + torch.eye(BLOCK, dtype=rotations.dtype, device=rotations.device)
        entries_gradient: Tensor = (twice @ gradient @ twice) / 2
        return entries_gradient


def cayley(entries: Tensor, alpha: float = 1.0) -> Tensor:
    """Rotations [..., 8, 8] of the so(8) entries [..., 28], in fp32 or wider."""
    rotations: Tensor = _Cayley.apply(skew(_wide(entries)) * (alpha / 2))  # type: ignore[no-untyped-call]
    return rotations


def expm(entries: Tensor, alpha: float = 1.0) -> Tensor:
    """exp(alpha A), of the shapes of `cayley`."""
    rotations: Tensor = torch.linalg.matrix_exp(skew(_wide(entries)) * alpha)
    return rotations


def inverse_cayley(rotations: Tensor) -> Tensor:
    """The entries [..., 28] of which `cayley` makes these rotations [..., 8, 8]; not finite, or huge, at an angle of pi."""
    identity = torch.eye(BLOCK, dtype=rotations.dtype, device=rotations.device)
    return entries_of(2 * torch.linalg.solve_ex(rotations + identity, rotations - identity).result)


def rotations_of(entries: Tensor, alpha: float, rotation_map: RotationMap) -> Tensor:
    """Rotations [..., 8, 8] of the so(8) entries [..., 28] by the map of that name."""
    return cayley(entries, alpha) if rotation_map == "cayley" else expm(entries, alpha)


def _wide(entries: Tensor) -> Tensor:
    return entries if entries.dtype == torch.float64 else entries.float()


def rotate(rotations: Tensor, x: Tensor) -> Tensor:
    """R x for column vectors: x [..., channels], rotations [channels / 8, 8, 8]; computed no narrower than fp32."""
    # One product a block, over all rows of x at once: einsum says the same and copies x first.
    blocks = x.to(rotations.dtype).reshape(-1, rotations.shape[0], BLOCK).transpose(0, 1)
    return torch.bmm(blocks, rotations.mT).transpose(0, 1).reshape(x.shape).to(x.dtype)


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
