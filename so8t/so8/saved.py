"""An adapter folder: adapter.safetensors and adapter.json, in the format so8t-adapter-1."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from so8t import durable
from so8t.errors import InputError
from so8t.so8.adapter import EMBED_ROWS, Adapters, placements_of
from so8t.so8.linear import ApplyTo, Setting
from so8t.so8.rotation import MAPS, RotationMap

FORMAT = "so8t-adapter-1"
CONVENTION = (
    "column vectors: y = R_out (W + s B A) R_in x; R = (I - alpha A/2)^-1 (I + alpha A/2) where map is cayley, "
    "R = exp(alpha A) where it is expm; A skew, 8x8, "
    "its 28 upper-triangle entries row by row; block-diagonal over consecutive groups of 8 channels"
)
DESCRIPTION, TENSORS = "adapter.json", "adapter.safetensors"


@dataclass(frozen=True)
class Saved:
    """Tensors by file name, and all that it takes to compute with them."""

    state: Mapping[str, Tensor]
    alpha: float = 1.0
    rotation_map: RotationMap = "cayley"
    lora_scale: float = 1.0
    # The token rows lie in the order of these ids.
    token_ids: Mapping[str, int] = field(default_factory=dict)
    base_content: str = ""

    @classmethod
    def read(cls, folder: Path) -> "Saved":
        """InputError for a format that is not ours."""
        path = folder / DESCRIPTION
        if not path.is_file():
            raise InputError(f"there is no {path}", "an adapter folder, such as a train artifact's adapter/")
        told: dict[str, Any] = durable.read_json(path)
        if told.get("format") != FORMAT or told.get("map") not in MAPS:
            raise InputError(
                f"{folder}: adapter format {told.get('format')!r}, map {told.get('map')!r}",
                f"{FORMAT} with one of {', '.join(MAPS)}",
            )
        state = load_file(folder / TENSORS)
        return cls(state, told["alpha"], told["map"], told["lora_scale"], told["token_ids"], told["base_content"])

    @classmethod
    def of(cls, adapters: Adapters, token_ids: Mapping[str, int], base_content: str) -> "Saved":
        """What is live now."""
        setting = adapters.setting
        return cls(adapters.state(), setting.alpha, setting.rotation_map, setting.lora_scale, token_ids, base_content)

    def write(self, folder: Path) -> None:
        """Both files, durably."""
        write_tensors(folder / TENSORS, self.state)
        description = {
            "format": FORMAT, "alpha": self.alpha, "map": self.rotation_map, "lora_scale": self.lora_scale,
            "token_ids": dict(self.token_ids), "base_content": self.base_content, "convention": CONVENTION,
        }  # fmt: skip
        durable.write_json(folder / DESCRIPTION, description)

    def attach(self, text: nn.Module, with_head: nn.Module, apply_to: ApplyTo = "activations") -> Adapters:
        """Live adapters on `text` (a Phi3Model) and on the embedding and the head of `with_head`; InputError where they do not fit."""
        adapters = Adapters(Setting(self.alpha, self.lora_scale, apply_to=apply_to, rotation_map=self.rotation_map))
        adapters.attach(text, "model.", placements_of(self.state))
        if EMBED_ROWS in self.state:
            adapters.attach_rows(text, with_head, sorted(self.token_ids.values()))
        adapters.load(self.state)
        return adapters


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file in the order of the names."""
    contiguous = {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}
    durable.write_bytes(path, save_tensors(contiguous, {"format": "pt"}))
