"""Three systems and more: the published examples, and what must hold for any scores."""

import math

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import cochrans_q

from so8t.benchmark import ranking
from tests.benchmark.worked import DEMSAR, ROUNDING_TIMES


def test_demsar_2006_table_6() -> None:
    scores = np.array(DEMSAR)
    ranks = ranking.ranks_of(scores)
    assert ranks.mean(0).round(3).tolist() == [3.143, 2.0, 2.893, 1.964]
    chi2 = ranking.uncorrected(ranks)
    assert chi2 == pytest.approx(9.2786, abs=5e-5)
    f, p = ranking.iman_davenport(chi2, 14, 4)
    assert (f, p) == (pytest.approx(3.6863, abs=5e-5), pytest.approx(0.019823, abs=5e-7))
    assert ranking.critical_difference(14, 4, 0.05) == pytest.approx(1.25, abs=5e-3)
    assert ranking.critical_difference(14, 4, 0.10) == pytest.approx(1.12, abs=5e-3)
    found = ranking.rank(scores)
    assert (found.chi2, found.p) == (pytest.approx(10.228346, abs=5e-7), pytest.approx(0.016722, abs=1e-5))
    assert found.kendall_w == pytest.approx(found.chi2 / (14 * 3))
    assert found.nemenyi_p[0][1:] == [pytest.approx(p, abs=5e-6) for p in (0.088673, 0.956177, 0.074185)]


def test_rounding_times_of_r() -> None:
    found = ranking.rank(-np.array(ROUNDING_TIMES))
    assert (found.chi2, found.p) == (pytest.approx(11.143, abs=5e-4), pytest.approx(0.003805, abs=5e-7))
    pairs = found.nemenyi_p[0][1], found.nemenyi_p[0][2], found.nemenyi_p[1][2]
    assert pairs == (
        pytest.approx(0.637427, abs=5e-6), pytest.approx(0.00441, abs=5e-6), pytest.approx(0.061371, abs=5e-6)
    )  # fmt: skip


def test_critical_values_of_three_and_four_systems() -> None:
    for k, q in ((3, 2.344), (4, 2.569)):
        assert ranking.critical_difference(1, k) == pytest.approx(q * math.sqrt(k * (k + 1) / 6), abs=2e-3)


def test_right_and_wrong_scores_give_cochrans_q() -> None:
    right = np.random.default_rng(1).random((60, 4)) < [0.4, 0.5, 0.6, 0.65]
    theirs = cochrans_q(right.astype(int))
    found = ranking.rank(right)
    assert (found.chi2, found.p) == (pytest.approx(theirs.statistic), pytest.approx(theirs.pvalue))


def test_equal_systems_rank_alike_with_p_one() -> None:
    found = ranking.rank(np.tile(np.arange(20.0)[:, None], (1, 3)))
    assert found.average_ranks == [2.0, 2.0, 2.0]
    assert (found.chi2, found.p, found.iman_davenport_f, found.iman_davenport_p, found.kendall_w) == (0, 1, 0, 1, 0)
    assert np.allclose(found.nemenyi_p, 1.0)


def test_a_perfect_order_has_no_finite_f() -> None:
    found = ranking.rank(np.tile([3.0, 2.0, 1.0], (12, 1)))
    assert (found.average_ranks, found.kendall_w) == ([1.0, 2.0, 3.0], pytest.approx(1.0))
    assert (found.iman_davenport_f, found.iman_davenport_p) == (None, 0.0)


def test_order_of_items_is_irrelevant_and_systems_keep_their_places() -> None:
    scores = np.random.default_rng(4).integers(1, 6, (40, 4)).astype(float)
    found = ranking.rank(scores)
    shuffled = ranking.rank(scores[::-1])
    assert shuffled.average_ranks == pytest.approx(found.average_ranks)
    turned = ranking.rank(scores[:, ::-1])
    assert turned.average_ranks == pytest.approx(found.average_ranks[::-1])
    assert turned.chi2 == pytest.approx(found.chi2)


def test_under_the_null_three_to_seven_percent_are_rejected() -> None:
    generator = np.random.default_rng(6)
    found = [ranking.corrected(ranking.ranks_of(generator.integers(1, 6, (100, 3))))[1] <= 0.05 for _ in range(400)]
    assert 0.03 <= np.mean(found) <= 0.07


@pytest.mark.soak
def test_two_thousand_null_runs_reject_three_to_seven_percent(record_property) -> None:
    generator = np.random.default_rng(8)
    found = [ranking.corrected(ranking.ranks_of(generator.integers(1, 6, (100, 3))))[1] <= 0.05 for _ in range(2000)]
    record_property("rejected", float(np.mean(found)))
    assert 0.03 <= np.mean(found) <= 0.07


def test_two_systems_are_no_matter_for_friedman() -> None:
    with pytest.raises(ValueError, match="three"):
        ranking.rank(np.ones((5, 2)))
