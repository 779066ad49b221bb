"""The files of the train artifact."""

import json
from pathlib import Path

from so8t import durable
from so8t.labels import LABEL_NAMES
from so8t.loop.trainer import Trainer
from so8t.so8.saved import Saved, write_tensors
from so8t.so8.vit import vision_state
from so8t.train.learner import Learner


def export(learner: Learner, trainer: Trainer, out: Path, base_content: str) -> None:
    """Write everything but the tokenizer, which lies there since the start."""
    Saved.of(learner.text, learner.token_ids, base_content).write(out / "adapter")
    _vision(learner, out / "vision")
    head = {"weight": learner.head.weight.detach().cpu().clone(), "bias": learner.head.bias.detach().cpu().clone()}
    write_tensors(out / "head" / "head.safetensors", head)
    description = {"classes": list(LABEL_NAMES), "pooling": "mean of the last hidden states over the prompt's tokens"}
    durable.write_json(out / "head" / "head.json", description)
    durable.write_json(out / "metrics.json", trainer.metrics)
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in trainer.history)
    durable.write_text(out / "history.jsonl", lines)


def _vision(learner: Learner, folder: Path) -> None:
    write_tensors(folder / "model.safetensors", vision_state(learner.model))
    write_tensors(folder / "initial.safetensors", learner.initial_vision)
    write_tensors(folder / "adapter.safetensors", learner.sight.state())
    learner.vision.write(folder / "config.json")
