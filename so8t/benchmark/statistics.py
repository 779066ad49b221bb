"""Paired statistics on right/wrong outcomes: pure functions, no randomness but from a given seed.

Differences are always first minus second. Input without any discordant pair is decided first:
the difference is 0 and p is 1, never nan. Nothing here depends on the order of the items.

Sources: McNemar 1947 (exact binomial form); Wilson 1927; Holm 1979; Cohen 1988 (h);
Efron 1987 (BCa); Tango 1998, "Equivalence test and confidence interval for the difference in
proportions for the paired-sample design", Statistics in Medicine 17 (score interval);
Schuirmann 1987 (two one-sided tests); Connor 1987 (McNemar sample size).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NORMAL = NormalDist()
BISECTIONS = 80  # halves an interval of width 2 below one double-precision ulp
NULL_SENTENCE = "no evidence of a difference"


@dataclass(frozen=True)
class Interval:
    """A confidence interval at `level`."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class PairedTable:
    """Outcomes of two systems on the same items; `n10`: first right, second wrong."""

    n11: int
    n10: int
    n01: int
    n00: int

    @property
    def n(self) -> int:
        """Items that both systems answered."""
        return self.n11 + self.n10 + self.n01 + self.n00

    @property
    def discordant(self) -> int:
        """Items on which exactly one system is right."""
        return self.n10 + self.n01

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second."""
        return (self.n10 - self.n01) / self.n

    def swapped(self) -> "PairedTable":
        """The same table with the systems exchanged."""
        return PairedTable(self.n11, self.n01, self.n10, self.n00)


@dataclass(frozen=True)
class MarginTest:
    """Equivalence (two margins) or non-inferiority (the lower margin) by the score test."""

    difference: float
    interval: Interval
    margin: float
    p: float
    shown: bool


def paired_table(first: Sequence[bool], second: Sequence[bool]) -> PairedTable:
    """Count the four outcomes of paired right/wrong answers; ValueError on unequal or empty input."""
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} outcomes; paired tests need as many of each, at least one")
    counts = [0, 0, 0, 0]
    for one, other in zip(first, second, strict=True):
        counts[2 * (not one) + (not other)] += 1
    return PairedTable(*counts)


def mcnemar_exact(table: PairedTable) -> float:
    """Two-sided exact p: min(1, 2 P(Bin(n10 + n01, 1/2) <= min(n10, n01))); 1 without discordant pairs."""
    m = table.discordant
    if m == 0:
        return 1.0
    ways, tail = 1, 1
    for k in range(min(table.n10, table.n01)):
        ways = ways * (m - k) // (k + 1)
        tail += ways
    return min(1.0, float(Fraction(2 * tail, 1 << m)))


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion, without continuity correction; [0, 1] for n = 0."""
    if n == 0:
        return Interval(0.0, 1.0, level)
    z = _NORMAL.inv_cdf(0.5 + level / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, high, level)


def proportion(successes: int, n: int) -> dict[str, Any]:
    """A share with its Wilson interval; None where there is nothing to count."""
    share = successes / n if n else None
    return {"successes": successes, "n": n, "share": share, "interval": asdict(wilson(successes, n))}


def cohens_h(first: float, second: float) -> float:
    """Cohen's h of two proportions: 2 asin sqrt(p1) - 2 asin sqrt(p2)."""
    return 2 * math.asin(math.sqrt(first)) - 2 * math.asin(math.sqrt(second))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def mde_mcnemar(n: int, discordance: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true accuracy difference that McNemar's test would find with `power`.

    Connor 1987: sqrt(n) d = z_{1-a/2} sqrt(p) + z_power sqrt(p - d^2) at discordance p. Where
    the solution exceeds p (a difference cannot exceed the discordance), p = d is taken.
    """
    z_alpha, z_power = _NORMAL.inv_cdf(1 - alpha / 2), _NORMAL.inv_cdf(power)

    def excess(delta: float) -> float:
        p = max(discordance, delta)
        return math.sqrt(n) * delta - z_alpha * math.sqrt(p) - z_power * math.sqrt(max(p - delta * delta, 0.0))

    return 1.0 if excess(1.0) <= 0 else _root(excess, 1e-9, 1.0)


def mde_normal(standard_error: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true difference found with `power` by a z-test with this standard error."""
    return (_NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)) * standard_error


def reachable_margin(n: int, discordance: float, tails: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest margin within which truly equal systems would be shown with `power`.

    `tails` 1: non-inferiority; 2: equivalence, which must succeed on both sides. Normal approximation
    at this discordance (sample size formula of the paired difference, as in `mde_mcnemar`).
    """
    z_power = _NORMAL.inv_cdf(power if tails == 1 else (1 + power) / 2)
    return (_NORMAL.inv_cdf(1 - alpha) + z_power) * math.sqrt(discordance / n)


def score_statistic(table: PairedTable, delta: float) -> float:
    """Tango's score statistic for the hypothesis difference = `delta` (-1 < delta < 1)."""
    n, b, c = table.n, table.n10, table.n01
    quadratic, linear, constant = 2 * n, -b - c + (2 * n - b + c) * delta, -c * delta * (1 - delta)
    root = math.sqrt(max(linear * linear - 4 * quadratic * constant, 0.0))
    p_second = (root - linear) / (2 * quadratic)
    variance = n * (2 * p_second + delta * (1 - delta))
    numerator = b - c - n * delta
    if variance <= 0:
        return 0.0 if numerator == 0 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)


def score_interval(table: PairedTable, level: float = 0.95) -> Interval:
    """Tango's score interval of the paired difference; sound without any discordant pair, too."""
    z = _NORMAL.inv_cdf(0.5 + level / 2)
    edge = 1 - 1e-12
    # The statistic falls as delta rises; it is 0 at the observed difference.
    centre = min(max(table.difference, -edge), edge)
    low = _root(lambda delta: z - score_statistic(table, delta), -edge, centre)
    high = _root(lambda delta: -z - score_statistic(table, delta), centre, edge)
    # A difference of 1 or -1 lies on the edge itself, which the statistic cannot be asked for.
    return Interval(min(low, table.difference), max(high, table.difference), level)


def equivalence(table: PairedTable, margin: float, alpha: float = 0.05) -> MarginTest:
    """Two one-sided score tests at `alpha`: shown if the (1 - 2 alpha) interval lies inside +-margin."""
    p_low = _upper_tail(score_statistic(table, -margin))
    p_high = _upper_tail(-score_statistic(table, margin))
    p = max(p_low, p_high)
    return MarginTest(table.difference, score_interval(table, 1 - 2 * alpha), margin, p, p < alpha)


def non_inferiority(table: PairedTable, margin: float, alpha: float = 0.05) -> MarginTest:
    """One-sided score test: shown if the first is worse than the second by less than `margin`."""
    p = _upper_tail(score_statistic(table, -margin))
    return MarginTest(table.difference, score_interval(table, 1 - 2 * alpha), margin, p, p < alpha)


def bca(estimate: float, replicates: Floats, jackknife: Floats, weights: Floats, level: float = 0.95) -> Interval:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987).

    replicates [R]; jackknife [J] leave-one-out values, each standing for `weights` [J] items.
    Replicates without spread give the point itself.
    """
    if float(np.ptp(replicates)) == 0.0:
        return Interval(estimate, estimate, level)
    below = float(np.mean(replicates < estimate)) + float(np.mean(replicates == estimate)) / 2
    least = 0.5 / len(replicates)
    z0 = _NORMAL.inv_cdf(min(max(below, least), 1 - least))
    centred = np.average(jackknife, weights=weights) - jackknife
    spread = float((weights * centred**2).sum())
    acceleration = 0.0 if spread == 0 else float((weights * centred**3).sum()) / (6 * spread**1.5)

    def bound(tail: float) -> float:
        z = z0 + _NORMAL.inv_cdf(tail)
        share = _NORMAL.cdf(z0 + z / (1 - acceleration * z))
        return float(np.quantile(replicates, min(max(share, 0.0), 1.0)))

    return Interval(bound((1 - level) / 2), bound((1 + level) / 2), level)


def paired_interval(table: PairedTable, resamples: int, seed: int, level: float = 0.95) -> Interval:
    """BCa interval of the paired difference over items, from the table's counts alone.

    One orientation is resampled, so that exchanging the systems mirrors the interval exactly.
    """
    if table.n10 < table.n01:
        return mirrored(paired_interval(table.swapped(), resamples, seed, level))
    values = np.array([1.0, 0.0, -1.0])
    counts = np.array([table.n10, table.n11 + table.n00, table.n01], np.float64)
    n = table.n
    replicates = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples) @ values / n
    there = counts > 0
    if n == 1:
        return Interval(table.difference, table.difference, level)
    jackknife = (counts @ values - values[there]) / (n - 1)
    interval = bca(table.difference, replicates, jackknife, counts[there], level)
    return symmetric(interval) if table.n10 == table.n01 else interval


def mirrored(interval: Interval) -> Interval:
    """The interval of the opposite difference."""
    return Interval(-interval.high, -interval.low, interval.level)


def symmetric(interval: Interval) -> Interval:
    """The interval around 0 of the same width: what a table without a direction must give."""
    half = (interval.high - interval.low) / 2
    return Interval(-half, half, interval.level)


def _upper_tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2)) if math.isfinite(z) else (0.0 if z > 0 else 1.0)


def _root(function: Any, low: float, high: float) -> float:
    """Bisection for a rising function; the edge itself where there is no change of sign."""
    if function(low) >= 0:
        return low
    if function(high) <= 0:
        return high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return (low + high) / 2
