"""The trained four-class classifier, as any step may use it: `Classifier.load(...).decide(texts)`.

Folder: adapter/ (so8t-adapter-1), head/head.safetensors, classifier.json, calibration.json. The base is not in it.
Legend: N texts, B rows of a batch, L tokens, C = 4 classes in the order of `Label`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from so8t import durable
from so8t.artifacts import MANIFEST
from so8t.batching import pad, positions_of
from so8t.calibration import Calibration, tempered
from so8t.classes import max_pool, mean_pool
from so8t.errors import InputError
from so8t.labels import LABEL_NAMES, Label, precedent
from so8t.models import load_base, load_tokenizer, pick_device, prompt_ids
from so8t.so8.saved import Saved

FORMAT = "so8t-four-class-1"
CLASSIFIER, CALIBRATION, HEAD = "classifier.json", "calibration.json", "head/head.safetensors"
Pooling = Literal["mean", "wide"]
# What classifier.json says of each.
POOLINGS: dict[Pooling, str] = {
    "mean": "mean of the last hidden states over the prompt's tokens, padding left out",
    "wide": "mean and maximum of the embeddings and of the last hidden states over the prompt's tokens, each normalised",
}


class Reader:
    """Token ids to class logits: text model, its states pooled over the prompt's tokens, linear head in fp32."""

    def __init__(self, text: Any, head: nn.Linear, pooling: Pooling = "mean") -> None:
        """`text`: a Phi3Model, adapters included."""
        self.text, self.head, self.pooling = text, head, pooling

    def __call__(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, C]."""
        device = self.head.weight.device
        ids, mask = pad(rows, 0).to(device), pad([[1] * len(row) for row in rows], 0).to(device)
        output = self.text(input_ids=ids, attention_mask=mask, position_ids=positions_of(mask), use_cache=False)
        states = output.last_hidden_state.float()
        logits: Tensor = self.head(self._wide(ids, states, mask) if self.pooling == "wide" else mean_pool(states, mask))
        return logits

    def _wide(self, ids: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """[B, 4 hidden]; what the tokens are beside what the model made of them, where the base knows little."""
        both = (self.text.get_input_embeddings()(ids).float(), states)
        pooled = [pool(part, mask) for part in both for pool in (mean_pool, max_pool)]
        return torch.cat([functional.layer_norm(one, one.shape[-1:]) for one in pooled], -1)

    @torch.no_grad()
    def probabilities(self, rows: Sequence[Sequence[int]], batch: int) -> Tensor:
        """[N, C] in fp64 on the CPU, in the order of the rows; like lengths go together."""
        found = torch.zeros(len(rows), len(Label), dtype=torch.float64)
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            found[part] = torch.softmax(self([rows[i] for i in part]).double(), -1).cpu()
        return found


class Classifier:
    """Deterministic: the same texts in the same batches give the same numbers on the same machine."""

    def __init__(
        self, reader: Reader, tokenizer: Any, calibration: Calibration, max_tokens: int, batch: int, content: str
    ) -> None:
        self._reader, self._tokenizer, self._max_tokens, self._batch = reader, tokenizer, max_tokens, batch
        self.calibration, self.content = calibration, content

    @classmethod
    def load(cls, folder: Path, base_folder: Path, device: str = "cpu", batch: int = 32) -> "Classifier":
        """From a four_class artifact and the base that it was trained on; InputError where they do not fit."""
        told = _json(folder / CLASSIFIER)
        if told.get("format") != FORMAT or told.get("classes") != list(LABEL_NAMES):
            raise InputError(
                f"{folder} holds {told.get('format')!r} with {told.get('classes')}", f"{FORMAT} with {LABEL_NAMES}"
            )
        _same_base(told, folder, base_folder)
        calibration = Calibration.from_json(_json(folder / CALIBRATION), str(folder / CALIBRATION))
        place = pick_device(device)  # type: ignore[arg-type]
        base = load_base(base_folder, told["base_dtype"], str(place))
        base.requires_grad_(False)
        Saved.read(folder / "adapter").attach(base.model, base).cache()
        state, pooling = load_file(folder / HEAD), _pooling(told, folder)
        head = new_head(base.config.hidden_size, pooling).to(place)
        if state["weight"].shape != head.weight.shape:
            raise InputError(
                f"{folder / HEAD} has the shape {tuple(state['weight'].shape)}", f"{tuple(head.weight.shape)}"
            )
        head.load_state_dict(state)
        head.requires_grad_(False)
        return cls(
            Reader(base.model, head, pooling), load_tokenizer(base_folder), calibration, int(told["max_seq_length"]), batch,
            content_of(folder),
        )  # fmt: skip

    def probabilities(self, texts: Sequence[str]) -> "np.ndarray":
        """Calibrated probabilities [N, C]."""
        return tempered(self._raw([ids for ids, _ in self._read(texts)]), self.calibration.temperature)

    def decide(self, texts: Sequence[str]) -> list[Label]:
        """One class a text; what could not be read whole is never ALLOW."""
        return [label for label, _ in self.judge(texts)]

    def judge(self, texts: Sequence[str]) -> list[tuple[Label, float]]:
        """As `decide`, with the calibrated probability of the class."""
        read = self._read(texts)
        raw = self._raw([ids for ids, _ in read])
        labels = [
            precedent([self.calibration.decide(row), Label.ESCALATION]) if cut else self.calibration.decide(row)
            for row, (_, cut) in zip(raw, read, strict=True)
        ]
        likely = np.nan_to_num(tempered(raw, self.calibration.temperature), nan=0.0, posinf=0.0, neginf=0.0)
        return [(label, float(row[label])) for label, row in zip(labels, likely, strict=True)]

    def _read(self, texts: Sequence[str]) -> list[tuple[list[int], bool]]:
        return [read_whole(self._tokenizer, text, self._max_tokens) for text in texts]

    def _raw(self, rows: list[list[int]]) -> "np.ndarray":
        found: np.ndarray = self._reader.probabilities(rows, self._batch).numpy()
        return found


def read_whole(tokenizer: Any, text: str, max_tokens: int) -> tuple[list[int], bool]:
    """Ids of the text in the chat template, and whether they had to be cut."""
    ids = prompt_ids(tokenizer, text)
    return ids[:max_tokens], len(ids) > max_tokens


def new_head(hidden: int, pooling: Pooling) -> nn.Linear:
    """On what the pooling gives of so wide a model."""
    return nn.Linear(hidden * (4 if pooling == "wide" else 1), len(Label))


def _pooling(told: dict[str, Any], folder: Path) -> Pooling:
    for name, described in POOLINGS.items():
        if told.get("pooling") == described:
            return name
    raise InputError(f"{folder / CLASSIFIER} pools by {told.get('pooling')!r}", f"one of {tuple(POOLINGS.values())}")


def content_of(folder: Path) -> str:
    """Content hash of the artifact; InputError for a folder that is none."""
    return str(_json(folder / MANIFEST)["content"])


def _same_base(told: dict[str, Any], folder: Path, base_folder: Path) -> None:
    if (base_folder / MANIFEST).is_file() and content_of(base_folder) != told["base_content"]:
        raise InputError(
            f"{folder} was trained on the base {told['base_content'][:12]}, not on {content_of(base_folder)[:12]}",
            "the same base", "choose a classifier of this base, or train one (so8t run --flow four_class)",
        )  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    try:
        value = durable.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"no file {path}", "the folder of a four_class artifact") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", "the folder of a four_class artifact") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}", "a JSON object")
    return value
