"""The live adapter model: what training left, before anything is folded, in fp32 on the CPU.

An adapter of ours computes as it did in training (`so8/linear.py`); PEFT's, where PEFT may not be installed, by its
own formula, y = (W + s B A) R x.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from so8t import models
from so8t.bake.material import Material
from so8t.bake.reference import load_live
from so8t.so8.adapted import System
from so8t.so8.merge import Adapter, Change, Floats64


class LinearAsPeft(nn.Module):
    """A frozen linear with PEFT's change beside it, unfolded."""

    def __init__(self, linear: nn.Linear, change: Change) -> None:
        super().__init__()
        self.linear = linear
        self.r_in, self.lora_a, self.lora_b = (_narrow(part) for part in (change.r_in, change.lora_a, change.lora_b))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        if self.r_in is not None:
            blocks = x.reshape(*x.shape[:-1], *self.r_in.shape[:2])
            x = torch.einsum("kij,...kj->...ki", self.r_in, blocks).flatten(-2)
        y: Tensor = self.linear(x)
        if self.lora_a is not None and self.lora_b is not None:
            y = y + functional.linear(functional.linear(x, self.lora_a), self.lora_b)
        return y


def _narrow(part: Floats64 | None) -> Tensor | None:
    return None if part is None else torch.from_numpy(part.astype(np.float32))


@contextmanager
def live_system(material: Material) -> Iterator[System]:
    """Text and images; its memory is free again behind the block."""
    assert material.vision is not None
    system = load_live(material.base, material.vision.parent)
    try:
        yield system
    finally:
        system.model = None
        gc.collect()


def load_text(material: Material, dtype: models.Dtype = "float32") -> Any:
    """The language model alone with its live adapter; nf4 is the base as some trainings saw it."""
    model = models.load_base(material.base, dtype)
    if material.is_peft:
        attach_peft(model, material.text.adapter)
    else:
        from so8t.so8.saved import Saved

        Saved.read(material.adapter).attach(model.model, model).cache()
    return model.requires_grad_(False).eval()


def attach_peft(model: Any, adapter: Adapter) -> None:
    """Put PEFT's changes on their linears, and its rows into embedding and head."""
    for name, change in adapter.changes.items():
        path = name.removesuffix(".weight")
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, LinearAsPeft(model.get_submodule(path), change))
    with torch.no_grad():
        for name, rows in adapter.token_rows.items():
            model.get_parameter(name)[list(adapter.token_ids)] = torch.from_numpy(rows.astype(np.float32))
