"""PPO's and GRPO's mathematics against a second derivation: explicit sums over the definitions, NumPy in fp64."""

import numpy as np
import pytest
import torch

from so8t.train.ppo import (
    compute_gae,
    group_advantages,
    kl_penalty,
    policy_loss,
    shape_rewards,
    token_weights,
    value_loss,
    whiten,
)

B, T, CLIP = 6, 11, 0.2
LENGTHS = np.array([11, 5, 1, 7, 2, 10])
CLOSE = 1e-6


def draw(number: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(number).normal(0, scale, (B, T))


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(x, dtype=np.float64))


def mask() -> np.ndarray:
    return (np.arange(T)[None] < LENGTHS[:, None]).astype(np.float64)


def inside() -> list[tuple[int, int]]:
    return [(b, t) for b in range(B) for t in range(LENGTHS[b])]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.97, 0.0)])
def test_gae_is_the_mixture_of_n_step_advantages(gamma, lam):
    """arXiv 1506.02438, eq. 16: A_t = (1 - lambda) sum_n lambda^(n-1) A_t^(n), the last one taking the rest.

    A_t^(n) = r_t + .. + gamma^(n-1) r_(t+n-1) + gamma^n V_(t+n) - V_t; no recursion, no delta.
    """
    rewards, values = draw(1), draw(2)
    advantages, returns = compute_gae(tensor(rewards * mask()), tensor(values), tensor(mask()), gamma, lam)
    for b, t in inside():
        left, expected = LENGTHS[b] - t, 0.0
        for n in range(1, left + 1):
            value_then = values[b, t + n] if n < left else 0.0
            step = sum(gamma**i * rewards[b, t + i] for i in range(n)) + gamma**n * value_then - values[b, t]
            expected += step * (lam ** (n - 1) if n == left else (1 - lam) * lam ** (n - 1))
        assert float(advantages[b, t]) == pytest.approx(expected, abs=CLOSE)
        assert float(returns[b, t]) == pytest.approx(expected + values[b, t], abs=CLOSE)


def test_whitening():
    x = draw(3, 4.0)
    picked = np.array([x[place] for place in inside()])
    for shift in (True, False):
        white = whiten(tensor(x), tensor(mask()), shift).numpy()
        expected = (picked - picked.mean()) / np.sqrt(picked.var() + 1e-8) + (0 if shift else picked.mean())
        assert np.allclose([white[place] for place in inside()], expected, rtol=0, atol=CLOSE)


def test_rewards():
    scores, kl = np.arange(1.0, B + 1), draw(4)
    rewards = shape_rewards(tensor(scores), tensor(kl), tensor(mask()), 0.3).numpy()
    expected = np.zeros((B, T))
    for b, t in inside():
        expected[b, t] = -0.3 * kl[b, t] + (scores[b] if t == LENGTHS[b] - 1 else 0)
    assert np.allclose(rewards, expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("per", ["token", "reply"])
def test_losses_and_their_gradients(per):
    new, old, advantages = draw(5, 0.3), draw(6, 0.3), draw(7)
    values, old_values, returns = draw(8), draw(9), draw(10)
    logprobs, predicted = tensor(new).requires_grad_(True), tensor(values).requires_grad_(True)
    weights = token_weights(tensor(mask()), per)
    pg, approx_kl, clipfrac = policy_loss(logprobs, tensor(old), tensor(advantages), weights, CLIP)
    v = value_loss(predicted, tensor(old_values), tensor(returns), weights, CLIP)
    (pg + v).backward()
    expected = dict.fromkeys(("pg", "kl", "frac", "v"), 0.0)
    for b, t in inside():
        share = 1 / LENGTHS.sum() if per == "token" else 1 / (B * LENGTHS[b])
        ratio, advantage = np.exp(new[b, t] - old[b, t]), advantages[b, t]
        surrogate, clipped = ratio * advantage, min(max(ratio, 1 - CLIP), 1 + CLIP) * advantage
        expected["pg"] -= share * min(surrogate, clipped)
        slope = -share * surrogate if surrogate <= clipped else 0.0
        assert float(logprobs.grad[b, t]) == pytest.approx(slope, abs=CLOSE)
        expected["kl"] += share * (ratio - 1 - np.log(ratio))
        expected["frac"] += share * (abs(ratio - 1) > CLIP)
        moved = old_values[b, t] + min(max(values[b, t] - old_values[b, t], -CLIP), CLIP)
        plain, held = (values[b, t] - returns[b, t]) ** 2, (moved - returns[b, t]) ** 2
        expected["v"] += share * max(plain, held) / 2
        slope = share * (values[b, t] - returns[b, t]) if plain > held or moved == values[b, t] else 0.0
        assert float(predicted.grad[b, t]) == pytest.approx(slope, abs=CLOSE)
    found = {"pg": pg, "kl": approx_kl, "frac": clipfrac, "v": v}
    assert {name: float(one.detach()) for name, one in found.items()} == pytest.approx(expected, abs=CLOSE)
    assert 0 < expected["frac"] < 1


def test_padding_has_no_part_in_any_loss():
    weights = token_weights(tensor(mask()), "token")
    # As far as a forward pass over padding may go; its exponential is infinite.
    wild = draw(5) + 1e4 * (1 - mask())
    for one, other in ((wild, draw(5)), (-wild, -draw(5))):
        found = policy_loss(tensor(one), tensor(draw(6)), tensor(draw(7)), weights, CLIP)
        assert found == policy_loss(tensor(other), tensor(draw(6)), tensor(draw(7)), weights, CLIP)


def test_the_kl_estimators_have_the_divergence_as_their_mean_exactly():
    """Summed over all outcomes with their probabilities there is no sampling error."""
    generator = np.random.default_rng(0)
    p, q = generator.dirichlet(np.ones(7)), generator.dirichlet(np.ones(7))
    exact = float(np.sum(p * np.log(p / q)))
    for estimator in ("k1", "k3"):
        per_outcome = kl_penalty(tensor(np.log(p)), tensor(np.log(q)), estimator).numpy()
        assert float(np.sum(p * per_outcome)) == pytest.approx(exact, abs=1e-12)
    assert (kl_penalty(tensor(np.log(p)), tensor(np.log(q)), "k3") >= 0).all()
    assert (kl_penalty(tensor(np.log(p)), tensor(np.log(q)), "k1") < 0).any()


def test_k3_pulls_the_policy_towards_the_reference():
    """arXiv 2402.03300, eq. 4 and its gradient (section A.1.6): 1 - r for each token."""
    new, reference = draw(11), draw(12)
    logprobs = tensor(new).requires_grad_(True)
    kl_penalty(logprobs, tensor(reference), "k3").sum().backward()
    assert np.allclose(logprobs.grad.numpy(), 1 - np.exp(reference - new), rtol=0, atol=CLOSE)


def test_group_advantages():
    scores = np.array([1.0, 2.0, 6.0, 0.5, 0.5, 0.5])
    found = group_advantages(tensor(scores), 3, standardise=False).numpy()
    assert np.allclose(found, [-2, -1, 3, 0, 0, 0], rtol=0, atol=CLOSE)
    # The sample's own standard deviation: sqrt((4 + 1 + 9) / 2).
    found = group_advantages(tensor(scores), 3, standardise=True).numpy()
    assert np.allclose(found, np.array([-2, -1, 3, 0, 0, 0]) / (np.sqrt(7) + 1e-4), rtol=0, atol=CLOSE)


def test_shares_sum_to_one_and_count_tokens_or_replies_alike():
    token, reply = (token_weights(tensor(mask()), per).numpy() for per in ("token", "reply"))
    assert token.sum() == pytest.approx(1)
    assert reply.sum() == pytest.approx(1)
    assert np.allclose(token[mask() > 0], 1 / LENGTHS.sum())
    assert np.allclose(reply.sum(1), 1 / B)
