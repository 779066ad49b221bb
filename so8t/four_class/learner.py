"""What is trained: adapters and a linear head around a frozen base, with Adam's state and the best state so far.

Legend: B rows, L tokens, C = 4 classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from so8t.classifier import Reader, new_head, read_whole
from so8t.four_class.config import FourClass
from so8t.four_class.rows import Row
from so8t.loop.microbatch import MicroBatch
from so8t.loop.phase import Optimizer, under
from so8t.models import load_base, load_tokenizer
from so8t.so8.adapter import Adapters
from so8t.so8.placing import enable_recomputing, recomputing, text_adapters


@dataclass(frozen=True)
class Sample:
    """A row as token ids; `cut` says that it was longer than max_seq_length."""

    row: Row
    ids: list[int]
    cut: bool


class Learner:
    """One optimizer serves all phases, so its state belongs here; `best` holds a copy of the trained tensors."""

    def __init__(
        self, config: FourClass, reader: Reader, adapters: Adapters, tokenizer: Any, device: torch.device
    ) -> None:
        self.config, self.reader, self.adapters, self.tokenizer = config, reader, adapters, tokenizer
        self.device = device
        self.layers = list(reader.text.layers) if config.adapter.gradient_checkpointing else []
        self.trained: dict[str, nn.Parameter] = {f"text.{name}": p for name, p in adapters.parameters().items()}
        self.trained |= {"head.weight": reader.head.weight, "head.bias": reader.head.bias}  # type: ignore[dict-item]
        # Looked up now: the parameters borrow the best state's memory for a while, and a signal may come just then.
        self._own = {name: p.detach() for name, p in self.trained.items()}
        self.best = {name: p.detach().clone() for name, p in self.trained.items()}
        self.best_score = torch.full((), -1.0, dtype=torch.float64)
        self.best_step = torch.zeros((), dtype=torch.int64)
        self.optimizer = self._optimizer()
        batch = config.micro_batch * config.gradient_accumulation_steps
        self.micro = MicroBatch(config.micro_batch, batch=batch)

    def _optimizer(self) -> Optimizer:
        c = self.config
        text = {name: p for name, p in self.trained.items() if name.startswith("text.")}
        return Optimizer(
            [
                (text, c.learning_rate, c.weight_decay),
                ({"head.weight": self.trained["head.weight"]}, c.head_learning_rate, c.weight_decay),
                ({"head.bias": self.trained["head.bias"]}, c.head_learning_rate, 0.0),
            ],
            c.adam_epsilon,
            (c.adam_beta1, c.adam_beta2),
        )

    def tensors(self) -> dict[str, Tensor]:
        """See `Trainee`."""
        return {
            **self._own,
            **{f"best.{name}": tensor for name, tensor in self.best.items()},
            "best_score": self.best_score,
            "best_step": self.best_step,
            "micro_batch": torch.tensor(self.micro.size),
            **self.optimizer.tensors(),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Trainee`."""
        for name, parameter in self.trained.items():
            parameter.data.copy_(tensors[name])
        for name, tensor in self.best.items():
            tensor.copy_(under("best.", tensors)[name])
        self.best_score.copy_(tensors["best_score"])
        self.best_step.copy_(tensors["best_step"])
        self.micro.restore(int(tensors["micro_batch"]))
        self.optimizer.restore(tensors)

    def keep_if_best(self, score: float, step: int) -> bool:
        """Copy the trained tensors where the score is the highest so far; of equal ones the first stays."""
        if score <= float(self.best_score):
            return False
        for name, parameter in self.trained.items():
            self.best[name].copy_(parameter.detach())
        self.best_score.fill_(score)
        self.best_step.fill_(step)
        return True

    def take_best(self) -> None:
        """The trained tensors become the best ones."""
        for name, parameter in self.trained.items():
            parameter.data.copy_(self.best[name])

    @contextmanager
    def as_best(self) -> Iterator[None]:
        """The best state for the time of the block; the trained tensors themselves are not written."""
        mine = {name: parameter.data for name, parameter in self.trained.items()}
        try:
            for name, parameter in self.trained.items():
                parameter.data = self.best[name]
            yield
        finally:
            for name, parameter in self.trained.items():
                parameter.data = mine[name]

    def logits(self, samples: Sequence[Sample]) -> Tensor:
        """[B, C], with gradients."""
        with recomputing(self.layers):
            return self.reader([sample.ids for sample in samples])

    @torch.no_grad()
    def probabilities(self, samples: Sequence[Sample]) -> Tensor:
        """[N, C] in fp64 on the CPU, in the order of the samples."""
        with self.adapters.cached():
            return self.reader.probabilities([sample.ids for sample in samples], self.config.evaluation_batch)

    def encode(self, rows: Sequence[Row]) -> list[Sample]:
        """Prompts in the base's chat template, cut to max_seq_length."""
        return [Sample(row, *read_whole(self.tokenizer, row.prompt, self.config.max_seq_length)) for row in rows]


def build(config: FourClass, base_folder: Path, device: torch.device) -> Learner:
    """Assemble; new tensors are drawn from the seed alone."""
    base = load_base(base_folder, config.adapter.base_dtype, str(device))
    base.requires_grad_(False)
    if config.adapter.gradient_checkpointing:
        enable_recomputing(base.model)
    adapters = text_adapters(config.adapter, base.model, "four_class.adapter")
    adapters.init_low_rank(torch.Generator().manual_seed(config.seed))
    head = new_head(base.config.hidden_size, config.pooling).to(device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return Learner(config, Reader(base.model, head, config.pooling), adapters, load_tokenizer(base_folder), device)
