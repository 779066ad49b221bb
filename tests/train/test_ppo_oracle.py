"""The same numbers as TRL's PPOTrainer, whose statements are executed from its own source.

Its formulas stand in the middle of `train`, so they cannot be called. TRL 1.12.0 is the last with a PPO:
`pip install --no-deps trl==1.12.0 && pip install datasets` in an environment of its own.
"""

import importlib.metadata
import inspect
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from so8t.train.ppo import compute_gae, kl_penalty, policy_loss, shape_rewards, token_weights, value_loss, whiten

pytestmark = pytest.mark.oracle
VERSION = "1.12.0"
B, T = 5, 8
CLOSE = 1e-6


@pytest.fixture(scope="module")
def trl():
    try:
        installed = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("trl is not installed; how: the module's docstring")
    if installed != VERSION:
        pytest.skip(f"trl {installed} is not {VERSION}")
    from trl.experimental.ppo import ppo_trainer

    return ppo_trainer


def execute(trl, first: str, last: str, **given):
    """Run the statements of `PPOTrainer.train` from the line with `first` to that with `last`."""
    lines = inspect.getsource(trl.PPOTrainer.train).splitlines()
    start = next(i for i, line in enumerate(lines) if first in line)
    stop = next(i for i in range(start, len(lines)) if last in lines[i])
    scope = {**vars(trl), **given}
    exec(textwrap.dedent("\n".join(lines[start : stop + 1])), scope)  # noqa: S102 - the installed package's own lines
    return scope


def draw(number: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(number).normal(0, scale, (B, T)))


def padding(lengths: list[int]) -> torch.Tensor:
    """True on padding, as TRL has it."""
    return torch.arange(T)[None] >= torch.tensor(lengths)[:, None]


PADDING = padding([8, 3, 1, 6, 7])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_rewards(trl, estimator):
    """Replies of full length: TRL puts the score of a shorter one a token behind its end."""
    logprobs, reference, scores = draw(0), draw(1), torch.arange(1.0, B + 1, dtype=torch.float64)
    args = SimpleNamespace(kl_estimator=estimator, kl_coef=0.07)
    last = torch.full((B,), T - 1)
    theirs = execute(
        trl, "logr = ref_logprobs", "rewards[actual_start, actual_end]", logprobs=logprobs, ref_logprobs=reference,
        args=args, scores=scores, sequence_lengths=last, sequence_lengths_p1=last + 1,
    )  # fmt: skip
    kl = kl_penalty(logprobs, reference, estimator)
    assert torch.allclose(kl, theirs["kl"], rtol=0, atol=CLOSE)
    ours = shape_rewards(scores, kl, torch.ones(B, T, dtype=torch.float64), 0.07)
    assert torch.allclose(ours, theirs["rewards"], rtol=0, atol=CLOSE)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7)])
def test_gae(trl, gamma, lam):
    mask = (~PADDING).double()
    rewards, values = draw(2) * mask, draw(3) * mask
    theirs = execute(
        trl, "lastgaelam = 0", "returns = advantages", rewards=rewards, values=values,
        responses=torch.zeros(B, T), args=SimpleNamespace(gamma=gamma, lam=lam),
    )  # fmt: skip
    advantages, returns = compute_gae(rewards, values, mask, gamma, lam)
    assert torch.allclose(advantages, theirs["advantages"], rtol=0, atol=CLOSE)
    assert torch.allclose(returns, theirs["returns"], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening(trl, shift_mean):
    """TRL divides by n - 1 where Huang et al. divide by n: a factor of the whole batch."""
    x, mask = draw(4, 3.0), (~PADDING).double()
    theirs = trl.masked_whiten(x, ~PADDING, shift_mean=shift_mean)
    mean, n = float(x[~PADDING].mean()), int(mask.sum())
    offset = 0.0 if shift_mean else mean
    ours = whiten(x, mask, shift_mean)
    assert torch.allclose(
        (ours - offset)[~PADDING] * np.sqrt((n - 1) / n), (theirs - offset)[~PADDING], rtol=0, atol=CLOSE
    )


def test_losses(trl):
    new, old, advantages, values, old_values, returns = (draw(i, 0.4) for i in range(5, 11))
    rows = torch.arange(B)
    theirs = execute(
        trl, "vpredclipped = torch.clamp", "loss = pg_loss", vpred=values, mb_values=old_values, mb_return=returns,
        new_logprobs=new, mb_logprobs=old, mb_advantage=advantages, padding_mask=PADDING, padding_mask_p1=PADDING,
        micro_batch_inds=rows, args=SimpleNamespace(cliprange=0.2, cliprange_value=0.3, vf_coef=0.1),
    )  # fmt: skip
    weights = token_weights((~PADDING).double(), "token")
    pg, _, _ = policy_loss(new, old, advantages, weights, 0.2)
    v = value_loss(values, old_values, returns, weights, 0.3)
    assert float(pg) == pytest.approx(float(theirs["pg_loss"]), abs=CLOSE)
    assert float(v) == pytest.approx(float(theirs["vf_loss"]), abs=CLOSE)
    assert float(pg + 0.1 * v) == pytest.approx(float(theirs["loss"]), abs=CLOSE)
