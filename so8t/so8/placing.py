"""Puts the adapters that a config describes around a frozen text model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from so8t.errors import InputError
from so8t.so8.adapter import Adapters
from so8t.so8.config import Adapter
from so8t.so8.linear import Placement, Setting


def text_adapters(shape: Adapter, text: Any, where: str) -> Adapters:
    """Adapters on the linears of `text` (a Phi3Model); `where` names the config section in an error."""
    setting = Setting(lora_scale=shape.lora_scale, apply_to=shape.apply_to, rotation_map=shape.map)
    chosen = {
        place.target: Placement(place.output, place.input, place.rank) for place in map(shape.place, shape.targets)
    }
    if empty := [target for target, placement in chosen.items() if placement == Placement(output=False)]:
        raise InputError(f"{where} places nothing on {', '.join(empty)}", "output, input or a rank above 0")
    count = len(text.layers)
    layers = range(count) if shape.layers is None else shape.layers
    if absent := [layer for layer in layers if layer >= count]:
        raise InputError(f"{where}.layers names layer {absent[0]}", f"layers 0 to {count - 1}, which this base has")
    adapters = Adapters(setting)
    adapters.attach(
        text, "model.", {f"model.layers.{i}.{name}": place for i in layers for name, place in chosen.items()}
    )
    return adapters


def enable_recomputing(text: Any) -> None:
    """Have `recomputing` recompute activations in the backward pass."""
    # transformers 5.23 deprecates the name that 5.18 has.
    enable = getattr(text, "activation_checkpointing_enable", None) or text.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@contextmanager
def recomputing(layers: list[Any]) -> Iterator[None]:
    """Forward passes in the block keep only what gradient checkpointing leaves them.

    transformers recomputes in training mode only; the layers' children stay in evaluation mode, so that no
    dropout is switched on.
    """
    try:
        for layer in layers:
            layer.training = True
        yield
    finally:
        for layer in layers:
            layer.training = False
