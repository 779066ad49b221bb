"""Published worked examples, agreement with scikit-learn, and what must hold for any table."""

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import cohen_kappa_score, f1_score

from so8t.benchmark import classification as c
from so8t.labels import Label

FOUR_CLASS = np.array([[34, 2, 0, 4], [5, 15, 0, 0], [2, 0, 15, 3], [1, 0, 4, 15]])


def random_answers(seed: int, n: int = 160, skill: float = 0.6) -> tuple[list[int], list[int], list[int]]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 4, n)

    def answer() -> np.ndarray:
        return np.where(generator.random(n) < skill, truth, generator.integers(0, 4, n))

    return truth.tolist(), answer().tolist(), answer().tolist()


def test_four_class_worked_example() -> None:
    assert float(c.macro_f1(FOUR_CLASS)) == pytest.approx(0.780899, abs=5e-7)
    assert c.balanced_accuracy(FOUR_CLASS) == pytest.approx(0.775)
    assert c.rate(FOUR_CLASS, [Label.ALLOW], [Label.DENY, Label.REFUSE]) == (4, 40)
    assert c.rate(FOUR_CLASS, [Label.DENY, Label.REFUSE], [Label.ALLOW]) == (3, 40)


def test_calibration_worked_example() -> None:
    confidence = [0.95] * 50 + [0.85] * 30 + [0.55] * 20
    correct = [i < 45 for i in range(50)] + [i < 24 for i in range(30)] + [i < 10 for i in range(20)]
    assert c.expected_calibration_error(confidence, correct) == pytest.approx(0.05)
    assert c.brier(confidence, correct) == pytest.approx(0.1455)
    order = np.random.default_rng(0).permutation(100)
    again = c.expected_calibration_error([confidence[i] for i in order], [correct[i] for i in order])
    assert again == pytest.approx(0.05)


def test_equal_mass_bins_hold_equal_counts() -> None:
    confidence = np.random.default_rng(2).random(200).tolist()
    assert [count for _, _, count in c.reliability(confidence, [True] * 200, bins=10)] == [20] * 10


@pytest.mark.parametrize("seed", range(5))
def test_agreement_with_scikit_learn(seed: int) -> None:
    truth, answers, _ = random_answers(seed)
    counts = c.confusion(truth, answers, 4)
    assert float(c.macro_f1(counts)) == pytest.approx(f1_score(truth, answers, average="macro"))
    assert c.quadratic_kappa(counts) == pytest.approx(cohen_kappa_score(truth, answers, weights="quadratic"))
    assert c.accuracy(counts) == pytest.approx(np.mean(np.equal(truth, answers)))


def test_a_class_absent_from_the_truth_counts_neither_way() -> None:
    truth, answers = [0, 0, 1, 1], [0, 1, 1, 1]
    expected = f1_score(truth, answers, labels=[0, 1], average="macro")
    assert float(c.macro_f1(c.confusion(truth, answers, 4))) == pytest.approx(expected)


def test_stratified_interval_agrees_with_a_plain_resampling_of_items() -> None:
    truth, answers, _ = random_answers(4, n=300)
    counts = c.confusion(truth, answers, 4)
    mine = c.macro_f1_interval(counts, 4000, 1)
    pairs = np.array([truth, answers])

    def statistic(index: np.ndarray) -> float:
        return float(c.macro_f1(c.confusion(pairs[0, index], pairs[1, index], 4)))

    plain = bootstrap((np.arange(300),), statistic, n_resamples=1500, method="BCa", vectorized=False, rng=1)
    assert mine.low == pytest.approx(plain.confidence_interval.low, abs=0.015)
    assert mine.high == pytest.approx(plain.confidence_interval.high, abs=0.015)


def test_permutation_agrees_with_swapping_items_one_by_one() -> None:
    truth, first, second = random_answers(9, n=80)
    score = c.paired_macro_f1(c.joint_table(truth, first, second, 4), 5000, 1)
    generator = np.random.default_rng(8)
    answers = np.array([first, second])
    extreme = 0
    for _ in range(2000):
        swap = generator.random(80) < 0.5
        one, other = np.where(swap, answers[::-1], answers)
        difference = c.macro_f1(c.confusion(truth, one, 4)) - c.macro_f1(c.confusion(truth, other, 4))
        extreme += abs(float(difference)) >= abs(score.difference) - 1e-12
    assert score.p == pytest.approx((extreme + 1) / 2001, abs=0.04)


def test_equal_answers_give_zero_and_p_one() -> None:
    truth, answers, _ = random_answers(1)
    score = c.paired_macro_f1(c.joint_table(truth, answers, answers, 4), 500, 1)
    assert (score.difference, score.p, score.interval.low, score.interval.high) == (0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(6))
def test_exchanging_the_systems_flips_signs_only(seed: int) -> None:
    truth, first, second = random_answers(seed, n=60)
    one = c.paired_macro_f1(c.joint_table(truth, first, second, 4), 800, 3)
    other = c.paired_macro_f1(c.joint_table(truth, second, first, 4), 800, 3)
    assert other.p == one.p
    assert other.difference == -one.difference
    assert (other.interval.low, other.interval.high) == (-one.interval.high, -one.interval.low)


def test_permutation_under_the_null_rejects_three_to_seven_percent() -> None:
    generator = np.random.default_rng(17)
    rejected = 0
    for seed in range(600):
        truth, first, second = random_answers(1000 + seed, n=120, skill=0.5)
        joint = c.joint_table(truth, first, second, 4)
        rejected += c.paired_macro_f1(joint, 300, int(generator.integers(1 << 30))).p <= 0.05
    assert 0.03 <= rejected / 600 <= 0.07


def test_a_clear_gain_is_found() -> None:
    truth = [k for k in range(4) for _ in range(25)]
    second = [0] * 100
    score = c.paired_macro_f1(c.joint_table(truth, truth, second, 4), 2000, 1)
    assert score.difference == pytest.approx(0.9)
    assert score.p == pytest.approx(1 / 2001)
