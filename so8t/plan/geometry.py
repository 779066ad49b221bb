"""The shapes of base and tower, without a weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from so8t.errors import InputError
from so8t.train.config import Vision

# config.json of Phi-3.5-mini as Microsoft published it (MIT); Borea is trained from it and keeps every shape.
PHI35_MINI = {
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 8192,
    "vocab_size": 32064,
}


@dataclass(frozen=True)
class Geometry:
    """A Phi-3 model's shape, and where it was read."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    origin: str

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(out, in) of each fused linear of a layer, under the names that train.adapter.targets uses."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        return {
            "self_attn.qkv_proj": (qkv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_up_proj": (2 * self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }

    @property
    def linear_parameters(self) -> int:
        """All layers' linears."""
        return self.layers * sum(out * into for out, into in self.linears.values())

    @property
    def row_parameters(self) -> int:
        """Embedding and head, untied, and the norms."""
        return 2 * self.vocabulary * self.hidden + (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """Of the whole base."""
        return self.linear_parameters + self.row_parameters


def of_json(config: Mapping[str, Any], origin: str) -> Geometry:
    """From a config.json; InputError for one that is no Phi-3's."""
    try:
        heads = int(config["num_attention_heads"])
        return Geometry(
            int(config["hidden_size"]), int(config["num_hidden_layers"]), heads,
            int(config.get("num_key_value_heads") or heads), int(config["intermediate_size"]),
            int(config["vocab_size"]), origin,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{origin}: {error}", "the config.json of a Phi-3 model") from None


@dataclass(frozen=True)
class TowerShape:
    """SO8ViT's shape as parameter counts, and its tokens an image."""

    tower: int
    projector: int
    tokens: int
    linears: tuple[tuple[int, int], ...]
    layers: int

    @property
    def parameters(self) -> int:
        """Tower and projector."""
        return self.tower + self.projector


def tower_of(vision: Vision, geometry: Geometry) -> TowerShape:
    """A SigLIP-shaped tower without head, and the two-layer projector, all linears with a bias."""
    width, wide = vision.hidden, vision.intermediate
    tokens = (vision.image_size // vision.patch_size) ** 2
    linears = (*((width, width),) * 4, (wide, width), (width, wide))
    block = sum(out * into + out for out, into in linears) + 4 * width
    patches = 3 * vision.patch_size**2 * width + width + tokens * width
    projector = (width + 1 + geometry.hidden + 1) * geometry.hidden
    return TowerShape(patches + vision.layers * block + 2 * width, projector, tokens, linears, vision.layers)
