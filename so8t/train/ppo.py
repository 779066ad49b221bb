"""The mathematics of PPO as pure functions (Schulman et al. 2017, arXiv 1707.06347).

B replies in a batch, T response positions. `mask` is 1 on response tokens up to and including the
end token. The details follow Huang et al., "The N+ Implementation Details of RLHF with PPO"
(arXiv 2403.17031).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


def masked_mean(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the positions of the mask."""
    return (x_BT * mask_BT).sum() / mask_BT.sum().clamp(min=1)


def whiten(x_BT: Tensor, mask_BT: Tensor, shift_mean: bool = True) -> Tensor:
    """Unit variance over the mask, and zero mean unless `shift_mean` is off; zero outside the mask."""
    mean = masked_mean(x_BT, mask_BT)
    variance = masked_mean((x_BT - mean) ** 2, mask_BT)
    whitened = (x_BT - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask_BT


def kl_penalty(logprobs_BT: Tensor, reference_BT: Tensor) -> Tensor:
    """Per-token log ratio to the reference: its mean over samples estimates the KL (k1, Schulman 2020)."""
    return logprobs_BT - reference_BT


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


def policy_loss(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Clipped surrogate loss, approximate KL to the old policy (k3) and the share of clipped tokens."""
    logratio = (logprobs_BT - old_logprobs_BT) * mask_BT
    ratio = logratio.exp()
    pg_loss = torch.max(-advantages_BT * ratio, -advantages_BT * ratio.clamp(1 - clip, 1 + clip))
    with torch.no_grad():
        approx_kl = masked_mean((ratio - 1) - logratio, mask_BT)
        clipfrac = masked_mean(((ratio - 1).abs() > clip).float(), mask_BT)
    return masked_mean(pg_loss, mask_BT), approx_kl, clipfrac


def value_loss(values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, clip: float) -> Tensor:
    """Half the squared error, with the step from the old value clipped."""
    clipped = old_values_BT + (values_BT - old_values_BT).clamp(-clip, clip)
    v_loss = torch.max((values_BT - returns_BT) ** 2, (clipped - returns_BT) ** 2)
    return 0.5 * masked_mean(v_loss, mask_BT)


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
