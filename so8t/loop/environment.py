"""What a training's numbers depend on beside its inputs: set at its start, and written into its checkpoints."""

import importlib.metadata
import os
from typing import TYPE_CHECKING, Any

import torch

from so8t.artifacts import hash_json
from so8t.loop import ranks
from so8t.models import pick_device
from so8t.resident import give_back_freed_memory
from so8t.section import Section

if TYPE_CHECKING:
    from so8t.config import Machine

# Same numbers need the same of these.
FINGERPRINTED = ("torch", "transformers", "numpy", "tokenizers", "safetensors")

GIVEN_BACK_FROM_BYTES = 4 << 20


def prepare(machine: "Machine") -> torch.device:
    """Threads, memory and determinism of this process; the device to train on, of several processes each its own GPU."""
    give_back_freed_memory(GIVEN_BACK_FROM_BYTES)
    torch.set_num_threads(machine.threads or max(1, (os.cpu_count() or 1) // ranks.started()))
    ranks.see_own_gpu()
    device = pick_device(machine.device)
    if device.type == "cuda":
        # cuBLAS is deterministic only with a workspace of fixed size (PyTorch, reproducibility notes).
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return device


def fingerprint(config: Section, device: torch.device) -> dict[str, Any]:
    """Config, threads, device and packages."""
    return {
        "config": hash_json(config.model_dump(mode="json")),
        "threads": torch.get_num_threads(),
        "processes": ranks.started(),
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        "packages": {name: importlib.metadata.version(name) for name in FINGERPRINTED},
    }
