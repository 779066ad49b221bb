"""Replies sampled from the policy, and what PPO needs to know about them.

B replies, C prompt positions (padded on the left), T response positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from so8t.batching import pad
from so8t.labels import Label
from so8t.models import END_TOKEN
from so8t.train.config import Ppo, Reward
from so8t.train.data import Sample
from so8t.train.learner import Learner
from so8t.train.ppo import compute_gae, kl_penalty, masked_mean, shape_rewards, whiten
from so8t.train.reward import Case, Score, score


@dataclass(frozen=True)
class Replies:
    """What was generated: ids [B, C + T], mask of real tokens, context length C, mask [B, T] of the reply."""

    ids: Tensor
    mask: Tensor
    context: int
    reply_mask: Tensor
    ended: Tensor
    texts: list[str]


@dataclass(frozen=True)
class Buffer:
    """A rollout, ready for its optimizer steps; it is part of a checkpoint."""

    ids: Tensor
    mask: Tensor
    context: Tensor  # one number
    reply_mask: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    permutations: Tensor  # [epochs, B], drawn at the rollout

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {f"buffer.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], device: torch.device) -> "Buffer":
        """The inverse."""
        return cls(**{field.name: tensors[f"buffer.{field.name}"].to(device) for field in fields(cls)})


@torch.no_grad()
def generate(learner: Learner, samples: Sequence[Sample], max_new_tokens: int, temperature: float) -> Replies:
    """Sample replies to text prompts with a KV cache; draws from the global RNG."""
    prompts = [sample.prompt for sample in samples]
    ids = pad(prompts, learner.pad_id, left=True).to(learner.device)
    mask = pad([[1] * len(row) for row in prompts], 0, left=True).to(learner.device)
    with learner.text.cached():
        whole = learner.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max_new_tokens,
            eos_token_id=learner.stop,
            pad_token_id=learner.pad_id,
            use_cache=True,
        )
    context = ids.shape[1]
    reply = whole[:, context:]
    is_end = torch.isin(reply, torch.tensor(learner.stop, device=reply.device))
    # Up to and including the first end token: padding may use an end token's id.
    reply_mask = ((is_end.cumsum(1) - is_end.long()) == 0).long()
    texts = [
        learner.tokenizer.decode(row[kept.bool()].tolist(), skip_special_tokens=False).replace(END_TOKEN, "")
        for row, kept in zip(reply, reply_mask, strict=True)
    ]
    return Replies(whole, torch.cat([mask, reply_mask], 1), context, reply_mask, is_end.any(1), texts)


def judge(samples: Sequence[Sample], replies: Replies, weights: Reward, missing_end_penalty: float) -> list[Score]:
    """Scores of the replies; one that did not end by itself pays the penalty."""
    judged = []
    for sample, text, ended in zip(samples, replies.texts, replies.ended.tolist(), strict=True):
        one = score(Case(text, sample.record.response, Label(sample.record.label)), weights)
        fine = 0.0 if ended else -missing_end_penalty
        judged.append(Score(one.total + fine, {**one.terms, "missing_end": fine}))
    return judged


def logprobs_and_values(
    learner: Learner, ids: Tensor, mask: Tensor, context: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, T] of the response tokens and values [B, T] before each, by the training forward.

    Generation's own scores come from another code path (cache, other shapes) and are never used.
    """
    states = learner.hidden(ids, mask)[:, context - 1 : -1]
    logits = learner.model.lm_head(states).float() / temperature
    wanted = ids[:, context:]
    logprobs = -functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape)
    return logprobs, learner.value_head(states.float())[..., 0]


@torch.no_grad()
def _pass(
    learner: Learner, replies: Replies, config: Ppo, reference: Mapping[str, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """The whole rollout in minibatches, with the policy's own values or with the reference's."""
    parts = []
    with learner.text.cached() if reference is None else learner.text.holding(reference):
        for start in range(0, len(replies.ids), config.minibatch):
            rows = slice(start, start + config.minibatch)
            parts.append(
                logprobs_and_values(learner, replies.ids[rows], replies.mask[rows], replies.context, config.temperature)
            )
    logprobs, values = (torch.cat(column) for column in zip(*parts, strict=True))
    return logprobs, values


def roll_out(
    learner: Learner,
    samples: Sequence[Sample],
    config: Ppo,
    weights: Reward,
    reference: Mapping[str, Tensor],
    kl_coefficient: float,
) -> tuple[Buffer, dict[str, float]]:
    """Generate, judge, and estimate advantages; also the rollout's measures by name."""
    replies = generate(learner, samples, config.max_new_tokens, config.temperature)
    scores = judge(samples, replies, weights, config.missing_end_penalty)
    mask_BT = replies.reply_mask.float()
    logprobs, values = _pass(learner, replies, config, None)
    reference_logprobs, _ = _pass(learner, replies, config, reference)
    kl_BT = kl_penalty(logprobs, reference_logprobs) * mask_BT
    scores_B = torch.tensor([one.total for one in scores], device=logprobs.device)
    rewards = shape_rewards(scores_B, kl_BT, mask_BT, kl_coefficient)
    if config.whiten_rewards:
        rewards = whiten(rewards, mask_BT, shift_mean=False)
    advantages, returns = compute_gae(rewards, values, mask_BT, config.gamma, config.gae_lambda)
    permutations = torch.stack([torch.randperm(len(scores)) for _ in range(config.epochs)])
    buffer = Buffer(
        replies.ids, replies.mask, torch.tensor(replies.context), replies.reply_mask, logprobs, values,
        whiten(advantages, mask_BT), returns, permutations,
    )  # fmt: skip
    names = sorted(scores[0].terms)
    measures = {
        "reward": float(scores_B.mean()),
        "kl": float(masked_mean(kl_BT, mask_BT)),
        "kl_coefficient": kl_coefficient,
        "reply_tokens": float(mask_BT.sum() / len(scores)),
        "ended": float(replies.ended.float().mean()),
        "tokens": float(replies.mask.sum()),
        **{f"reward_{name}": sum(one.terms[name] for one in scores) / len(scores) for name in names},
    }
    return buffer, measures


def sampled_reward(
    learner: Learner, samples: Sequence[Sample], config: Ppo, weights: Reward, seed: int
) -> dict[str, float]:
    """Mean reward and its terms on held-out prompts, sampled with fixed seeds; leaves the global RNG as it was."""
    totals: dict[str, float] = {}
    with torch.random.fork_rng(devices=[learner.device] if learner.device.type == "cuda" else []):
        for number, start in enumerate(range(0, len(samples), config.batch)):
            torch.manual_seed(seed + number)
            part = samples[start : start + config.batch]
            replies = generate(learner, part, config.max_new_tokens, config.temperature)
            for one in judge(part, replies, weights, config.missing_end_penalty):
                for name, value in {"reward": one.total, **one.terms}.items():
                    totals[name] = totals.get(name, 0.0) + value
    return {"n": len(samples), **{name: value / len(samples) for name, value in sorted(totals.items())}}
