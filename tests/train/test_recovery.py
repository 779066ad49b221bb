"""Reviews and what follows from them: a stopped update, the way back, an early end."""

import pytest
import torch

from so8t.errors import InputError
from so8t.train.schedule import Place, Schedule
from tests.train import tiny
from tests.train.test_rollout import begun, config_of, learner, place, samples  # noqa: F401 - fixtures

DESTROYING = {
    "learning_rate": 5.0, "value_learning_rate": 5.0, "evaluation_every": 1, "kl_stop": 0.0, "updates": 6,
    "minibatch": 2, "epochs": 2, "micro_batch": 2, "rollback": tiny.CONFIG.ppo.rollback.model_copy(update={"limit": 1}),
}  # fmt: skip


def copied(policy) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.optimizer.named.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("updates", "per_update", "every"), [(5, 3, 2), (6, 2, 3), (4, 1, 1), (3, 4, 0), (2, 3, 9), (0, 2, 1)]
)
def test_every_minibatch_has_one_place_and_reviews_stand_between_updates(updates, per_update, every):
    schedule, expected = Schedule(updates, per_update, every), []
    for update in range(updates):
        expected += [Place(update, within) for within in range(per_update)]
        if every and (update + 1) % every == 0 and update + 1 < updates:
            expected.append(Place(update, per_update - 1, review=True))
    assert [schedule.at(position) for position in range(schedule.steps)] == expected


def test_a_rate_that_destroys_the_model_is_rolled_back_halved_and_ended(learner, samples):  # noqa: F811
    policy = begun(learner, samples, **DESTROYING)
    before = copied(policy)
    for position in range(4):
        policy.step(position)()
    assert not same(copied(policy), before)
    told = policy.step(4)()
    assert told["anchor_perplexity"] > 2 * policy.recovery.first.perplexity
    assert (told["rolled_back"], told["rate"]) == (1.0, 0.5)
    assert same(copied(policy), before)
    assert not policy.optimizer.adam.state
    assert policy.buffer is None
    for position in range(5, 10):
        policy.step(position)()
    assert policy.steps == 10 < policy.schedule.steps
    assert same(copied(policy), before)
    result = policy.finish()()
    assert result["ended_early"]
    assert [event["ended"] for event in result["rolled_back"]] == [False, True]


def test_the_last_update_is_reviewed_too(learner, samples):  # noqa: F811
    policy = begun(learner, samples, **{**DESTROYING, "updates": 1})
    before = copied(policy)
    for position in range(4):
        policy.step(position)()
    commit = policy.finish()
    assert not same(copied(policy), before)
    result = commit()
    assert same(copied(policy), before)
    assert len(result["rolled_back"]) == 1
    assert result["reward_after"] == result["reward_before"]


def test_a_fallen_reward_is_reason_enough(learner, samples):  # noqa: F811
    policy = begun(
        learner, samples, evaluation_every=1, anchor=tiny.CONFIG.ppo.anchor.model_copy(update={"prompts": 0})
    )
    for position in range(4):
        policy.step(position)()
    assert policy.anchors is None
    policy.recovery.best += 10
    assert "held_out_reward" in (told := policy.step(4)())
    assert told["rolled_back"] == 1.0
    assert "best" in policy.recovery.events[0]["why"]


def test_a_good_review_moves_the_state_that_is_gone_back_to(learner, samples):  # noqa: F811
    policy = begun(learner, samples, evaluation_every=1, kl_stop=0.0)
    for position in range(4):
        policy.step(position)()
    at_review, adam = copied(policy), {n: t.clone() for n, t in policy.optimizer.tensors().items()}
    assert "rolled_back" not in policy.step(4)()
    for position in range(5, 9):
        policy.step(position)()
    assert not same(copied(policy), at_review)
    policy.recovery.go_back(8, 1, "a test")
    assert same(copied(policy), at_review)
    assert same(policy.optimizer.tensors(), adam)
    # Adam goes on in memory of its own.
    policy.optimizer.adam.step()
    assert same(under_good(policy), adam)


def under_good(policy) -> dict[str, torch.Tensor]:
    return {n.removeprefix("good."): t for n, t in policy.recovery.tensors().items() if n.startswith("good.adam.")}


def test_an_update_that_has_gone_too_far_ends(learner, samples):  # noqa: F811
    policy = begun(learner, samples, learning_rate=0.05, kl_stop=1e-4)
    policy.step(0)()
    after_first = copied(policy)
    told = policy.step(1)()
    assert told["approx_kl"] > 1e-4
    assert told["stopped"] == 1.0
    assert policy.step(2)() == {"stopped": 1.0}
    assert policy.step(3)() == {"stopped": 1.0}
    assert same(copied(policy), after_first)
    assert "stopped" not in policy.step(4)()
    assert not same(copied(policy), after_first)


def test_a_gradient_that_is_not_finite_is_gone_back_from(learner, samples, monkeypatch):  # noqa: F811
    policy = begun(learner, samples)
    before = copied(policy)
    policy.step(0)()
    monkeypatch.setattr(policy.optimizer, "clip", lambda norm: float("nan"))
    told = policy.step(1)()
    assert (told["rolled_back"], told["rate"]) == (1.0, 0.5)
    assert same(copied(policy), before)
    assert policy.step(2)() == {"stopped": 1.0}


def test_a_review_draws_nothing_from_the_global_generators(learner, samples):  # noqa: F811
    policy = begun(learner, samples)
    anchors = policy._make_anchors()
    torch.manual_seed(9)
    before = torch.get_rng_state()
    one, other = policy._review(anchors), policy._review(anchors)
    assert torch.equal(torch.get_rng_state(), before)
    assert one == other
    assert 1 < one.perplexity < learner.vision.image_token_id * 100


def test_a_classifier_that_is_not_there_and_odd_groups_are_refused(learner, samples):  # noqa: F811
    from so8t.train.config import Ppo, Reward
    from so8t.train.policy import Policy

    weights = config_of().model_copy(update={"reward": Reward(classifier=1.0)})
    with pytest.raises(InputError, match="no four-class model"):
        Policy(learner, weights, samples, samples).begin()
    Policy(learner, weights, samples, samples, lambda prompts: [[1, 0, 0, 0]] * len(prompts)).begin()
    with pytest.raises(ValueError, match="batch 30 is no multiple of group 8"):
        Ppo(algorithm="grpo", batch=30)
