"""PPO's mathematics against other ways to compute the same, and learning on a toy whose ceiling is known."""

import pytest
import torch
from torch.nn import functional

from so8t.train.ppo import (
    AdaptiveKLController,
    compute_gae,
    kl_penalty,
    masked_mean,
    policy_loss,
    shape_rewards,
    token_weights,
    value_loss,
    whiten,
)

B, T = 4, 9


def make() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(B, T, generator=generator), torch.randn(B, T, generator=generator)
    lengths = torch.tensor([9, 5, 1, 7])
    mask = (torch.arange(T)[None] < lengths[:, None]).float()
    return rewards * mask, values, mask


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_gae_equals_the_sum_that_defines_it(gamma, gae_lambda):
    """A_t = sum_l (gamma lambda)^l delta_(t+l), written out as the quadratic double loop."""
    rewards, values, mask = make()
    advantages, returns = compute_gae(rewards, values, mask, gamma, gae_lambda)
    for b in range(B):
        length = int(mask[b].sum())
        value = [*values[b, :length].tolist(), 0.0]
        for t in range(length):
            expected = sum(
                (gamma * gae_lambda) ** (s - t) * (float(rewards[b, s]) + gamma * value[s + 1] - value[s])
                for s in range(t, length)
            )
            assert float(advantages[b, t]) == pytest.approx(expected, abs=1e-5)
            assert float(returns[b, t]) == pytest.approx(expected + value[t], abs=1e-5)
        assert advantages[b, length:].abs().sum() == 0


def test_padding_never_leaks_into_gae():
    rewards, values, mask = make()
    advantages, _ = compute_gae(rewards, values, mask, 1.0, 0.95)
    other, _ = compute_gae(rewards, values + 100 * (1 - mask), mask, 1.0, 0.95)
    assert torch.equal(advantages, other)


def test_whitening_sees_only_the_mask():
    rewards, _, mask = make()
    white = whiten(rewards + 1000 * (1 - mask), mask)
    assert float(masked_mean(white, mask)) == pytest.approx(0, abs=1e-6)
    assert float(masked_mean(white**2, mask)) == pytest.approx(1, abs=1e-5)
    assert white[mask == 0].abs().sum() == 0
    kept = whiten(rewards + 5 * mask, mask, shift_mean=False)
    assert float(masked_mean(kept, mask)) == pytest.approx(float(masked_mean(rewards + 5 * mask, mask)), abs=1e-5)


def test_the_score_lands_on_the_last_token():
    _, _, mask = make()
    kl = torch.full((B, T), 0.5)
    rewards = shape_rewards(torch.tensor([1.0, 2.0, 3.0, 4.0]), kl, mask, 0.1)
    assert rewards[1, 4] == pytest.approx(2 - 0.05)
    assert rewards[2, 0] == pytest.approx(3 - 0.05)
    assert rewards[1, 5:].abs().sum() == 0
    assert float(rewards.sum()) == pytest.approx(10 - 0.05 * float(mask.sum()))


def test_the_ratio_is_clipped_on_the_side_that_pays():
    mask = token_weights(torch.ones(1, 2), "token")
    old, new = torch.zeros(1, 2), torch.tensor([[0.5, -0.5]], requires_grad=True)
    loss, approx_kl, clipfrac = policy_loss(new, old, torch.tensor([[1.0, -1.0]]), mask, 0.2)
    loss.backward()
    # Both moved the paying way by more than the clip: no gradient is left.
    assert new.grad is not None
    assert new.grad.abs().sum() == 0
    assert float(loss.detach()) == pytest.approx((-1.2 + 0.8) / 2)
    assert clipfrac == 1
    assert approx_kl > 0
    same, approx_kl, clipfrac = policy_loss(old, old, torch.tensor([[1.0, -3.0]]), mask, 0.2)
    assert (float(same), float(approx_kl), float(clipfrac)) == (1.0, 0.0, 0.0)


def test_value_clipping_takes_the_worse_of_both():
    mask = torch.ones(1, 1)
    loss = value_loss(torch.tensor([[1.0]]), torch.zeros(1, 1), torch.tensor([[1.0]]), mask, 0.2)
    assert float(loss) == pytest.approx(0.5 * 0.8**2)


def test_kl_estimates_the_divergence_of_two_known_distributions():
    torch.manual_seed(0)
    p, q = functional.log_softmax(torch.randn(6), -1), functional.log_softmax(torch.randn(6), -1)
    drawn = torch.multinomial(p.exp(), 200_000, replacement=True)
    estimate = kl_penalty(p[drawn][None], q[drawn][None]).mean()
    assert float(estimate) == pytest.approx(float((p.exp() * (p - q)).sum()), abs=0.02)


def test_the_controller_steers_and_is_bounded():
    controller = AdaptiveKLController(0.1, 0.05)
    controller.update(5.0)
    assert controller.coefficient == pytest.approx(0.102)
    controller.update(0.0)
    assert controller.coefficient == pytest.approx(0.102 * 0.98)
    controller.update(0.05)
    assert controller.coefficient == pytest.approx(0.102 * 0.98)


def test_ppo_reaches_the_known_ceiling_of_a_toy():
    """Reward is 1 where position t says token t, else 0: the ceiling is 1, chance is 1/6."""
    torch.manual_seed(0)
    tokens, length, batch = 6, 5, 64
    policy = torch.zeros(length, tokens, requires_grad=True)
    values = torch.zeros(length, requires_grad=True)
    adam = torch.optim.Adam([policy, values], lr=0.05, eps=1e-5)
    reference = torch.full((length, tokens), -torch.tensor(float(tokens)).log())
    mask = torch.ones(batch, length)
    weights = token_weights(mask, "token")
    means = []
    for _ in range(60):
        with torch.no_grad():
            logp = functional.log_softmax(policy, -1)
            drawn = torch.multinomial(logp.exp(), batch, replacement=True).T
            old = logp.expand(batch, -1, -1).gather(2, drawn[..., None])[..., 0]
            kl = kl_penalty(old, reference.expand(batch, -1, -1).gather(2, drawn[..., None])[..., 0])
            score = (drawn == torch.arange(length)).float().mean(1)
            rewards = shape_rewards(score, kl, mask, 0.001)
            old_values = values.detach().expand(batch, -1)
            advantages, returns = compute_gae(rewards, old_values, mask, 1.0, 0.95)
            advantages = whiten(advantages, mask)
        means.append(float(score.mean()))
        for _ in range(4):
            new = functional.log_softmax(policy, -1).expand(batch, -1, -1).gather(2, drawn[..., None])[..., 0]
            loss, _, _ = policy_loss(new, old, advantages, weights, 0.2)
            loss = loss + 0.1 * value_loss(values.expand(batch, -1), old_values, returns, weights, 0.2)
            adam.zero_grad()
            loss.backward()
            adam.step()
    assert means[0] < 0.3
    assert sum(means[-5:]) / 5 > 0.9
