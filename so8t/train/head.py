"""Phase `head`: the four-class head on the masked mean of the prompt's hidden states.

It comes last because PPO moves the trunk that it reads.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from so8t.batching import pad
from so8t.classes import balance, focal_loss, mean_pool
from so8t.labels import Label
from so8t.loop import ranks
from so8t.loop.phase import Commit, Metrics, Optimizer, warmup_cosine
from so8t.measures import classification
from so8t.train.config import Head
from so8t.train.data import Sample, label_counts, require
from so8t.train.evaluate import EVALUATION_BATCH
from so8t.train.learner import Learner


class FourClassHead:
    """See the module."""

    name = "head"

    def __init__(self, learner: Learner, config: Head, train: Sequence[Sample], held_out: Sequence[Sample]) -> None:
        self.learner, self.config, self.steps = learner, config, config.steps
        self.train = [sample for sample in train if sample.record.modality == "text"]
        self.held_out = [sample for sample in held_out if sample.record.modality == "text"]

    def begin(self) -> None:
        """Features are computed once, from the trunk as it now is, and standardised by the training rows."""
        if self.steps:
            require(self.train, "text rows for train")
        width = self.learner.value_head.in_features
        self.weight = nn.Parameter(torch.zeros(len(Label), width))
        self.bias = nn.Parameter(torch.zeros(len(Label)))
        rate, decay = self.config.learning_rate, self.config.weight_decay
        self.optimizer = Optimizer([({"weight": self.weight}, rate, decay), ({"bias": self.bias}, rate, 0.0)])
        if self.steps:
            features = self._features(self.train)
            self.mean, self.std = features.mean(0), features.std(0) + 1e-6
            self.features = (features - self.mean) / self.std
            self.labels = torch.tensor([sample.record.label for sample in self.train])
            self.class_weights = balance(label_counts(self.train), self.config.class_weights)

    def step(self, position: int) -> Commit:
        """One full-batch step."""
        self.optimizer.zero_grad()
        logits = functional.linear(self.features, self.weight, self.bias)
        loss = focal_loss(logits, self.labels, self.class_weights, self.config.focal_gamma)
        loss.backward()  # type: ignore[no-untyped-call]

        def commit() -> Metrics:
            self.optimizer.step(warmup_cosine(position, self.steps))
            return {"loss": float(loss.detach()), "epoch": position + 1.0}

        return commit

    def _features(self, samples: Sequence[Sample]) -> Tensor:
        pooled = torch.zeros(len(samples), self.learner.value_head.in_features)
        with torch.no_grad(), self.learner.text.cached():
            for start in ranks.share(range(0, len(samples), EVALUATION_BATCH)):
                prompts = [sample.prompt for sample in samples[start : start + EVALUATION_BATCH]]
                ids = pad(prompts, self.learner.pad_id).to(self.learner.device)
                mask = pad([[1] * len(row) for row in prompts], 0).to(self.learner.device)
                found = mean_pool(self.learner.hidden(ids, mask).float(), mask)
                pooled[start : start + len(prompts)] = found.cpu()
        ranks.add_up(pooled)
        return pooled

    @torch.no_grad()
    def finish(self) -> Callable[[], dict[str, Any]]:
        """Measure the head as it acts on the plain pooled feature; the commit puts it into the learner."""
        self.optimizer.freeze()
        result: dict[str, Any] = {"steps": self.steps}
        if not self.steps:
            return lambda: result
        weight = self.weight / self.std
        bias = self.bias - weight @ self.mean
        if self.held_out:
            logits = functional.linear(self._features(self.held_out), weight, bias)
            truth = [sample.record.label for sample in self.held_out]
            result |= classification(truth, logits.argmax(-1).tolist())

        def commit() -> dict[str, Any]:
            self.learner.head.weight.data.copy_(weight)
            self.learner.head.bias.data.copy_(bias)
            return result

        return commit

    def tensors(self) -> dict[str, Tensor]:
        """Head and optimizer."""
        return {
            "weight": self.weight.detach(),
            "bias": self.bias.detach(),
            **self.optimizer.tensors(),
        }

    def values(self) -> dict[str, Any]:
        """None."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Phase`."""
        self.weight.data.copy_(tensors["weight"])
        self.bias.data.copy_(tensors["bias"])
        self.optimizer.restore(tensors)
