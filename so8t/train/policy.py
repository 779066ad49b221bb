"""Phase `ppo`: the policy is improved on its own replies (the mathematics is in ppo.py).

The reference of the KL is the policy as the warm-up left it. Not the bare base: that one has never seen
the tags, gives them next to no probability, and the KL to it would only say so. The reference costs no
second model: it is the same frozen base with a second set of adapter values.

A step is one optimizer step. The rollout is made in an update's first step and kept in the checkpoint;
a process that dies while it generates makes the same rollout again from the RNG of the step's start.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from so8t.batching import indices
from so8t.loop.phase import Commit, Metrics, Optimizer, linear_decay, under
from so8t.so8.adapter import EMBED_ROWS, HEAD_ROWS
from so8t.train.config import Train
from so8t.train.data import Sample, require
from so8t.train.evaluate import measure
from so8t.train.learner import Learner
from so8t.train.ppo import AdaptiveKLController, policy_loss, token_weights, value_loss
from so8t.train.rollout import Buffer, logprobs_and_values, roll_out, sampled_reward

# PPO's Adam uses 1e-5 (Huang et al. 2024, detail 3 of the optimizer); 1e-8 makes the first steps too long.
ADAM_EPS = 1e-5


class Policy:
    """See the module."""

    name = "ppo"

    def __init__(self, learner: Learner, config: Train, train: Sequence[Sample], held_out: Sequence[Sample]) -> None:
        self.learner, self.config, self.weights, self.seed = learner, config.ppo, config.reward, config.seed
        self.held_out = held_out
        self.train = [sample for sample in train if sample.record.modality == "text"]
        written = sorted((s for s in held_out if s.record.modality == "text"), key=lambda s: s.record.id)
        self.judged = written[: config.ppo.evaluation_prompts]
        self.per_epoch = -(-config.ppo.batch // config.ppo.minibatch)
        self.per_update = self.per_epoch * config.ppo.epochs
        self.steps = config.ppo.updates * self.per_update

    def begin(self) -> None:
        """The reference is taken now; `restore` replaces it when the phase is resumed."""
        if self.steps:
            require(self.train, "text rows for train")
        self.reference = {name: p.detach().clone() for name, p in self.learner.text.parameters().items()}
        self.controller = AdaptiveKLController(self.config.kl_coefficient, self.config.kl_target)
        self.buffer: Buffer | None = None
        self.before: dict[str, float] | None = None
        # The rows of the tags stay: a few prompts cannot tell much about single tokens.
        trained = {n: p for n, p in self.learner.text.parameters().items() if n not in (EMBED_ROWS, HEAD_ROWS)}
        value = dict(self.learner.value_head.named_parameters(prefix="value_head"))
        self.optimizer = Optimizer(
            [(trained, self.config.learning_rate, 0.0), (value, self.config.value_learning_rate, 0.0)], eps=ADAM_EPS
        )

    def step(self, position: int) -> Commit:
        """One minibatch; before an update's first one, a rollout."""
        update, within = divmod(position, self.per_update)
        before = self._judge() if self.before is None else self.before
        buffer, measures = self.buffer, dict[str, float]()
        if within == 0 or buffer is None:
            picked = indices(len(self.train), self.seed, update, self.config.batch)
            buffer, measures = roll_out(
                self.learner, [self.train[i] for i in picked], self.config, self.weights,
                self.reference, self.controller.coefficient,
            )  # fmt: skip
        epoch, minibatch = divmod(within, self.per_epoch)
        rows = torch.split(buffer.permutations[epoch], self.config.minibatch)[minibatch].to(self.learner.device)
        losses = self._backward(buffer, rows)
        fresh = buffer

        def commit() -> Metrics:
            self.buffer, self.before = fresh, before
            if "kl" in measures:
                self.controller.update(measures["kl"])
            self.optimizer.step(linear_decay(position, self.steps))
            return {**measures, **losses}

        return commit

    def _backward(self, buffer: Buffer, rows: Tensor) -> dict[str, float]:
        config, mask = self.config, token_weights(buffer.reply_mask[rows].float(), "token")
        self.optimizer.zero_grad()
        with self.learner.backward_pass():
            logprobs, values = logprobs_and_values(
                self.learner, buffer.ids[rows], buffer.mask[rows], int(buffer.context), config.temperature
            )
            pg_loss, approx_kl, clipfrac = policy_loss(
                logprobs, buffer.logprobs[rows], buffer.advantages[rows], mask, config.clip
            )
            v_loss = value_loss(values, buffer.values[rows], buffer.returns[rows], mask, config.value_clip)
            loss = pg_loss + config.value_coefficient * v_loss
            loss.backward()  # type: ignore[no-untyped-call]
        norm = self.optimizer.clip(config.max_grad_norm)
        return {
            "loss": float(loss.detach()),
            "pg_loss": float(pg_loss.detach()),
            "v_loss": float(v_loss.detach()),
            "approx_kl": float(approx_kl),
            "clipfrac": float(clipfrac),
            "grad_norm": norm,
        }

    def _judge(self) -> dict[str, float]:
        if not self.judged:
            return {}
        return sampled_reward(self.learner, self.judged, self.config, self.weights, self.seed + 1)

    def finish(self) -> Callable[[], dict[str, Any]]:
        """Reward on held-out prompts before and after, and the measures of the warm-up again."""
        self.optimizer.freeze()
        if not self.steps:
            return lambda: {"updates": 0}
        result = {
            "updates": self.config.updates,
            "reward_before": self.before,
            "reward_after": self._judge(),
            "kl_coefficient": self.controller.coefficient,
            **measure(self.learner, self.held_out),
        }
        return lambda: result

    def tensors(self) -> dict[str, Tensor]:
        """Reference, rollout and optimizer."""
        return {
            **{f"reference.{name}": tensor for name, tensor in self.reference.items()},
            **(self.buffer.tensors() if self.buffer is not None else {}),
            **self.optimizer.tensors(),
        }

    def values(self) -> dict[str, Any]:
        """The KL controller and the reward before."""
        return {"kl_coefficient": self.controller.coefficient, "before": self.before}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Phase`."""
        device = self.learner.device
        self.reference = {name: tensor.to(device) for name, tensor in under("reference.", tensors).items()}
        self.controller.coefficient = values["kl_coefficient"]
        self.before = values["before"]
        if any(name.startswith("buffer.") for name in tensors):
            self.buffer = Buffer.of(tensors, device)
        self.optimizer.restore(tensors)
