"""The random generators of a process, as a checkpoint keeps them."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_all(seed: int) -> None:
    """Begin all of them; third-party code may draw from any."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def capture_rng() -> dict[str, Any]:
    """The state of every generator that is not derived from the seed at its use."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {"rng.torch": torch.get_rng_state(), "rng.numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64))}
    if torch.cuda.is_available():
        tensors |= {f"rng.cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return {
        "values": {
            "python": [version, list(words), gauss],
            "numpy": [name, int(position), int(has_gauss), float(cached)],
        },
        "tensors": tensors,
    }


def restore_rng(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Take over what `capture_rng` gave."""
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    name, position, has_gauss, cached = values["numpy"]
    keys = tensors["rng.numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))
    torch.set_rng_state(tensors["rng.torch"])
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        torch.cuda.set_rng_state_all([tensors[f"rng.cuda.{i}"] for i in range(count) if f"rng.cuda.{i}" in tensors])
