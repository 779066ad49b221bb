"""Decisions fail closed, thresholds keep their bound, and what is stored is read back or refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from so8t import calibration
from so8t.calibration import (
    NEVER,
    Calibration,
    allow_threshold,
    brier,
    decide,
    fit,
    reliability,
    report,
    tempered,
    upper_limit,
)  # fmt: skip
from so8t.errors import InputError
from so8t.labels import Label

HALF = (0.5, 0.5, 0.5, 0.5)


def drawn(n: int, right: float, seed: int = 0):
    """Probabilities that are right so often, and as sure of it whether right or wrong."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, n)
    guess = np.where(generator.random(n) < right, labels, generator.integers(0, 4, n))
    sure = generator.uniform(0.55, 0.97, n)
    found = np.repeat(((1 - sure) / 3)[:, None], 4, axis=1)
    found[np.arange(n), guess] = sure
    return found, labels


@pytest.mark.parametrize(
    ("probabilities", "thresholds", "label"),
    [
        ([0.9, 0.05, 0.03, 0.02], HALF, Label.ALLOW),
        ([0.49, 0.21, 0.2, 0.1], HALF, Label.ESCALATION),
        ([0.6, 0.0, 0.0, 0.4], (0.5, 0.5, 0.5, 0.3), Label.REFUSE),
        ([0.0, 0.3, 0.35, 0.35], (0.5, 0.3, 0.3, 0.4), Label.DENY),
        ([1.0, 0.0, 0.0, 0.0], (NEVER, 0.5, 0.5, 0.5), Label.ESCALATION),
    ],
)
def test_the_highest_that_applies_and_else_a_person(probabilities, thresholds, label):
    assert decide(probabilities, thresholds) == label


@given(st.lists(st.floats(0.001, 1), min_size=4, max_size=4), st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4))
def test_below_its_threshold_nothing_is_allowed(numbers, thresholds):
    whole = np.array(numbers) / sum(numbers)
    label = decide(whole, thresholds)
    assert label != Label.ALLOW or whole[0] >= thresholds[0]
    assert all(label >= c for c in Label if whole[c] >= thresholds[c])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_none_is_a_doubt(bad):
    assert Calibration().decide(np.array([bad, 0.0, 0.0, 0.0])) == Label.ESCALATION


@pytest.mark.parametrize(("bound", "confidence"), [(0.02, 0.9), (0.1, 0.9), (0.1, 0.5)])
def test_unsafe_allow_keeps_its_bound_on_new_rows_as_often_as_it_says(bound, confidence):
    found, labels = drawn(100_000, 0.8, 99)
    new = found[labels != Label.ALLOW, Label.ALLOW]
    rates = []
    for seed in range(400):
        known, truth = drawn(300, 0.8, seed)
        rates.append(float((new >= allow_threshold(known[:, Label.ALLOW], truth, bound, confidence)).mean()))
    kept = float(np.mean(np.array(rates) <= bound))
    # Three standard errors of 400 draws; and no more careful than it has to be where errors come one by one.
    assert confidence - 3 * (confidence * (1 - confidence) / 400) ** 0.5 <= kept
    assert float(np.mean(rates)) > bound / 4


@pytest.mark.parametrize(("errors", "n", "limit"), [(0, 100, 1 - 0.1**0.01), (99, 100, 0.9**0.01), (3, 3, 1.0)])
def test_the_limit_is_that_of_the_binomial_distribution(errors, n, limit):
    assert upper_limit(errors, n, 0.9) == pytest.approx(limit)


def test_a_fitted_decision_is_no_laxer_than_its_bound():
    found, labels = drawn(1200, 0.8)
    fitted = fit(found[:300], labels[:300], 0.1, 0.9)
    unsafe = [fitted.decide(p) == Label.ALLOW for p, y in zip(found[300:], labels[300:], strict=True) if y]
    assert 0 < sum(unsafe) / len(unsafe) <= 0.1


def test_too_few_rows_for_the_bound_allow_nothing():
    found, labels = drawn(30, 1.0)
    assert fit(found, labels, 0.01, 0.9).thresholds[Label.ALLOW] == NEVER


def test_allow_is_likelier_than_all_the_others_together():
    found, labels = drawn(400, 1.0)
    assert fit(found, labels, 0.9, 0.9).thresholds[Label.ALLOW] >= calibration.ALLOW_MIN


def test_report_is_out_of_fold_and_mends_overconfidence():
    found, labels = drawn(400, 0.6)
    told = report(found, labels, 0.05, 0.9)
    assert told["after"]["calibration_error"] < told["before"]["calibration_error"]
    assert told["after"]["brier"] < told["before"]["brier"]
    assert sum(b["rows"] for b in told["after"]["reliability"]) == 400


def test_brier_and_reliability_by_hand():
    found, labels = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.75, 0.1, 0.05]]), np.array([0, 2])
    first, second = 0.09 + 3 * 0.01, 0.01 + 0.5625 + 0.81 + 0.0025
    assert brier(found, labels) == pytest.approx((first + second) / 2)
    assert reliability(found, labels) == [{"confidence": pytest.approx(0.725), "accuracy": 0.5, "rows": 2}]


def test_temper_is_softmax_of_scaled_logits():
    logits = np.array([[1.0, 2.0, 0.5, -1.0]])

    def softmax(z):
        return np.exp(z) / np.exp(z).sum()

    assert np.allclose(tempered(softmax(logits), 3.0), softmax(logits / 3.0))


def test_stored_and_read_back():
    kept = Calibration(1.7, (NEVER, 0.3, 0.4, 0.5))
    assert Calibration.from_json(kept.as_json(), "here") == kept


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0}, {"temperature": "x"}, {"thresholds": {"ALLOW": 0.5}}, {"thresholds": 3},
        {"thresholds": {"ALLOW": 0, "ESCALATION": 0.5, "DENY": 0.5, "REFUSE": 0.5}},
        {"thresholds": {"ALLOW": 0.5, "ESCALATION": 0.5, "DENY": 0.5, "REFUSE": 0.5, "SAFE": 0.1}},
    ],
)  # fmt: skip
def test_a_threshold_is_never_guessed(change):
    with pytest.raises(InputError, match="here"):
        Calibration.from_json({**Calibration().as_json(), **change}, "here")
