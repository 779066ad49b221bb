"""Replies sampled from the policy, and what PPO and GRPO need to know about them.

B replies, C prompt positions (padded on the left), T response positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from so8t.labels import Label
from so8t.loop import ranks
from so8t.train.config import Ppo, Reward
from so8t.train.data import Sample
from so8t.train.generation import Replies, Sampling, generate
from so8t.train.learner import Learner
from so8t.train.pictures import Pictures, hidden_states, look
from so8t.train.ppo import compute_gae, group_advantages, kl_penalty, masked_mean, shape_rewards, whiten
from so8t.train.reward import Case, Classify, Score, score


@dataclass(frozen=True)
class Buffer:
    """A rollout, ready for its optimizer steps; it is part of a checkpoint. What the prompts show is not: it is
    computed again from the records."""

    ids: Tensor
    mask: Tensor
    context: Tensor  # one number
    reply_mask: Tensor
    logprobs: Tensor
    reference: Tensor  # log-probabilities of the reference policy
    advantages: Tensor
    permutations: Tensor  # [epochs, B], drawn at the rollout
    kl_coefficient: Tensor  # one number, the price at the rollout
    values: Tensor | None = None  # PPO's critic
    returns: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {f"buffer.{name}": tensor for name, tensor in named.items() if tensor is not None}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], device: torch.device) -> "Buffer":
        """The inverse."""
        names = {field.name for field in fields(cls)} & {name.removeprefix("buffer.") for name in tensors}
        return cls(**{name: tensors[f"buffer.{name}"].to(device) for name in names})


@dataclass(frozen=True)
class Judgement:
    """What replies are worth: the weights of the reward's terms, and the four-class model where one has a weight."""

    weights: Reward
    missing_end_penalty: float
    classify: Classify | None = None

    def __call__(self, samples: Sequence[Sample], replies: Replies) -> list[Score]:
        """Scores of the replies; one that did not end by itself pays the penalty."""
        prompts = [sample.record.prompt for sample in samples]
        classes: Sequence[Sequence[float] | None] = [None] * len(prompts)
        if self.classify is not None and self.weights.classifier:
            classes = [[float(p) for p in row] for row in self.classify(prompts)]
        judged = []
        for sample, text, ended, p in zip(samples, replies.texts, replies.ended.tolist(), classes, strict=True):
            row = sample.record
            one = score(Case(text, row.response, Label(row.label), row.prompt, row.answer, p), self.weights)
            fine = 0.0 if ended else -self.missing_end_penalty
            judged.append(Score(one.total + fine, {**one.terms, "missing_end": fine}))
        return judged


def response_logprobs(
    learner: Learner, ids: Tensor, mask: Tensor, context: int, pictures: Pictures, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, T] of the response tokens and the states [B, T, hidden] before each.

    By the training forward: generation's own scores come from another code path (cache, other shapes) and are
    never used. Logits are made for the response only.
    """
    states = hidden_states(learner, ids, mask, pictures)[:, context - 1 : -1]
    logits = learner.model.lm_head(states).float() / temperature
    wanted = ids[:, context:]
    logprobs = -functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape)
    return logprobs, states


def values_of(learner: Learner, states: Tensor) -> Tensor:
    """The critic on the shared trunk: [B, T, hidden] -> [B, T]."""
    values: Tensor = learner.value_head(states.float())[..., 0]
    return values


def micro_batches(rows: Tensor, minibatch: int, micro_batch: int) -> Iterator[Tensor]:
    """The rows in the groups in which they go through the model; with several processes this one's share of them."""
    for group in torch.split(rows, minibatch):
        yield from ranks.share(torch.split(group, micro_batch))


@torch.no_grad()
def _pass(
    learner: Learner,
    replies: Replies,
    pictures: Pictures,
    config: Ppo,
    order: Tensor,
    what: AbstractContextManager[None],
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values [B, T] of the whole rollout, in the very groups of the first epoch.

    A sum over other shapes rounds otherwise; in the same groups the first ratio is exactly 1.
    """
    logprobs = torch.zeros(replies.reply_mask.shape, device=learner.device)
    values = torch.zeros_like(logprobs)
    with what:
        for rows in micro_batches(order, config.minibatch, config.micro_batch):
            logprobs[rows], states = response_logprobs(
                learner, replies.ids[rows], replies.mask[rows], replies.context, pictures.rows(rows), config.temperature
            )
            if config.algorithm == "ppo":
                values[rows] = values_of(learner, states)
    ranks.add_up(logprobs, values)
    return logprobs, values


def sampling_of(config: Ppo, rows: int = 0) -> Sampling:
    """How the policy draws its replies, `rows` of them together."""
    return Sampling(config.max_new_tokens, config.temperature, config.cache, rows)


def roll_out(
    learner: Learner,
    replies: Replies,
    scores: Sequence[Score],
    pictures: Pictures,
    config: Ppo,
    reference: Mapping[str, Tensor],
    kl_coefficient: float,
) -> tuple[Buffer, dict[str, float]]:
    """Estimate the advantages of replies that were judged; also the rollout's measures by name.

    For GRPO the replies stand in groups of the same prompt.
    """
    mask_BT = replies.reply_mask.float()
    permutations = torch.stack([torch.randperm(len(scores)) for _ in range(config.epochs)])
    order = permutations[0].to(learner.device)
    logprobs, values = _pass(learner, replies, pictures, config, order, learner.text.cached())
    reference_logprobs, _ = _pass(learner, replies, pictures, config, order, learner.text.holding(reference))
    kl_BT = kl_penalty(logprobs, reference_logprobs) * mask_BT
    scores_B = torch.tensor([one.total for one in scores], device=logprobs.device)
    known = {
        "ids": replies.ids, "mask": replies.mask, "context": torch.tensor(replies.context),
        "reply_mask": replies.reply_mask, "logprobs": logprobs, "reference": reference_logprobs,
        "permutations": permutations, "kl_coefficient": torch.tensor(kl_coefficient),
    }  # fmt: skip
    if config.algorithm == "grpo":
        advantages = group_advantages(scores_B, config.group, config.group_std)[:, None] * mask_BT
        buffer = Buffer(**known, advantages=advantages)
    else:
        rewards = shape_rewards(scores_B, kl_BT, mask_BT, kl_coefficient)
        if config.whiten_rewards:
            rewards = whiten(rewards, mask_BT, shift_mean=False)
        advantages, returns = compute_gae(rewards, values, mask_BT, config.gamma, config.gae_lambda)
        buffer = Buffer(**known, advantages=whiten(advantages, mask_BT), values=values, returns=returns)
    measures = {
        "reward": float(scores_B.mean()),
        "kl": float(masked_mean(kl_BT, mask_BT)),
        "kl_coefficient": kl_coefficient,
        "reply_tokens": float(mask_BT.sum() / len(scores)),
        "ended": float(replies.ended.float().mean()),
        "tokens": float(replies.mask.sum()),
        **{f"reward_{name}": value for name, value in mean_terms(scores).items()},
    }
    return buffer, measures


def mean_terms(scores: Sequence[Score]) -> dict[str, float]:
    """The mean of each term by name."""
    return {name: sum(one.terms[name] for one in scores) / len(scores) for name in sorted(scores[0].terms)}


def sampled_reward(
    learner: Learner, samples: Sequence[Sample], config: Ppo, judgement: Judgement, seed: int, rows: int = 0
) -> dict[str, float]:
    """Mean reward and its terms on held-out prompts, sampled with fixed seeds; leaves the global RNG as it was."""
    scores: list[Score] = []
    with torch.random.fork_rng(devices=[learner.device] if learner.device.type == "cuda" else []):
        for number, start in enumerate(range(0, len(samples), config.batch)):
            torch.manual_seed(seed + number)
            part = samples[start : start + config.batch]
            scores += judgement(part, generate(learner, part, look(learner, part), sampling_of(config, rows)))
    return {"n": len(scores), "reward": sum(one.total for one in scores) / len(scores), **mean_terms(scores)}
