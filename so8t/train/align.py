"""Phase `align`: the projector learns to say in the base's words what the tower sees; nothing else learns.

The first stage of LLaVA (Liu et al. 2023, arXiv 2304.08485, section 4.2): the caption of an image, plain and without
the thinking format, through the frozen base. The rows of the tags are still as they were drawn, so a reply that holds
them would teach the projector to make up for that.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import torch

from so8t.batching import indices
from so8t.loop.microbatch import MicroBatch
from so8t.loop.phase import Commit, Metrics, OneOptimizer, Optimizer, warmup_cosine
from so8t.models import END_TOKEN, reply_ids
from so8t.plan.memory import align_need
from so8t.thinking import parse
from so8t.train.config import Train
from so8t.train.data import FINAL, Sample, answer_token, require
from so8t.train.evaluate import choose
from so8t.train.learner import Learner, projector_parameters
from so8t.train.microbatch import first_size
from so8t.train.warmup import accumulate, weighted_loss

ORDER_SEED = 211


class Align(OneOptimizer):
    """See the module."""

    name = "align"

    def __init__(self, learner: Learner, config: Train, train: Sequence[Sample], held_out: Sequence[Sample]) -> None:
        """`train` and `held_out`: samples with an image."""
        self.learner, self.config = learner, config.align
        self.seed, self.steps = config.seed + ORDER_SEED, config.align.steps
        base = learner.model.config.text_config
        size = first_size(config.align.micro_batch, config.align.batch, align_need, config, base, learner.device)
        self.micro = MicroBatch(size, batch=self.config.batch)
        self.train, self.held_out = (
            [caption(sample, learner.tokenizer) for sample in part] if self.steps else [] for part in (train, held_out)
        )

    def begin(self) -> None:
        """Adapters are still the identity, so the base goes without them."""
        if self.steps:
            require(self.train, "image or audio rows for train")
        self.optimizer = Optimizer([(projector_parameters(self.learner), self.config.learning_rate, 0.0)])

    def step(self, position: int) -> Commit:
        """One optimizer step over a batch of images."""
        picked = [self.train[i] for i in indices(len(self.train), self.seed, position, self.config.batch)]
        loss = self.micro.attempt(lambda size: self._gradients(picked, size))
        norm = self.optimizer.clip(self.config.max_grad_norm)

        def commit() -> Metrics:
            self.optimizer.step(warmup_cosine(position, self.steps))
            return {
                **self.micro.commit(),
                "loss": loss,
                "grad_norm": norm,
                "tokens": sum(len(sample.ids) for sample in picked),
                "epoch": (position + 1) * self.config.batch / len(self.train),
            }

        return commit

    def _gradients(self, picked: list[Sample], micro_batch: int) -> float:
        self.optimizer.zero_grad()
        with self._base_alone():
            loss = accumulate(self.learner, picked, micro_batch)
        self.optimizer.add_up()
        return loss

    def _base_alone(self) -> AbstractContextManager[Any]:
        both = ExitStack()
        both.enter_context(self.learner.text.off())
        both.enter_context(self.learner.sight.off())
        return both

    @torch.no_grad()
    def finish(self) -> Callable[[], dict[str, Any]]:
        """Held-out loss a token of the captions, and accuracy among the known answers, by modality."""
        self.optimizer.freeze()
        result: dict[str, Any] = {"steps": self.steps}
        with self._base_alone():
            for modality in ("image", "audio"):
                shown = [sample for sample in self.held_out if sample.record.modality == modality]
                if shown:
                    result[modality] = self._measure(shown)
        return lambda: result

    def _measure(self, shown: list[Sample]) -> dict[str, float]:
        size = self.micro.size
        losses = [float(weighted_loss(self.learner, shown[i : i + size])) for i in range(0, len(shown), size)]
        measures = {"n": len(shown), "loss": sum(losses) / sum(sum(sample.weights) for sample in shown)}
        answers = sorted({sample.record.answer for sample in shown} - {""})
        asked = [sample for sample in shown if sample.record.answer]
        if asked:
            tokens = [answer_token(answer, self.learner.tokenizer) for answer in answers]
            guessed = choose(self.learner, asked, [sample.prompt for sample in asked], tokens)
            hits = sum(answers[g] == s.record.answer for g, s in zip(guessed, asked, strict=True))
            measures |= {"accuracy": hits / len(asked), "answers": len(answers)}
        return measures


def caption(sample: Sample, tokenizer: Any) -> Sample:
    """The same question with what `<final>` holds as the whole reply, in the very pieces that follow the tag."""
    reply = parse(sample.record.response)
    final = sample.record.answer if reply is None else reply.final
    ids = reply_ids(tokenizer, FINAL + final + END_TOKEN)[1:]
    return replace(sample, reply=ids, weights=[1.0] * len(ids))
