"""The four-class head: weights that act, pooling that skips padding, measures that bear an absent class."""

import pytest
import torch
from torch.nn import functional

from so8t.classes import balance, focal_loss, max_pool, mean_pool
from so8t.measures import classification


def test_focal_loss_without_focus_is_weighted_cross_entropy():
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(20, 4), torch.randint(0, 4, (20,)), torch.tensor([1.0, 3.0, 5.0, 5.0])
    assert torch.allclose(focal_loss(logits, labels, weights, 0.0), functional.cross_entropy(logits, labels, weights))


def test_focus_lowers_what_is_easy_more_than_what_is_hard():
    weights, label = torch.ones(4), torch.tensor([0])
    easy, hard = torch.tensor([[4.0, 0, 0, 0]]), torch.tensor([[0.0, 2, 0, 0]])
    ratios = [float(focal_loss(x, label, weights, 2.0) / focal_loss(x, label, weights, 0.0)) for x in (easy, hard)]
    assert ratios[0] < 0.01 < 0.5 < ratios[1]


def test_class_weights_move_the_decision():
    """Identical features with clashing labels: the heavier class wins."""
    for weights, winner in ((torch.tensor([9.0, 1, 1, 1]), 0), (torch.tensor([1.0, 9, 1, 1]), 1)):
        bias = torch.zeros(4, requires_grad=True)
        adam = torch.optim.Adam([bias], lr=0.1)
        for _ in range(50):
            adam.zero_grad()
            focal_loss(bias.expand(2, 4), torch.tensor([0, 1]), weights, 2.0).backward()
            adam.step()
        assert int(bias.argmax()) == winner


def test_balance_makes_the_rare_count_and_bears_an_absent_class():
    weights = balance([100, 10, 0, 10], (1.0, 1.0, 5.0, 2.0))
    assert weights[2] == 0
    assert float(weights[1] / weights[0]) == pytest.approx(10)
    assert float(weights[3] / weights[1]) == pytest.approx(2)


def test_padding_is_not_pooled():
    states = torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])
    pooled = mean_pool(states, mask)
    assert torch.allclose(pooled[0], states[0, :2].mean(0))
    assert torch.allclose(pooled[1], states[1, 2:].mean(0))
    greatest = max_pool(states - 10, mask)
    assert torch.equal(greatest[0], states[0, :2].max(0).values - 10)
    assert torch.equal(greatest[1], states[1, 2:].max(0).values - 10)


def test_measures_by_hand():
    found = classification([0, 0, 1, 3], [0, 1, 1, 0])
    assert found["accuracy"] == 0.5
    assert set(found["f1"]) == {"ALLOW", "ESCALATION", "REFUSE"}
    assert found["f1"]["ALLOW"] == pytest.approx(0.5)
    assert found["f1"]["ESCALATION"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert found["unsafe_allow_rate"] == 0.5
    assert classification([0, 0], [0, 0])["macro_f1"] == 1
