"""Phase `warmup`: supervised training on the reference replies.

Adapters, token rows, the projector and the tower's rotations learn; the loss is on the reply only, and
class and answer tokens weigh more, because most of a reply is fixed text. Alpha of all rotations rises
linearly and then stays at 1: alpha and the scale of A are redundant, so alpha is never learnt.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from so8t.batching import indices
from so8t.labels import Label
from so8t.loop import ranks
from so8t.loop.microbatch import MicroBatch
from so8t.loop.phase import Commit, Metrics, OneOptimizer, Optimizer, warmup_cosine
from so8t.plan.memory import warmup_need
from so8t.so8.adapter import EMBED_ROWS, HEAD_ROWS
from so8t.train.config import Train
from so8t.train.data import Sample, require
from so8t.train.evaluate import measure
from so8t.train.learner import Learner, projector_parameters
from so8t.train.microbatch import first_size

# A tenth of the peak at the end: PPO goes on from a model that has settled.
FLOOR = 0.1
SHADE_SEED = 101


class Warmup(OneOptimizer):
    """See the module."""

    name = "warmup"

    def __init__(self, learner: Learner, config: Train, train: Sequence[Sample], held_out: Sequence[Sample]) -> None:
        self.learner, self.config, self.held_out = learner, config.warmup, held_out
        self.seed, self.steps = config.seed, config.warmup.steps
        most = max(config.warmup.batch_text, config.warmup.batch_image)
        base = learner.model.config.text_config
        size = first_size(config.warmup.micro_batch, most, warmup_need, config, base, learner.device)
        self.micro = MicroBatch(size, batch=self.config.batch_text + self.config.batch_image)
        fitting = [sample for sample in train if len(sample.ids) <= config.warmup.max_tokens]
        self.left_out = len(train) - len(fitting)
        self.shown = [sample for sample in fitting if sample.record.image]
        self.rows = len(fitting)
        written = [sample for sample in fitting if not sample.record.image]
        self.by_class = [group for label in Label if (group := [s for s in written if s.record.label == label])]

    def begin(self) -> None:
        """Build the optimizer; alpha is a function of the position."""
        if self.steps and self.config.batch_image:
            require(self.shown, "image or audio rows for train")
        if self.steps and self.config.batch_text:
            require(self.by_class, "text rows for train")
        text = self.learner.text.parameters()
        rows = {name: text.pop(name) for name in (EMBED_ROWS, HEAD_ROWS)}
        rate, decay = self.config.learning_rate, self.config.weight_decay
        groups = [(text, rate, decay), (rows, self.config.rows_learning_rate, 0.0)]
        if self.config.batch_image:
            sight = {f"sight.{name}": p for name, p in self.learner.sight.parameters().items()}
            groups.append((projector_parameters(self.learner), self.config.projector_learning_rate, 0.0))
            groups += [(sight, self.config.projector_learning_rate, 0.0)] if sight else []
        self.optimizer = Optimizer(groups)

    def step(self, position: int) -> Commit:
        """One optimizer step over a text part and an image part."""
        self._set_alpha(position)
        parts = [self._text_part(position), self._image_part(position)]
        losses = self.micro.attempt(lambda size: self._gradients(parts, size))
        norm = self.optimizer.clip(self.config.max_grad_norm)
        tokens = sum(len(sample.ids) for part in parts for sample in part)

        def commit() -> Metrics:
            self.optimizer.step(warmup_cosine(position, self.steps, FLOOR))
            return {
                **self.micro.commit(),
                "loss": sum(losses),
                "loss_text": losses[0],
                "loss_image": losses[1],
                "grad_norm": norm,
                "tokens": tokens,
                "epoch": (position + 1) * sum(map(len, parts)) / self.rows,
            }

        return commit

    def _gradients(self, parts: list[list[Sample]], micro_batch: int) -> list[float]:
        self.optimizer.zero_grad()
        losses = [accumulate(self.learner, part, micro_batch) for part in parts]
        self.optimizer.add_up()
        return losses

    def _set_alpha(self, position: int) -> None:
        ramp = self.config.alpha_ramp * self.steps
        share = min(1.0, position / ramp) if ramp else 1.0
        alpha = self.config.alpha_start + (1 - self.config.alpha_start) * share
        self.learner.text.setting.alpha = self.learner.sight.setting.alpha = alpha

    def _text_part(self, position: int) -> list[Sample]:
        """As many of each class, so that the rarest counts as much as the commonest."""
        share = -(-self.config.batch_text // max(1, len(self.by_class)))
        picked = [
            group[i]
            for number, group in enumerate(self.by_class)
            for i in indices(len(group), self.seed + SHADE_SEED * (number + 1), position, share)
        ]
        return picked[: self.config.batch_text]

    def _image_part(self, position: int) -> list[Sample]:
        if not self.config.batch_image:
            return []
        return [self.shown[i] for i in indices(len(self.shown), self.seed, position, self.config.batch_image)]

    def finish(self) -> Callable[[], dict[str, Any]]:
        """Held-out class, digit and tone measures with forced prefixes."""
        self.optimizer.freeze()
        self._set_alpha(self.steps)
        result = {"steps": self.steps, "left_out_too_long": self.left_out, **measure(self.learner, self.held_out)}
        return lambda: result


def accumulate(learner: Learner, part: Sequence[Sample], micro_batch: int) -> float:
    """Backward over this process's share of the micro-batches; the mean weighted loss of the whole part."""
    total = sum(sum(sample.weights) for sample in part)
    loss = 0.0
    # Of like length together: less padding.
    part = sorted(part, key=lambda sample: (len(sample.ids), sample.record.id))
    for start in ranks.share(range(0, len(part), micro_batch)):
        with learner.backward_pass():
            piece = weighted_loss(learner, part[start : start + micro_batch]) / total
            piece.backward()  # type: ignore[no-untyped-call]
        loss += float(piece.detach())
    return ranks.sums({"loss": loss})["loss"]


def weighted_loss(learner: Learner, samples: Sequence[Sample]) -> Tensor:
    """Sum over the reply tokens of weight times cross-entropy; logits are made for those positions only."""
    batch = learner.collate(samples)
    wanted = batch.weights[:, 1:] > 0
    states = learner.hidden(batch.ids, batch.mask, batch.pixels)[:, :-1][wanted]
    logits = learner.model.lm_head(states).float()
    losses = functional.cross_entropy(logits, batch.ids[:, 1:][wanted], reduction="none")
    return torch.dot(losses, batch.weights[:, 1:][wanted])
