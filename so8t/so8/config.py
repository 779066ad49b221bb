"""Config of the adapters that a step puts around a frozen text model."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from so8t.section import Section

TextLinear = Literal["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"]


def _ranges(value: Any) -> Any:
    """ "8-11,30" -> (8, 9, 10, 11, 30); anything else is left to the type."""
    if not isinstance(value, str):
        return value
    numbers: set[int] = set()
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        numbers.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(numbers))


Layers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), BeforeValidator(_ranges)]


class Place(Section):
    """What one of the targets gets in every chosen layer."""

    target: TextLinear
    """Which of the targets."""
    output: bool = True
    """SO(8) rotations on the output side, y = R(Wx)."""
    input: bool = False
    """SO(8) rotations on the input side, y = W(Rx)."""
    rank: Annotated[int, Field(ge=0)] = 0
    """Rank of the additional low-rank term BA; 0 leaves it out."""


class Adapter(Section):
    """What is put around the frozen base's linears."""

    targets: Annotated[tuple[TextLinear, ...], Field(min_length=1)] = ("self_attn.o_proj", "mlp.down_proj")
    """Fused linears that get an adapter."""
    layers: Layers | None = None
    """Layers that get adapters, counted from 0: a list, or ranges as in "8-23,31"; all of them by default."""
    output: bool = True
    """SO(8) rotations on the output side, y = R(Wx)."""
    input: bool = False
    """SO(8) rotations on the input side, y = W(Rx)."""
    rank: Annotated[int, Field(ge=0)] = 0
    """Rank of the additional low-rank term BA; 0 leaves it out."""
    placements: tuple[Place, ...] = ()
    """What some of the targets get instead of output, input and rank."""
    map: Literal["cayley", "expm"] = "cayley"
    """From generators to rotations: the exact Cayley map, or the matrix exponential (ten times dearer)."""
    lora_scale: Annotated[float, Field(gt=0)] = 2.0
    """Factor s of the low-rank term."""
    apply_to: Literal["activations", "weights"] = "activations"
    """Rotate activations (no second weight in memory) or build the adapted weight (cheaper for small models)."""
    base_dtype: Literal["float32", "bfloat16", "nf4"] = "bfloat16"
    """Type of the frozen base while training; adapters are fp32 always. nf4 needs the extra of that name."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, a third more work."""
    monitor_steps: Annotated[int, Field(ge=1)] = 50
    """Optimizer steps between two looks at how far the rotations are from SO(8)."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.base_dtype == "nf4" and self.apply_to == "weights":
            raise ValueError("apply_to: weights cannot rotate an nf4 base; set apply_to: activations")
        placed = [place.target for place in self.placements]
        if odd := sorted(set(placed) - set(self.targets)):
            raise ValueError(f"placements names {', '.join(odd)}, which targets does not")
        if len(placed) != len(set(placed)):
            raise ValueError(f"placements names a target twice: {', '.join(placed)}")
        return self

    def place(self, target: TextLinear) -> Place:
        """What this target gets."""
        own = {place.target: place for place in self.placements}
        return own.get(target) or Place(target=target, output=self.output, input=self.input, rank=self.rank)
