"""Puts the adapters that a config describes around a frozen text model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from so8t.errors import InputError
from so8t.so8.adapter import Adapters, Placement, Setting
from so8t.so8.config import Adapter


def text_adapters(shape: Adapter, text: Any, where: str) -> Adapters:
    """Adapters on the linears of `text` (a Phi3Model); `where` names the config section in an error."""
    adapters = Adapters(Setting(lora_scale=shape.lora_scale, apply_to=shape.apply_to))
    placement = Placement(shape.output, shape.input, shape.rank)
    if placement == Placement(output=False):
        raise InputError(f"{where} places nothing", "output, input or a rank above 0")
    layers = range(len(text.layers))
    adapters.attach(text, "model.", {f"model.layers.{i}.{name}": placement for i in layers for name in shape.targets})
    return adapters


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
