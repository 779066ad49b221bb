"""Config of the adapters that a step puts around a frozen text model."""

from typing import Annotated, Literal

from pydantic import Field

from so8t.section import Section

TextLinear = Literal["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"]


class Adapter(Section):
    """What is put around the frozen base's linears."""

    targets: Annotated[tuple[TextLinear, ...], Field(min_length=1)] = ("self_attn.o_proj", "mlp.down_proj")
    """Fused linears that get an adapter, in every layer."""
    output: bool = True
    """SO(8) rotations on the output side, y = R(Wx)."""
    input: bool = False
    """SO(8) rotations on the input side, y = W(Rx)."""
    rank: Annotated[int, Field(ge=0)] = 0
    """Rank of the additional low-rank term BA; 0 leaves it out."""
    lora_scale: Annotated[float, Field(gt=0)] = 2.0
    """Factor s of the low-rank term."""
    apply_to: Literal["activations", "weights"] = "activations"
    """Rotate activations (no second weight in memory) or build the adapted weight (cheaper for small models)."""
    base_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the frozen base while training; adapters are fp32 always."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, a third more work."""
