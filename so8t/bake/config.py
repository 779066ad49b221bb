"""Config of bake."""

from typing import Annotated, Literal

from pydantic import Field

from so8t.section import Section

Quantization = Literal["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]


class Fold(Section):
    """Folding the adapters into a stock model."""

    name: Annotated[str, Field(pattern=r"(?i)phi-?3")] = "so8t-phi-3"
    """Model name; llama.cpp tokenises chat prompts rightly only where it contains phi-3 or phi3."""


class Quantize(Section):
    """One quantized file."""

    type: Quantization


class Bake(Section):
    """Bake-in, GGUF and the gates."""

    fold: Fold = Fold()
    quantizations: tuple[Quantization, ...] = ("Q8_0", "Q4_K_M")
    """Which quantized files are made beside F16."""

    def quantize(self, name: str) -> Quantize:
        """The section of one quantization."""
        return Quantize.model_validate({"type": name})
