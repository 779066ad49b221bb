"""One frozen linear with rotations around it, y = R_out (W + s B A) R_in x + b, and what all of a model share.

The bias, where there is one, is not rotated. A plain linear is replaced by a module with the same `weight` and `bias`;
a quantised one is asked for its product.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from so8t.so8.generators import GENERATORS, blocks_of
from so8t.so8.rotation import RotationMap, rotate, rotate_columns, rotate_rows, rotations_of

ApplyTo = Literal["activations", "weights"]


@dataclass(frozen=True)
class Placement:
    """What is put on one linear."""

    output: bool = True
    input: bool = False
    rank: int = 0


@dataclass
class Setting:
    """Shared by all adapted modules of one model."""

    alpha: float = 1.0
    lora_scale: float = 1.0
    enabled: bool = True
    cached: bool = False
    merged: bool = False
    rotation_map: RotationMap = "cayley"
    # `activations` never builds a second weight (quantised bases, small memory); `weights` is far
    # cheaper where a batch has more tokens than the weight has columns. They agree to rounding.
    apply_to: ApplyTo = "activations"

    @property
    def live(self) -> bool:
        """Whether there is anything to add to what the weights say."""
        return self.enabled and not self.merged


class So8Linear(nn.Module):
    """A linear with rotations on its output and input side and a low-rank term, each optional."""

    weight: Tensor
    so8_out: nn.Parameter | None
    so8_in: nn.Parameter | None
    lora_a: nn.Parameter | None
    lora_b: nn.Parameter | None

    def __init__(self, linear: nn.Linear, placement: Placement, setting: Setting) -> None:
        super().__init__()
        self.setting, self.bias = setting, linear.bias
        # A subclass has another way to multiply, and its weight may be packed; only its bias is taken from it.
        self.inner = None if type(linear) is nn.Linear else linear
        if self.inner is None:
            self.weight = linear.weight
        else:
            self.inner.register_parameter("bias", None)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._plain: Tensor | None = None
        self._kept: tuple[Tensor | None, Tensor | None, Tensor | None] | None = None
        device = linear.weight.device

        def zeros(wanted: bool, *shape: int) -> nn.Parameter | None:
            return nn.Parameter(torch.zeros(*shape, device=device)) if wanted else None

        self.so8_out = zeros(placement.output, blocks_of(self.out_features) if placement.output else 0, GENERATORS)
        self.so8_in = zeros(placement.input, blocks_of(self.in_features) if placement.input else 0, GENERATORS)
        self.lora_a = zeros(placement.rank > 0, placement.rank, self.in_features)
        self.lora_b = zeros(placement.rank > 0, self.out_features, placement.rank)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        if not self.setting.live:
            return self._with_bias(self._product(x)) if self.inner else functional.linear(x, self.weight, self.bias)
        rotation_out, rotation_in, weight = self._kept if self._kept is not None else self._build()
        if weight is not None:
            return functional.linear(x, weight, self.bias)
        if rotation_in is not None:
            x = rotate(rotation_in, x)
        y = self._product(x)
        if self.lora_a is not None and self.lora_b is not None:
            y = self._with_low_rank(x, y, self.lora_a, self.lora_b)
        if rotation_out is not None:
            y = rotate(rotation_out, y)
        return self._with_bias(y)

    def _product(self, x: Tensor) -> Tensor:
        if self.inner is None:
            return functional.linear(x, self.weight)
        y: Tensor = self.inner(x)
        return y

    def _with_low_rank(self, x: Tensor, y: Tensor, lora_a: Tensor, lora_b: Tensor) -> Tensor:
        """y + s B A x in the type of y, as under autocast: on a bf16 base, products and one sum in fp32 cost a fifth."""
        narrow = functional.linear(x.reshape(-1, self.in_features), lora_a.to(y.dtype))
        wide = (self.setting.lora_scale * lora_b).to(y.dtype)
        return torch.addmm(y.reshape(-1, self.out_features), narrow, wide.mT).view(y.shape)

    def _with_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias

    def _build(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if self.setting.apply_to == "weights":
            return None, None, self._folded(torch.float32)
        out = None if self.so8_out is None else self._rotations(self.so8_out)
        return out, None if self.so8_in is None else self._rotations(self.so8_in), None

    def _rotations(self, entries: Tensor) -> Tensor:
        return rotations_of(entries, self.setting.alpha, self.setting.rotation_map)

    def _folded(self, dtype: torch.dtype) -> Tensor:
        """R_out (W + s B A) R_in [out, in], computed in `dtype`, in the weight's own type."""
        weight = self.weight.to(dtype)
        if self.lora_a is not None and self.lora_b is not None:
            weight = weight + self.setting.lora_scale * (self.lora_b.to(dtype) @ self.lora_a.to(dtype))
        if self.so8_in is not None:
            weight = rotate_columns(weight, self._rotations(self.so8_in.to(dtype)))
        if self.so8_out is not None:
            weight = rotate_rows(self._rotations(self.so8_out.to(dtype)), weight)
        return weight.to(self.weight.dtype)

    def merge(self) -> None:
        """Put the folded weight, from float64 and cast once, in the place of the plain one, which is kept on the host."""
        folded = self._folded(torch.float64)
        self._plain, self.weight.data = self.weight.data.cpu(), folded

    def unmerge(self) -> None:
        """Put the plain weight back, the very bytes; nothing where none was taken away."""
        if self._plain is not None:
            self.weight.data, self._plain = self._plain.to(self.weight.device), None

    def keep(self, on: bool) -> None:
        """Build the rotations (or the weight) once and reuse them, or stop doing so."""
        self._kept = None
        if on:
            with torch.no_grad():
                self._kept = self._build()
