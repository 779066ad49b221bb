"""Phase `ppo`: the policy is improved on its own replies, by PPO or GRPO (the mathematics is in ppo.py).

The reference of the KL is the policy as the warm-up left it. Not the bare base: that one has never seen
the tags, gives them next to no probability, and the KL to it would only say so. The reference costs no
second model: it is the same frozen base with a second set of adapter values.

A step is one optimizer step, or a review of what came out (schedule.py). The rollout is made in an update's
first step and kept in the checkpoint; a process that dies while it generates makes the same rollout again
from the RNG of the step's start.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from so8t.batching import indices
from so8t.errors import InputError
from so8t.labels import Label
from so8t.loop import ranks
from so8t.loop.microbatch import MicroBatch
from so8t.loop.phase import Commit, Metrics, Optimizer, linear_decay, under
from so8t.plan.memory import update_need
from so8t.so8.adapter import EMBED_ROWS, HEAD_ROWS
from so8t.train.anchor import Anchors
from so8t.train.config import Train
from so8t.train.data import Sample, require
from so8t.train.evaluate import measure
from so8t.train.generation import Replies, generate
from so8t.train.learner import Learner
from so8t.train.microbatch import first_size
from so8t.train.pictures import Pictures, look
from so8t.train.ppo import AdaptiveKLController, kl_penalty, policy_loss, token_weights, value_loss
from so8t.train.recovery import Recovery, Review
from so8t.train.reward import Classify
from so8t.train.rollout import Buffer, Judgement, response_logprobs, roll_out, sampled_reward, sampling_of, values_of
from so8t.train.schedule import Schedule

# PPO's Adam uses 1e-5 (Huang et al. 2024, detail 3 of the optimizer); 1e-8 makes the first steps too long.
ADAM_EPS = 1e-5
IMAGE_SEED = 211
VALUE_HEAD = "value_head."


class Policy:
    """See the module."""

    name = "ppo"

    def __init__(
        self,
        learner: Learner,
        config: Train,
        train: Sequence[Sample],
        held_out: Sequence[Sample],
        classify: Classify | None = None,
    ) -> None:
        """`classify`: the four-class model that the reward may ask."""
        self.learner, self.config, self.seed = learner, config.ppo, config.seed
        self.weights = config.reward
        self.judgement = Judgement(config.reward, config.ppo.missing_end_penalty, classify)
        self.held_out = held_out
        self.written, self.shown = ([s for s in train if bool(s.record.image) == image] for image in (False, True))
        self.judged = _mixed(held_out, config.ppo.evaluation_prompts, config.ppo.image_share)
        neutral = sorted((s for s in self.written if s.record.label == Label.ALLOW), key=lambda s: s.record.id)
        self.neutral = neutral[: config.ppo.anchor.prompts]
        self.per_epoch = -(-config.ppo.batch // config.ppo.minibatch)
        self.schedule = Schedule(config.ppo.updates, self.per_epoch * config.ppo.epochs, config.ppo.evaluation_every)
        self.steps = self.schedule.steps
        base = learner.model.config.text_config
        size = first_size(config.ppo.micro_batch, config.ppo.minibatch, update_need, config, base, learner.device)
        self.micro = MicroBatch(size, batch=self.config.minibatch)
        # Its own: the KV cache of all replies and a backward pass run out of memory at different numbers of rows.
        self.together = MicroBatch(config.ppo.batch, "generation_batch")

    def begin(self) -> None:
        """The reference is taken now; `restore` replaces it when the phase is resumed."""
        if self.steps:
            self._check()
        self.reference = {name: p.detach().clone() for name, p in self.learner.text.parameters().items()}
        self.controller = AdaptiveKLController(self.config.kl_coefficient, self.config.kl_target)
        self.buffer: Buffer | None = None
        self.shown_ids: list[str] = []
        self.pictures: Pictures | None = None
        self.anchors: Anchors | None = None
        # The rest of an update that was stopped is passed over.
        self.stopped = False
        # The rows of the tags stay: a few prompts cannot tell much about single tokens.
        trained = {n: p for n, p in self.learner.text.parameters().items() if n not in (EMBED_ROWS, HEAD_ROWS)}
        groups = [(trained, self.config.learning_rate, 0.0)]
        if self.config.algorithm == "ppo":
            value = {VALUE_HEAD + name: p for name, p in self.learner.value_head.named_parameters()}
            groups.append((value, self.config.value_learning_rate, 0.0))
        self.optimizer = Optimizer(groups, eps=ADAM_EPS)
        self.recovery = Recovery(self.config, self.optimizer)

    def _check(self) -> None:
        if self.config.image_share < 1:
            require(self.written, "text rows for train.ppo")
        if self.config.image_share > 0:
            require(self.shown, "image or audio rows for train.ppo")
        if self.weights.classifier and self.judgement.classify is None:
            raise InputError("train.reward.classifier has a weight, but there is no four-class model", "one, or 0")

    def step(self, position: int) -> Commit:
        """One minibatch, before an update's first one a rollout; or a review."""
        place = self.schedule.at(position)
        if place.review:
            return self._review_step(position, place.update)
        if place.within and self.stopped:
            return lambda: {"stopped": 1.0}
        first = self.recovery.first
        anchors = self.anchors if first is not None else self._make_anchors()
        review = first if first is not None else self._review(anchors)
        buffer, pictures, ids, measures = self.buffer, self.pictures, self.shown_ids, dict[str, float]()
        if place.within == 0 or buffer is None or pictures is None:
            samples = self._prompts(place.update)
            pictures = look_at = look(self.learner, samples)
            ids = [sample.record.id for sample in samples]
            replies = self.together.attempt(
                lambda rows: generate(self.learner, samples, look_at, sampling_of(self.config, rows))
            )
            buffer, measures = self.micro.attempt(lambda size: self._roll_out(samples, replies, look_at, size))
        epoch, minibatch = divmod(place.within, self.per_epoch)
        rows = torch.split(buffer.permutations[epoch], self.config.minibatch)[minibatch].to(self.learner.device)
        fresh, seen = buffer, pictures
        losses = self.micro.attempt(lambda size: self._backward(fresh, seen, rows, size))
        kept = (buffer, pictures, ids, anchors)

        def commit() -> Metrics:
            self.buffer, self.pictures, self.shown_ids, self.anchors = kept
            if first is None:
                self.recovery.keep(review)
            if "kl" in measures and self.config.kl_adaptive:
                self.controller.update(measures["kl"])
            epoch = (place.update + 1) * self.config.batch / (len(self.written) + len(self.shown))
            applied = self._apply(position, place.update, losses)
            return {**measures, **applied, **self._halved(), "epoch": epoch}

        return commit

    def _halved(self) -> Metrics:
        return {**self.micro.commit(), **self.together.commit()}

    def _roll_out(
        self, samples: list[Sample], replies: Replies, pictures: Pictures, micro_batch: int
    ) -> tuple[Buffer, dict[str, float]]:
        config, scores = self.config.model_copy(update={"micro_batch": micro_batch}), self.judgement(samples, replies)
        return roll_out(self.learner, replies, scores, pictures, config, self.reference, self.controller.coefficient)

    def _apply(self, position: int, update: int, losses: dict[str, float]) -> Metrics:
        """The optimizer's step, unless the minibatch says that this would lead too far."""
        self.stopped = False
        if not all(math.isfinite(value) for value in losses.values()):
            return self._go_back(position, update, "a loss or a gradient is not finite")
        if self.config.kl_stop and losses["approx_kl"] > self.config.kl_stop:
            self.stopped = True
            return {**losses, "stopped": 1.0}
        self.optimizer.step(self.recovery.rate * linear_decay(position, self.schedule.steps))
        return losses

    def _prompts(self, update: int) -> list[Sample]:
        """An update's rollout: its share of images, and for GRPO each prompt as often as a group is large."""
        repeats = self.config.group if self.config.algorithm == "grpo" else 1
        count = self.config.batch // repeats
        images = round(self.config.image_share * count)
        text = indices(len(self.written), self.seed, update, count - images) if count > images else []
        shown = indices(len(self.shown), self.seed + IMAGE_SEED, update, images) if images else []
        picked = [self.written[i] for i in text] + [self.shown[i] for i in shown]
        return [sample for sample in picked for _ in range(repeats)]

    def _backward(self, buffer: Buffer, pictures: Pictures, rows: Tensor, micro_batch: int) -> dict[str, float]:
        """Gradients of a minibatch, summed over its micro-batches."""
        self.optimizer.zero_grad()
        mask = buffer.reply_mask[rows].float()
        weights = token_weights(mask, "token" if self.config.algorithm == "ppo" else "reply")
        sums: dict[str, float] = {}
        pieces = zip(torch.split(rows, micro_batch), torch.split(weights, micro_batch), strict=True)
        for part, shares in ranks.share(list(pieces)):
            for name, value in self._losses(buffer, pictures, part, shares).items():
                sums[name] = sums.get(name, 0.0) + value
        self.optimizer.add_up()
        return {**ranks.sums(sums), "grad_norm": self.optimizer.clip(self.config.max_grad_norm)}

    def _losses(self, buffer: Buffer, pictures: Pictures, rows: Tensor, weights: Tensor) -> dict[str, float]:
        """Forward and backward of a micro-batch; its part of each loss."""
        config = self.config
        with self.learner.backward_pass():
            logprobs, states = response_logprobs(
                self.learner, buffer.ids[rows], buffer.mask[rows], int(buffer.context), pictures.rows(rows),
                config.temperature,
            )  # fmt: skip
            pg_loss, approx_kl, clipfrac = policy_loss(
                logprobs, buffer.logprobs[rows], buffer.advantages[rows], weights, config.clip
            )
            losses = {"pg_loss": pg_loss, "approx_kl": approx_kl, "clipfrac": clipfrac}
            if buffer.values is not None and buffer.returns is not None:
                losses["v_loss"] = value_loss(
                    values_of(self.learner, states), buffer.values[rows], buffer.returns[rows], weights,
                    config.value_clip,
                )  # fmt: skip
                loss = pg_loss + config.value_coefficient * losses["v_loss"]
            else:
                losses["kl_loss"] = (kl_penalty(logprobs, buffer.reference[rows], "k3") * weights).sum()
                loss = pg_loss + float(buffer.kl_coefficient) * losses["kl_loss"]
            loss.backward()  # type: ignore[no-untyped-call]
        return {name: float(value.detach()) for name, value in {"loss": loss, **losses}.items()}

    def _review_step(self, position: int, update: int) -> Commit:
        review = self._review(self.anchors)
        complaint = self.recovery.complaint(review)

        def commit() -> Metrics:
            if complaint:
                return {**review.metrics(), **self._halved(), **self._go_back(position, update, complaint)}
            self.recovery.keep(review)
            return {**review.metrics(), **self._halved()}

        return commit

    def _go_back(self, position: int, update: int, complaint: str) -> Metrics:
        self.recovery.go_back(position, update, complaint)
        self.buffer, self.pictures, self.shown_ids, self.stopped = None, None, [], True
        if self.recovery.ended:
            self.steps = position + 1
        return {"rolled_back": 1.0, "rate": self.recovery.rate}

    def _make_anchors(self) -> Anchors | None:
        if not self.neutral:
            return None
        return self.together.attempt(lambda rows: Anchors.make(self.learner, self.neutral, self.config.anchor, rows))

    def _review(self, anchors: Anchors | None) -> Review:
        judge, seed, reward, perplexity = self.judgement, self.seed + 1, None, None
        if self.judged:
            reward = self.together.attempt(
                lambda rows: sampled_reward(self.learner, self.judged, self.config, judge, seed, rows)
            )
        if anchors:
            perplexity = self.micro.attempt(lambda size: anchors.perplexity(self.learner, size))
        # What is decided by these numbers must be decided alike by all processes.
        return Review(ranks.agreed(reward), ranks.agreed(perplexity))

    def finish(self) -> Callable[[], dict[str, Any]]:
        """The last review, and the measures of the warm-up again, of the state that the phase ends with."""
        self.optimizer.freeze()
        first, good = self.recovery.first, self.recovery.good
        if not self.steps or first is None or good is None:
            return lambda: {"updates": 0}
        events, last = list(self.recovery.events), self._review(self.anchors)
        complaint = self.recovery.complaint(last)
        with ExitStack() as stack:
            if complaint:
                events.append({"position": self.steps, "update": self.config.updates, "why": complaint, "ended": True})
                kept = {n: t for n, t in self.recovery.kept_parameters().items() if not n.startswith(VALUE_HEAD)}
                stack.enter_context(self.learner.text.holding({**self.reference, **kept}))
            measured = measure(self.learner, self.held_out)
        after = good if complaint else last
        result = {
            "updates": self.config.updates,
            "algorithm": self.config.algorithm,
            "reward_before": first.reward or {},
            "reward_after": after.reward or {},
            "anchor_perplexity": {"before": first.perplexity, "after": after.perplexity},
            "kl_coefficient": self.controller.coefficient,
            "rolled_back": events,
            "ended_early": self.recovery.ended,
            **measured,
        }

        def commit() -> dict[str, Any]:
            if complaint:
                self.recovery.go_back(self.steps, self.config.updates, complaint)
            return result

        return commit

    def tensors(self) -> dict[str, Tensor]:
        """Reference, rollout, anchors, the good state and the optimizer."""
        return {
            **{f"reference.{name}": tensor for name, tensor in self.reference.items()},
            **(self.buffer.tensors() if self.buffer is not None else {}),
            **(self.anchors.tensors() if self.anchors is not None else {}),
            **self.recovery.tensors(),
            **self.optimizer.tensors(),
        }

    def values(self) -> dict[str, Any]:
        """The KL controller, the rollout's records, and what reviews have found."""
        return {
            "kl_coefficient": self.controller.coefficient,
            "records": list(self.shown_ids),
            "stopped": self.stopped,
            "micro_batch": self.micro.size,
            "generation_batch": self.together.size,
            "recovery": self.recovery.values(),
        }

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See `Phase`."""
        device = self.learner.device
        self.reference = {name: tensor.to(device) for name, tensor in under("reference.", tensors).items()}
        self.controller.coefficient = values["kl_coefficient"]
        self.micro.restore(values["micro_batch"])
        self.together.restore(values["generation_batch"])
        self.stopped, self.shown_ids = values["stopped"], list(values["records"])
        if any(name.startswith("anchor.") for name in tensors):
            self.anchors = Anchors.of(tensors, device)
        self.recovery.restore(tensors, values["recovery"])
        if self.recovery.ended:
            self.steps = int(self.recovery.events[-1]["position"]) + 1
        if any(name.startswith("buffer.") for name in tensors):
            self.buffer = Buffer.of(tensors, device)
            rows = {sample.record.id: sample for sample in (*self.written, *self.shown)}
            self.pictures = look(self.learner, [rows[record_id] for record_id in self.shown_ids])
        self.optimizer.restore(tensors)


def _mixed(samples: Sequence[Sample], count: int, image_share: float) -> list[Sample]:
    """The first rows by id, with their share of images as far as there are any."""
    ordered = sorted(samples, key=lambda sample: sample.record.id)
    images = [sample for sample in ordered if sample.record.image][: round(count * image_share)]
    return [sample for sample in ordered if not sample.record.image][: count - len(images)] + images
