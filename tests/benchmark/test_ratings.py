"""Scores beyond right and wrong: published examples, other implementations, and what must hold for any data."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, permutation_test, ttest_rel, wilcoxon
from statsmodels.stats.weightstats import ttost_paired

from so8t.benchmark import ratings as r
from tests.benchmark.worked import C45, C45_M

GRADES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=40)


def judged(generator: np.random.Generator, n: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two systems' grades 1-5 that share the items' difficulty, with many ties: as a judge gives them."""
    difficulty = generator.normal(3.2, 0.9, n)
    return tuple(np.clip(np.round(difficulty + shift + generator.normal(0, 0.9, n)), 1, 5) for shift in (effect, 0.0))  # type: ignore[return-value]


def test_wilcoxon_rank_sums_of_demsar_2006() -> None:
    d = np.array(C45_M) - np.array(C45)
    assert r.signed_rank_sums(d.round(6)) == (93.0, 12.0)
    assert wilcoxon(d.round(6), zero_method="zsplit", method="asymptotic").pvalue == pytest.approx(0.010968, abs=5e-7)


def test_sign_flips_agree_with_scipy() -> None:
    one, other = judged(np.random.default_rng(1), 30, 0.4)
    theirs = permutation_test(
        (one - other,), lambda d, axis: d.mean(axis), permutation_type="samples", vectorized=True, n_resamples=20000, rng=2
    ).pvalue  # fmt: skip
    assert r.sign_flip_p(one - other, 20000, 3) == pytest.approx(theirs, abs=0.01)


def test_few_items_agree_with_all_sign_flips() -> None:
    d = np.array([2.0, 1.0, 0.0, 3.0, -1.0, 1.0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    exact = np.mean(np.abs(signs @ np.abs(d)) >= abs(d.sum()))
    assert r.sign_flip_p(d, 40000, 0) == pytest.approx(exact, abs=0.01)


def test_interval_agrees_with_scipys_bca() -> None:
    one, other = judged(np.random.default_rng(5), 80, 0.3)
    d = one - other
    mine = r.mean_interval(d, 20000, 1)
    theirs = bootstrap((d,), np.mean, n_resamples=20000, method="BCa", rng=1).confidence_interval
    assert (mine.low, mine.high) == (pytest.approx(theirs.low, abs=0.02), pytest.approx(theirs.high, abs=0.02))


@pytest.mark.parametrize("seed", range(3))
def test_margin_tests_equal_statsmodels(seed: int) -> None:
    one, other = judged(np.random.default_rng(seed), 50, 0.1)
    p, (_, low, _), _ = ttost_paired(one, other, -0.5, 0.5)
    found = r.equivalence(one.tolist(), other.tolist(), 0.5)
    assert found.p == pytest.approx(p)
    assert found.shown == (found.interval.low > -0.5 and found.interval.high < 0.5)
    assert r.non_inferiority(one.tolist(), other.tolist(), 0.5).p == pytest.approx(low)


def test_cliffs_delta_by_counting_pairs() -> None:
    one, other = judged(np.random.default_rng(7), 25, 0.5)
    assert r.cliffs_delta(one, other) == pytest.approx(np.mean(np.sign(one[:, None] - other[None])))


def test_rank_biserial_of_one_sided_and_balanced_differences() -> None:
    assert r.rank_biserial(np.array([1.0, 2.0, 0.0])) == 1.0
    assert r.rank_biserial(np.array([-1.0, 1.0])) == 0.0


def test_equal_systems_give_zero_p_one_and_equivalent() -> None:
    scores = [1.0, 4.0, 5.0, 3.0] * 25
    found = r.compare(scores, scores, 500, 1)
    assert (found.difference, found.p, found.wilcoxon_p, found.d_z, found.mde) == (0.0, 1.0, 1.0, 0.0, 0.0)
    assert (found.interval.low, found.interval.high, found.rank_biserial) == (0.0, 0.0, 0.0)
    assert (found.wins, found.ties, found.losses, found.cliffs_delta) == (0, 100, 0, 0.0)
    test = r.equivalence(scores, scores, 0.25)
    assert (test.shown, test.p) == (True, 0.0)
    assert r.non_inferiority(scores, scores, 0.25).shown


def test_a_constant_difference_beyond_the_margin_is_not_equivalent() -> None:
    low, high = [2.0] * 10, [3.0] * 10
    assert not r.equivalence(low, high, 0.5).shown
    assert not r.non_inferiority(low, high, 0.5).shown
    assert r.non_inferiority(high, low, 0.5).shown


@settings(max_examples=15, deadline=None)
@given(GRADES)
def test_a_swap_flips_signs_only_and_order_is_irrelevant(grades: list[tuple[int, int]]) -> None:
    one, other = (np.array(column, float) for column in zip(*grades, strict=True))
    here, there = r.compare(one, other, 300, 3), r.compare(other, one, 300, 3)
    assert (there.p, there.wilcoxon_p, there.mde) == (here.p, pytest.approx(here.wilcoxon_p), here.mde)
    for name in ("difference", "rank_biserial", "cliffs_delta"):
        assert getattr(there, name) == pytest.approx(-getattr(here, name), abs=1e-12)
    assert (there.interval.low, there.interval.high) == (-here.interval.high, -here.interval.low)
    assert (there.wins, there.losses) == (here.losses, here.wins)
    order = np.random.default_rng(0).permutation(len(one))
    shuffled = r.compare(one[order], other[order], 300, 3)
    assert (shuffled.p, shuffled.interval) == (here.p, here.interval)
    assert all(math.isfinite(value) for value in (here.p, here.wilcoxon_p, here.d_z, here.interval.low))


def null_rejections(runs: int, resamples: int) -> tuple[float, float, float]:
    """Shares of p <= .05 under the null: sign flips, Wilcoxon-Pratt, and the unpaired t of the paired data."""
    generator = np.random.default_rng(29)
    found = np.zeros(3)
    for seed in range(runs):
        one, other = judged(generator, 100)
        d = one - other
        p_values = r.sign_flip_p(d, resamples, seed), r.wilcoxon_pratt_p(d), float(ttest_rel(one, other).pvalue)
        found += np.array(p_values) <= 0.05
    flips, pratt, paired_t = (found / runs).tolist()
    return flips, pratt, paired_t


def test_under_the_null_three_to_seven_percent_are_rejected() -> None:
    assert all(0.03 <= share <= 0.07 for share in null_rejections(400, 300))


@pytest.mark.soak
def test_two_thousand_null_runs_reject_three_to_seven_percent(record_property) -> None:
    shares = null_rejections(2000, 2000)
    record_property("rejected", dict(zip(("sign flips", "Wilcoxon-Pratt", "paired t"), shares, strict=True)))
    assert all(0.03 <= share <= 0.07 for share in shares)


def test_the_minimum_detectable_effect_is_found_as_often_as_promised() -> None:
    generator, n = np.random.default_rng(31), 100
    mde = r.compare(*judged(generator, n), 300, 1).mde
    d_sd = mde / (1.959964 + 0.841621) * math.sqrt(n)
    found = [float(ttest_rel(generator.normal(mde, d_sd, n), np.zeros(n)).pvalue) <= 0.05 for _ in range(600)]
    assert 0.75 <= np.mean(found) <= 0.85


def test_unequal_or_no_scores_are_refused() -> None:
    for first, second in (([1.0], [1.0, 2.0]), ([], [])):
        with pytest.raises(ValueError, match="paired"):
            r.compare(first, second, 300, 1)
