"""bake.imatrix: how large the inputs of each linear are, column by column, so that quantizing errs where it matters least.

The folded model reads chats of the training split in transformers, fp32, on the CPU; of each linear's input x the mean
of x^2 by column is kept, which is what llama.cpp weighs a row's rounding errors by.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import torch

from so8t import models, records
from so8t.bake.config import Imatrix
from so8t.bake.imatrix_file import FILE, write
from so8t.bake.material import material_of
from so8t.bake.reference import load_folded
from so8t.errors import InputError, StepFailed
from so8t.progress import Progress

if TYPE_CHECKING:
    from so8t.step import Facts, Inputs


def run(config: Imatrix, inputs: "Inputs", out: Path, progress: Progress) -> "Facts":
    """Write imatrix.gguf; InputError where the training split has no text, StepFailed where a linear read nothing."""
    started = time.monotonic()
    if progress.machine.threads:
        torch.set_num_threads(progress.machine.threads)
    material = material_of(inputs)
    tokenizer = models.load_tokenizer(material.tokenizer)
    ids = read_chats(inputs["data"].path / "train.parquet", tokenizer, config)
    model = load_folded(material.base, material.text)
    with torch.inference_mode(), watched(model) as sums:
        for number, row in enumerate(ids):
            model(input_ids=torch.tensor([row]))
            progress.update(number + 1, len(ids), "reading chats")
    tokens = sum(map(len, ids))
    write(out / FILE, {name: total.numpy() for name, total in sums.items()}, tokens, config.tokens_max)
    return {
        "chats": len(ids),
        "tokens": tokens,
        "tensors": len(sums),
        "seconds": round(time.monotonic() - started, 3),
    }


def read_chats(path: Path, tokenizer: Any, config: Imatrix) -> list[list[int]]:
    """Token ids of whole chats. Which ones, a hash of their ids decides: every source and class by its share."""
    rows = [row for row in records.read(path) if row.modality == "text" and row.response]
    if not rows:
        raise InputError(f"{path} has no text with a reply", "some, to weigh the columns by")
    rows.sort(key=lambda row: hashlib.sha256(row.id.encode("utf-8")).hexdigest())
    return [models.chat_ids(tokenizer, row.prompt, row.response)[: config.tokens_max] for row in rows[: config.chats]]


@contextmanager
def watched(model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Give sums of x^2 by GGUF tensor name, `[columns]` in fp64; they grow with every forward pass inside."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.PHI3, model.config.num_hidden_layers)
    sums: dict[str, torch.Tensor] = {}
    hooks = []
    for module_name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        name = names.get_name(f"{module_name}.weight", try_suffixes=(".weight",))
        if name is None:
            raise StepFailed(f"{module_name} has no name in a GGUF")
        sums[name] = torch.zeros(module.in_features, dtype=torch.float64)
        hooks.append(module.register_forward_pre_hook(_adder(sums[name])))
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


def _adder(total_C: torch.Tensor) -> Any:
    def add(module: Any, given: tuple[torch.Tensor, ...]) -> None:
        total_C.add_(given[0].double().square().flatten(0, -2).sum(0))

    return add
