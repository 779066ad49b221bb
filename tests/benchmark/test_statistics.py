"""Published worked examples, and what must hold for any table."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from so8t.benchmark import statistics as s

COUNTS = st.integers(0, 60)
TABLES = st.builds(s.PairedTable, COUNTS, COUNTS, COUNTS, COUNTS).filter(lambda t: t.n > 0)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 5), (12, 3), (40, 61), (300, 260)])
def test_mcnemar_equals_the_binomial_test_and_statsmodels(b: int, c: int) -> None:
    p = s.mcnemar_exact(s.PairedTable(50, b, c, 20))
    if b + c:
        assert p == pytest.approx(binomtest(b, b + c).pvalue, abs=1e-12)
        assert p == pytest.approx(mcnemar([[50, b], [c, 20]], exact=True).pvalue, abs=1e-12)
    else:
        assert p == 1.0


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (4, 40, 0.0396, 0.2305), (3, 40, 0.0258, 0.1986)],
)
def test_wilson_published(k: int, n: int, low: float, high: float) -> None:
    interval = s.wilson(k, n)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_holm_published() -> None:
    assert s.holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    assert s.holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_cohens_h_published() -> None:
    assert s.cohens_h(0.65, 0.50) == pytest.approx(0.30469, abs=5e-6)


@pytest.mark.parametrize(
    ("n", "discordance", "points"),
    [(100, 0.1, 9), (100, 0.2, 12), (100, 0.3, 15), (1000, 0.1, 3), (1000, 0.2, 4), (1000, 0.3, 5)],
)
def test_mde_of_mcnemar_in_points(n: int, discordance: float, points: int) -> None:
    assert 100 * s.mde_mcnemar(n, discordance) == pytest.approx(points, abs=0.6)


def test_mde_is_never_above_the_discordance_that_it_implies() -> None:
    delta = s.mde_mcnemar(50, 0.0)
    assert 0 < delta < 1
    z_alpha, z_power = 1.959964, 0.841621
    assert (z_alpha + z_power * math.sqrt(1 - delta)) ** 2 == pytest.approx(50 * delta, rel=1e-4)


def test_mde_has_the_power_that_it_promises() -> None:
    n, discordance = 400, 0.25
    delta = s.mde_mcnemar(n, discordance)
    b, c = (discordance + delta) / 2, (discordance - delta) / 2
    generator = np.random.default_rng(3)
    draws = generator.multinomial(n, [b, c, 1 - b - c], size=2000)
    found = np.mean([s.mcnemar_exact(s.PairedTable(int(rest), int(x), int(y), 0)) < 0.05 for x, y, rest in draws])
    assert 0.74 <= found <= 0.84


def test_score_interval_without_discordance_is_the_closed_form() -> None:
    n, z = 44, 1.6448536269514722
    interval = s.score_interval(s.PairedTable(40, 0, 0, 4), level=0.90)
    assert interval.high == pytest.approx(z * z / (n + z * z), abs=1e-9)
    assert interval.low == pytest.approx(-interval.high, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(TABLES)
@example(s.PairedTable(0, 0, 1, 0))
@example(s.PairedTable(0, 3, 0, 0))
def test_score_interval_holds_what_the_score_test_accepts(table: s.PairedTable) -> None:
    interval = s.score_interval(table)
    assert interval.low <= table.difference <= interval.high
    for bound, sign in ((interval.low, 1), (interval.high, -1)):
        if abs(bound) < 1 - 1e-9:
            assert sign * s.score_statistic(table, bound) == pytest.approx(1.959964, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(TABLES)
def test_exchanging_the_systems_flips_signs_only(table: s.PairedTable) -> None:
    other = table.swapped()
    assert other.difference == -table.difference
    assert s.mcnemar_exact(other) == s.mcnemar_exact(table)
    for function in (lambda t: s.score_interval(t), lambda t: s.paired_interval(t, 500, 7)):
        mine, theirs = function(table), function(other)
        assert mine.low == pytest.approx(-theirs.high, abs=1e-9)
        assert mine.high == pytest.approx(-theirs.low, abs=1e-9)


def test_order_of_items_is_irrelevant() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.random(90) < 0.7, generator.random(90) < 0.5
    order = generator.permutation(90)
    assert s.paired_table(first.tolist(), second.tolist()) == s.paired_table(
        first[order].tolist(), second[order].tolist()
    )


def test_equal_systems_give_zero_and_p_one() -> None:
    right = [True, False, True, True] * 30
    table = s.paired_table(right, right)
    assert (table.difference, s.mcnemar_exact(table)) == (0.0, 1.0)
    assert s.paired_interval(table, 1000, 0) == s.Interval(0.0, 0.0)
    assert s.equivalence(table, 0.05).shown
    assert s.non_inferiority(table, 0.05).shown


def test_few_items_show_no_equivalence_however_equal() -> None:
    table = s.PairedTable(10, 0, 0, 10)
    assert not s.equivalence(table, 0.05).shown
    assert s.mcnemar_exact(table) == 1.0


@settings(max_examples=60, deadline=None)
@given(TABLES, st.floats(0.01, 0.4))
def test_equivalence_is_shown_exactly_when_the_interval_lies_inside(table: s.PairedTable, margin: float) -> None:
    test = s.equivalence(table, margin)
    inside = -margin < test.interval.low and test.interval.high < margin
    near = min(abs(test.interval.low + margin), abs(test.interval.high - margin)) < 1e-6
    assert near or test.shown == inside


def test_non_inferiority_accepts_better_and_refuses_worse() -> None:
    assert s.non_inferiority(s.PairedTable(80, 20, 0, 20), 0.05).shown
    assert not s.non_inferiority(s.PairedTable(80, 0, 20, 20), 0.05).shown


def test_tests_at_the_margin_reject_about_alpha() -> None:
    margin, n = 0.05, 500
    b, c = 0.10, 0.15  # the first is worse by exactly the margin
    draws = np.random.default_rng(5).multinomial(n, [b, c, 1 - b - c], size=3000)
    rejected = np.mean(
        [s.non_inferiority(s.PairedTable(int(rest), int(x), int(y), 0), margin).shown for x, y, rest in draws]
    )
    assert 0.03 <= rejected <= 0.07


def test_mcnemar_under_the_null_rejects_three_to_seven_percent() -> None:
    draws = np.random.default_rng(11).multinomial(1000, [0.2, 0.2, 0.6], size=3000)
    rejected = np.mean([s.mcnemar_exact(s.PairedTable(int(rest), int(x), int(y), 0)) < 0.05 for x, y, rest in draws])
    assert 0.03 <= rejected <= 0.07


def test_bca_covers_the_true_difference() -> None:
    b, c, n = 0.25, 0.10, 150
    draws = np.random.default_rng(13).multinomial(n, [b, c, 1 - b - c], size=300)
    intervals = [s.paired_interval(s.PairedTable(int(rest), int(x), int(y), 0), 800, 1) for x, y, rest in draws]
    covered = np.mean([i.low <= b - c <= i.high for i in intervals])
    assert 0.90 <= covered <= 0.985


def test_unequal_lengths_and_nothing_are_refused() -> None:
    for first, second in (([True], [True, False]), ([], [])):
        with pytest.raises(ValueError, match="paired"):
            s.paired_table(first, second)


@pytest.mark.parametrize(("tails", "test"), [(1, s.non_inferiority), (2, s.equivalence)])
def test_equal_systems_are_shown_within_the_reachable_margin_as_often_as_promised(tails: int, test: Any) -> None:
    n, discordance = 400, 0.2
    margin = s.reachable_margin(n, discordance, tails)
    draws = np.random.default_rng(23).multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], size=1500)
    found = np.mean([test(s.PairedTable(int(rest), int(x), int(y), 0), margin).shown for x, y, rest in draws])
    assert 0.75 <= found <= 0.85
