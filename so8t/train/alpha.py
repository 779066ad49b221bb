"""Phase `alpha`: how far the rotations of the language model are turned, chosen on held-out rows.

R = Cayley(alpha A). While A is learnt alpha is 1, because the two are redundant; afterwards one number for the
whole model remains to be chosen, and a candidate costs one evaluation. The rows are dealt into folds. A fold's
objective is the mean log-likelihood of a reference reply's tokens plus the macro-F1 of the class tokens, each by
its weight.

The best of several candidates looks better than it is. So its gain is judged crosswise: each fold is measured with
the candidate that the other folds prefer, against alpha = 1 on the same fold. Alpha = 1 is the first candidate and
stays unless that gain is larger than its standard error. What remains of the optimism: the folds proposed the
candidates together, and other choices of the training may have looked at the same rows.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from so8t.labels import LABEL_TOKENS
from so8t.loop import ranks
from so8t.loop.phase import Commit, Metrics
from so8t.measures import classification
from so8t.study.propose import completed, propose
from so8t.train.config import Train
from so8t.train.crosswise import Tried, choose, folds, pick
from so8t.train.data import Sample, require
from so8t.train.evaluate import EVALUATION_BATCH
from so8t.train.learner import Learner

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution
    from optuna.trial import FrozenTrial

NAME = "alpha"
# Candidates before the proposals become informed ones; alpha = 1 is one of them.
STARTUP = 4
NO_CLASS = -1


class Alpha:
    """See the module."""

    name = NAME

    def __init__(self, learner: Learner, config: Train, held_out: Sequence[Sample]) -> None:
        self.learner, self.config, self.seed = learner, config.alpha, config.seed
        fitting = [sample for sample in held_out if len(sample.ids) <= config.warmup.max_tokens]
        self.rows = pick(fitting, config.alpha.rows)
        self.steps = config.alpha.trials
        self.tried: tuple[Tried, ...] = ()

    def begin(self) -> None:
        """Nothing is trained here."""
        if self.steps:
            require(self.rows, "validation rows to choose alpha with")
        self.tried = ()

    def step(self, position: int) -> Commit:
        """Evaluate one candidate."""
        alpha = 1.0 if position == 0 else self._next()
        one = self._evaluate(alpha)

        def commit() -> Metrics:
            self.tried = (*self.tried, one)
            return {
                "alpha": alpha,
                "objective": one.mean,
                "log_likelihood": statistics.fmean(one.log_likelihood),
                "macro_f1": statistics.fmean(one.macro_f1),
            }

        return commit

    def trials(self) -> "list[FrozenTrial]":
        """What was tried, as Optuna knows it."""
        return [completed({NAME: one.alpha}, self._ranges(), one.mean) for one in self.tried]

    def _ranges(self) -> "dict[str, FloatDistribution]":
        from optuna.distributions import FloatDistribution

        return {NAME: FloatDistribution(self.config.low, self.config.high)}

    def _next(self) -> float:
        return float(propose(self.trials(), self._ranges(), self.seed, STARTUP)[NAME])

    @torch.no_grad()
    def _evaluate(self, alpha: float) -> Tried:
        setting = self.learner.text.setting
        before, setting.alpha = setting.alpha, alpha
        try:
            with self.learner.text.cached(), self.learner.sight.cached():
                parts = ranks.share(_batches(self.rows))
                measured = [one for part in parts for one in likelihood_and_class(self.learner, part)]
        finally:
            setting.alpha = before
        by_id = dict(one for told in ranks.everyones(measured) for one in told)
        log_likelihood, macro_f1 = [], []
        for fold in folds(self.rows, self.config.folds):
            log_likelihood.append(statistics.fmean(by_id[sample.record.id][0] for sample in fold))
            text = [sample for sample in fold if sample.record.modality == "text"]
            truth = [sample.record.label for sample in text]
            guessed = [by_id[sample.record.id][1] for sample in text]
            macro_f1.append(float(classification(truth, guessed)["macro_f1"]) if text else 0.0)
        objective = [
            self.config.likelihood_weight * likelihood + self.config.macro_f1_weight * f1
            for likelihood, f1 in zip(log_likelihood, macro_f1, strict=True)
        ]
        return Tried(alpha, tuple(log_likelihood), tuple(macro_f1), tuple(objective))

    def finish(self) -> Callable[[], dict[str, Any]]:
        """Choose; the commit gives the model its alpha."""
        if not self.steps:
            return lambda: {"candidates": 0, "alpha": self.learner.alpha}
        choice = choose(self.tried)
        result: dict[str, Any] = {
            **asdict(choice),
            "candidates": len(self.tried),
            "rows": len(self.rows),
            "folds": self.config.folds,
            "tried": [asdict(one) for one in self.tried],
        }

        def commit() -> dict[str, Any]:
            self.learner.set_alpha(choice.alpha)
            return result

        return commit

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def values(self) -> dict[str, Any]:
        """What was tried."""
        return {"tried": [asdict(one) for one in self.tried]}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Phase`."""
        self.tried = tuple(Tried.of(one) for one in values["tried"])


def likelihood_and_class(learner: Learner, samples: Sequence[Sample]) -> list[tuple[str, tuple[float, int]]]:
    """By id: mean log-probability of the reference reply's tokens (nats), and the likeliest class at its place.

    `samples` are of one kind, all with images or none. Only a text's class is asked for.
    """
    batch = learner.collate(samples)
    states_BL = learner.hidden(batch.ids, batch.mask, batch.pixels)
    classes = torch.tensor(learner.tokenizer.convert_tokens_to_ids(list(LABEL_TOKENS)), device=states_BL.device)
    measured = []
    # One row's logits at a time: the vocabulary is large.
    for sample, states, ids in zip(samples, states_BL, batch.ids, strict=True):
        start, end = len(sample.prompt), len(sample.ids)
        logits, tokens = learner.model.lm_head(states[start - 1 : end - 1]).float(), ids[start:end]
        logprob = -float(functional.cross_entropy(logits, tokens))
        guessed = NO_CLASS
        if sample.record.modality == "text":
            at = torch.isin(tokens, classes).nonzero()[0, 0]
            guessed = int(logits[at, classes].argmax())
        measured.append((sample.record.id, (logprob, guessed)))
    return measured


def _batches(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    """Of one kind, and of like length together: less padding."""
    parts: list[Sequence[Sample]] = []
    for shown in (False, True):
        ordered = sorted(
            (sample for sample in samples if bool(sample.record.image) == shown),
            key=lambda sample: (len(sample.ids), sample.record.id),
        )
        parts += [ordered[i : i + EVALUATION_BATCH] for i in range(0, len(ordered), EVALUATION_BATCH)]
    return parts
