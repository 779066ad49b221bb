"""The mathematics of PPO and GRPO as pure functions (arXiv 1707.06347, arXiv 2402.03300).

B replies in a batch, T response positions. `mask_BT` is 1 on response tokens up to and including the
end token. `weights_BT` is each token's share of a loss: over a minibatch the shares sum to 1, so that the
losses of its micro-batches add up. The details follow Huang et al., "The N+ Implementation Details of
RLHF with PPO" (arXiv 2403.17031).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def masked_mean(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the positions of the mask."""
    return (x_BT * mask_BT).sum() / mask_BT.sum().clamp(min=1)


def token_weights(mask_BT: Tensor, per: Literal["token", "reply"]) -> Tensor:
    """Shares that sum to 1: every token alike (PPO), or every reply alike (GRPO, arXiv 2402.03300, eq. 3)."""
    if per == "token":
        return mask_BT / mask_BT.sum().clamp(min=1)
    return mask_BT / mask_BT.sum(1, keepdim=True).clamp(min=1) / len(mask_BT)


def whiten(x_BT: Tensor, mask_BT: Tensor, shift_mean: bool = True) -> Tensor:
    """Unit variance over the mask, and zero mean unless `shift_mean` is off; zero outside the mask."""
    mean = masked_mean(x_BT, mask_BT)
    variance = masked_mean((x_BT - mean) ** 2, mask_BT)
    whitened = (x_BT - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask_BT


def kl_penalty(logprobs_BT: Tensor, reference_BT: Tensor, estimator: Literal["k1", "k3"] = "k1") -> Tensor:
    """Per token, an estimate of KL(policy || reference) from what the policy drew (Schulman 2020).

    k1 is the log ratio: unbiased, of either sign; PPO's price in the reward. k3 = r - 1 - log r with
    r = reference / policy: unbiased, never negative, of less variance; GRPO's term in the loss.
    """
    if estimator == "k1":
        return logprobs_BT - reference_BT
    logratio = reference_BT - logprobs_BT
    return torch.expm1(logratio) - logratio


def shape_rewards(scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, coefficient: float) -> Tensor:
    """Per-token rewards: the KL's price everywhere, the score on the last response token."""
    rewards = -coefficient * kl_BT * mask_BT
    last = (mask_BT.sum(1).long() - 1).clamp(min=0)
    return rewards.index_put((torch.arange(len(scores_B), device=last.device), last), scores_B, accumulate=True)


def compute_gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalized advantage estimation (arXiv 1506.02438, eq. 16), from the right.

    Nothing is worth anything after the last response token. Returns are advantages plus values.
    """
    values_BT = values_BT * mask_BT
    advantages = torch.zeros_like(rewards_BT)
    running = torch.zeros_like(rewards_BT[:, 0])
    next_value = torch.zeros_like(running)
    for t in reversed(range(rewards_BT.shape[1])):
        delta = rewards_BT[:, t] + gamma * next_value - values_BT[:, t]
        running = (delta + gamma * gae_lambda * running) * mask_BT[:, t]
        advantages[:, t] = running
        next_value = values_BT[:, t]
    return advantages, advantages + values_BT


def group_advantages(scores_B: Tensor, group: int, standardise: bool) -> Tensor:
    """GRPO: how much better a reply is than the mean of its group; the groups stand one after another [B].

    `standardise` also divides by the group's standard deviation (arXiv 2402.03300, section 4.1.2). That
    weighs prompts on which the replies hardly differ as much as the others; Dr. GRPO leaves it out
    (arXiv 2503.20783, section 3.1). A group of equal scores has no advantage either way.
    """
    scores = scores_B.view(-1, group)
    advantages = scores - scores.mean(1, keepdim=True)
    if standardise:
        advantages = advantages / (scores.std(1, keepdim=True) + 1e-4)
    return advantages.view(-1)


def policy_loss(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_BT: Tensor, weights_BT: Tensor, clip: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Clipped surrogate loss, approximate KL to the old policy (k3) and the share of clipped tokens."""
    logratio = (logprobs_BT - old_logprobs_BT) * (weights_BT > 0)
    ratio = logratio.exp()
    pg_loss = torch.max(-advantages_BT * ratio, -advantages_BT * ratio.clamp(1 - clip, 1 + clip))
    with torch.no_grad():
        approx_kl = (((ratio - 1) - logratio) * weights_BT).sum()
        clipfrac = (((ratio - 1).abs() > clip) * weights_BT).sum()
    return (pg_loss * weights_BT).sum(), approx_kl, clipfrac


def value_loss(values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, weights_BT: Tensor, clip: float) -> Tensor:
    """Half the squared error, with the step from the old value clipped."""
    clipped = old_values_BT + (values_BT - old_values_BT).clamp(-clip, clip)
    v_loss = torch.max((values_BT - returns_BT) ** 2, (clipped - returns_BT) ** 2)
    return 0.5 * (v_loss * weights_BT).sum()


@dataclass
class AdaptiveKLController:
    """Steers the mean per-token KL to a target (Ziegler et al. 2019, arXiv 1909.08593, section 2.2)."""

    coefficient: float
    target: float
    gain: float = 0.1

    def update(self, kl: float) -> None:
        """Raise or lower the price by at most 2 % after a rollout."""
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.coefficient *= 1 + self.gain * error
