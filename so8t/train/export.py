"""The files of the train artifact."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from so8t import durable
from so8t.labels import LABEL_NAMES
from so8t.loop.trainer import Trainer
from so8t.so8.adapted import CONVENTION, FORMAT
from so8t.so8.vit import vision_state
from so8t.train.learner import Learner


def export(learner: Learner, trainer: Trainer, out: Path, base_content: str) -> None:
    """Write everything but the tokenizer, which lies there since the start."""
    _adapter(learner, out / "adapter", base_content)
    _vision(learner, out / "vision")
    head = {"weight": learner.head.weight.detach().cpu().clone(), "bias": learner.head.bias.detach().cpu().clone()}
    _tensors(out / "head" / "head.safetensors", head)
    description = {"classes": list(LABEL_NAMES), "pooling": "mean of the last hidden states over the prompt's tokens"}
    durable.write_json(out / "head" / "head.json", description)
    durable.write_json(out / "metrics.json", trainer.metrics)
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in trainer.history)
    durable.write_text(out / "history.jsonl", lines)


def _adapter(learner: Learner, folder: Path, base_content: str) -> None:
    _tensors(folder / "adapter.safetensors", learner.text.state())
    description: dict[str, Any] = {
        "format": FORMAT,
        "alpha": learner.text.setting.alpha,
        "map": learner.text.setting.rotation_map,
        "lora_scale": learner.text.setting.lora_scale,
        "token_ids": learner.token_ids,
        "base_content": base_content,
        "convention": CONVENTION,
    }
    durable.write_json(folder / "adapter.json", description)


def _vision(learner: Learner, folder: Path) -> None:
    _tensors(folder / "model.safetensors", vision_state(learner.model))
    _tensors(folder / "initial.safetensors", learner.initial_vision)
    _tensors(folder / "adapter.safetensors", learner.sight.state())
    learner.vision.write(folder / "config.json")


def _tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}
    durable.write_bytes(path, save_tensors(contiguous, {"format": "pt"}))
