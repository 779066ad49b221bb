"""The systems that are compared: A is the base, B the base with live adapters.

Both read the tokenizer that training wrote, so that the same text has the same ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from so8t.so8.adapter import Adapters, placements_of
from so8t.so8.linear import ApplyTo, Setting
from so8t.so8.saved import Saved
from so8t.so8.vit import TOWER, Vision, join, load_vision_file


@dataclass
class System:
    """A model that can be asked, with what belongs to it."""

    model: Any  # LlavaForConditionalGeneration
    tokenizer: Any
    vision: Vision
    text_adapters: Adapters | None = None
    vision_adapters: Adapters | None = None

    def pixel_values(self, images: Sequence[bytes]) -> Tensor:
        """Encoded images -> [n, 3, size, size] on the model's device."""
        pixels: Tensor = self.vision.pixel_values(images).to(self.model.lm_head.weight.device)
        return pixels


def load_system(
    base_folder: Path,
    train_folder: Path,
    adapted: bool,
    device: str = "cpu",
    apply_to: ApplyTo = "activations",
) -> System:
    """Load system B (`adapted`) or system A, in fp32, ready for inference.

    A is the base with the tower and the projector as they were initialised. InputError where the folder
    holds another adapter format.
    """
    from so8t.models import load_base, load_tokenizer

    vision = Vision.read(train_folder / "vision" / "config.json")
    base = load_base(base_folder, "float32", device)
    model = join(base, vision)
    load_vision_file(model, train_folder / "vision" / ("model.safetensors" if adapted else "initial.safetensors"))
    system = System(model, load_tokenizer(train_folder / "tokenizer"), vision)
    if adapted:
        system.text_adapters = Saved.read(train_folder / "adapter").attach(model.model.language_model, model, apply_to)
        system.text_adapters.cache()
        system.vision_adapters = _vision_adapters(model, train_folder / "vision", vision, apply_to)
    model.requires_grad_(False)
    model.eval()
    return system


def _vision_adapters(model: Any, folder: Path, vision: Vision, apply_to: ApplyTo) -> Adapters:
    state = load_file(folder / "adapter.safetensors")
    adapters = Adapters(Setting(vision.alpha, apply_to=apply_to, rotation_map=vision.map))
    adapters.attach(model.model.vision_tower, TOWER, placements_of(state))
    adapters.load(state)
    adapters.cache()
    return adapters
