"""What the GGUFs are measured against: the live adapter model, and the folded weights in transformers.

Both run in fp32 on the CPU: parity is a question of rounding, and a GPU's tensor cores round to fewer bits.
The two models are never in memory together; their logits are (texts x tokens x vocabulary x 4 bytes, twice).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from so8t import models, records
from so8t.bake.config import Gates
from so8t.bake.parity import Floats
from so8t.errors import InputError
from so8t.so8.adapted import System, load_system
from so8t.so8.merge import Folded

# Done, of how many.
Report = Callable[[int, int], object]


def unheard(done: int, total: int) -> None:
    """Where nobody wants to know."""


@dataclass(frozen=True)
class Chats:
    """Validation material: token ids of whole chats, and images with their prompts."""

    ids: list[list[int]]
    prompts: list[str]
    images: list[records.Record]


def read_chats(data: Path, tokenizer: Any, gates: Gates) -> Chats:
    """The first rows of the validation split, by id; InputError where it has no text or no image."""
    rows = sorted(records.read(data / "validation.parquet"), key=lambda row: row.id)
    texts = [row for row in rows if row.modality == "text"]
    # Digits before tones: a digit's picture says most about the tower.
    images = [row for row in sorted(rows, key=lambda row: row.modality != "image") if row.image]
    if not texts or not images:
        raise InputError(f"{data} has {len(texts)} texts and {len(images)} images for validation", "some of each")
    ids = [models.chat_ids(tokenizer, row.prompt, row.response)[: gates.tokens_max] for row in texts[: gates.texts]]
    return Chats(ids, [row.prompt for row in texts], images[: gates.images])


@dataclass(frozen=True)
class Answer:
    """A greedy answer about an image, and the logits `[positions, vocab]` that chose it."""

    ids: list[int]
    logits: Floats


@dataclass(frozen=True)
class Live:
    """What the live adapter model says."""

    logits: list[Floats]
    embeddings: list[Floats]  # [tokens, hidden] of each image
    answer: Answer | None  # where there are images


@torch.inference_mode()
def ask_live(system: System, chats: Chats, stop: list[int], answer_tokens_max: int, report: Report = unheard) -> Live:
    """Logits of every chat, embeddings of every image, and a greedy answer about the first image."""
    pixels = system.pixel_values([row.image for row in chats.images])
    features = system.model.get_image_features(pixel_values=pixels).pooler_output
    return Live(
        logits=ask_folded(system.model, chats, report),
        embeddings=[feature.numpy() for feature in features],
        answer=_answer(system, chats.images[0], stop, answer_tokens_max),
    )


def _answer(system: System, row: records.Record, stop: list[int], tokens_max: int) -> Answer:
    pixels = system.pixel_values([row.image])
    ids = models.prompt_ids(system.tokenizer, row.prompt, system.vision.tokens)
    chosen: list[int] = []
    rows: list[Floats] = []
    for _ in range(tokens_max):
        last = _logits(system.model, ids + chosen, pixel_values=pixels)[-1]
        rows.append(last)
        # A generated <image> would ask transformers for a second picture.
        if int(last.argmax()) in (*stop, system.vision.image_token_id):
            break
        chosen.append(int(last.argmax()))
    return Answer(chosen, np.stack(rows))


def load_live(base: Path, train: Path) -> System:
    """The base with its live adapters, fp32, on the CPU."""
    return load_system(base, train, adapted=True, device="cpu")


def load_folded(base: Path, folded: Folded, report: Report = unheard) -> Any:
    """The base in fp32 with the weights folded from float64 put in its place."""
    model = models.load_base(base, "float32")
    names = [name for name in folded.base.names() if folded.adapter.touches(name)]
    with torch.no_grad():
        for number, name in enumerate(names, 1):
            model.get_parameter(name).copy_(torch.from_numpy(folded.whole(name).astype(np.float32)))
            report(number, len(names))
    return model


@torch.inference_mode()
def ask_folded(model: Any, chats: Chats, report: Report = unheard) -> list[Floats]:
    """Logits of every chat."""
    found = []
    for number, ids in enumerate(chats.ids, 1):
        found.append(_logits(model, ids))
        report(number, len(chats.ids))
    return found


def _logits(model: Any, ids: list[int], **more: Any) -> Floats:
    logits: Floats = model(input_ids=torch.tensor([ids]), **more).logits[0].float().numpy()
    return logits
