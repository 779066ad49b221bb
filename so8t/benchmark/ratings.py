"""Paired statistics on scores that are no mere right or wrong (ratings, log-likelihoods, chrF): pure functions.

Differences are always first minus second. Where none differs, that is decided first: difference 0, p 1, never nan.
Everything works on the sorted differences, so item order is irrelevant and exchanging the systems flips signs only.

Sources: Efron 1987 (BCa); Phipson and Smyth 2010 (p of a permutation test); Pratt 1959 (zeros in the signed-rank
test); Demsar 2006, section 3.1.3 (rank sums with split zeros); Cliff 1993 (delta); Kerby 2014 (matched rank-biserial);
Schuirmann 1987 (two one-sided t tests).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from so8t.benchmark.statistics import Floats, Interval, MarginTest, bca, mde_normal, mirrored, symmetric

FLIPS_AT_A_TIME = 1000  # bounds memory: this many rows of signs


@dataclass(frozen=True)
class PairedMean:
    """Difference of the mean score of two systems on the same items."""

    n: int
    first: float
    second: float
    difference: float
    interval: Interval
    p: float  # sign flips
    wilcoxon_p: float  # signed ranks, Pratt
    r_plus: float  # rank sum of the items on which the first scores more; zeros split
    r_minus: float
    rank_biserial: float  # over the items that differ
    cliffs_delta: float
    wins: int
    ties: int
    losses: int
    d_z: float  # mean difference in its own standard deviations
    mde: float


def compare(
    first: Sequence[float], second: Sequence[float], resamples: int, seed: int, alpha: float = 0.05, power: float = 0.8
) -> PairedMean:
    """Every number about one pair of systems; ValueError on unequal or empty input."""
    one, other = _pair(first, second)
    d = one - other
    n, spread = len(d), float(d.std(ddof=1)) if len(d) > 1 else 0.0
    plus, minus = signed_rank_sums(d)
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    return PairedMean(
        n=n,
        first=float(one.mean()),
        second=float(other.mean()),
        difference=_mean(d),
        interval=mean_interval(d, resamples, seed, 1 - alpha),
        p=sign_flip_p(d, resamples, seed),
        wilcoxon_p=wilcoxon_pratt_p(d),
        r_plus=plus,
        r_minus=minus,
        rank_biserial=rank_biserial(d),
        cliffs_delta=cliffs_delta(one, other),
        wins=wins,
        ties=n - wins - losses,
        losses=losses,
        d_z=_mean(d) / spread if spread else 0.0,
        mde=mde_normal(spread / math.sqrt(n), alpha, power),
    )


def _pair(first: Sequence[float], second: Sequence[float]) -> tuple[Floats, Floats]:
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape or not len(one):
        raise ValueError(f"{len(one)} and {len(other)} scores; paired tests need as many of each, at least one")
    return one, other


def _mean(d: Floats) -> float:
    """The mean; exact summation, so that order and orientation change no bit."""
    return math.fsum(d) / len(d)


def sign_flip_p(d: Floats, resamples: int, seed: int) -> float:
    """Two-sided p of the paired permutation test: under the null each difference has either sign by a coin."""
    if not np.any(d):
        return 1.0
    sizes, observed = np.sort(np.abs(d)), abs(math.fsum(d))
    generator, extreme = np.random.default_rng(seed), 0
    for start in range(0, resamples, FLIPS_AT_A_TIME):
        count = min(FLIPS_AT_A_TIME, resamples - start)
        signs = 2.0 * generator.integers(0, 2, (count, len(sizes))) - 1.0
        extreme += int((np.abs(signs @ sizes) >= observed - 1e-9 * sizes.sum()).sum())
    return (extreme + 1) / (resamples + 1)


def mean_interval(d: Floats, resamples: int, seed: int, level: float = 0.95) -> Interval:
    """BCa interval of the mean difference over items. One orientation is resampled, the other mirrored."""
    values, counts = np.unique(d, return_counts=True)
    mirror_values, mirror_counts = -values[::-1], counts[::-1]
    here, there = (_mean(d), [*values], [*counts]), (_mean(-d), [*mirror_values], [*mirror_counts])
    if there > here:
        return mirrored(mean_interval(-d, resamples, seed, level))
    n = len(d)
    if len(values) == 1 or n == 1:
        return Interval(_mean(d), _mean(d), level)
    replicates = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples) @ values / n
    jackknife = (math.fsum(d) - values) / (n - 1)
    interval = bca(_mean(d), replicates, jackknife, counts.astype(np.float64), level)
    return symmetric(interval) if here == there else interval


def wilcoxon_pratt_p(d: Floats) -> float:
    """Two-sided signed-rank p by the normal approximation; zeros are ranked, then dropped (Pratt)."""
    from scipy.stats import wilcoxon

    if not np.any(d):
        return 1.0
    return float(wilcoxon(d, zero_method="pratt", method="asymptotic").pvalue)


def signed_rank_sums(d: Floats) -> tuple[float, float]:
    """R+ and R-: rank sums of |d| over either sign; half the zeros' ranks go to each."""
    from scipy.stats import rankdata

    ranks = rankdata(np.abs(d))
    zeros = float(ranks[d == 0].sum()) / 2
    return float(ranks[d > 0].sum()) + zeros, float(ranks[d < 0].sum()) + zeros


def rank_biserial(d: Floats) -> float:
    """(R+ - R-) / (R+ + R-) over the non-zero differences; 0 where all are zero."""
    plus, minus = signed_rank_sums(d[d != 0])
    return (plus - minus) / (plus + minus) if plus + minus else 0.0


def cliffs_delta(first: Floats, second: Floats) -> float:
    """P(first > second) - P(first < second) over all pairs of items."""
    ordered, n = np.sort(second), len(second)
    below = np.searchsorted(ordered, first, side="left").sum()
    above = (n - np.searchsorted(ordered, first, side="right")).sum()
    return float((below - above) / (len(first) * n))


def equivalence(first: Sequence[float], second: Sequence[float], margin: float, alpha: float = 0.05) -> MarginTest:
    """Two one-sided paired t tests at `alpha`; `margin` in units of the score."""
    low, high, found = _one_sided(first, second, margin, alpha)
    p = max(low, high)
    return MarginTest(found.difference, found.interval, margin, p, p < alpha)


def non_inferiority(first: Sequence[float], second: Sequence[float], margin: float, alpha: float = 0.05) -> MarginTest:
    """One-sided paired t test: shown if the first scores less than the second by less than `margin`."""
    low, _, found = _one_sided(first, second, margin, alpha)
    return MarginTest(found.difference, found.interval, margin, low, low < alpha)


def _one_sided(
    first: Sequence[float], second: Sequence[float], margin: float, alpha: float
) -> tuple[float, float, MarginTest]:
    """p against "worse by the margin" and against "better by the margin", and the (1 - 2 alpha) interval."""
    from scipy.stats import t

    one, other = _pair(first, second)
    d, n = one - other, len(one)
    mean, error = _mean(d), float(d.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    if error == 0:  # no spread: the items all agree, and nothing is left to chance
        interval = Interval(mean, mean, 1 - 2 * alpha)
        return float(mean <= -margin), float(mean >= margin), MarginTest(mean, interval, margin, 1.0, False)
    half = float(t.ppf(1 - alpha, n - 1)) * error
    interval = Interval(mean - half, mean + half, 1 - 2 * alpha)
    low, high = float(t.sf((mean + margin) / error, n - 1)), float(t.cdf((mean - margin) / error, n - 1))
    return low, high, MarginTest(mean, interval, margin, 1.0, False)


def reachable_margin(d: Floats, tails: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest margin within which truly equal systems with such differences would be shown with `power`."""
    from scipy.stats import norm

    z_power = norm.ppf(power if tails == 1 else (1 + power) / 2)
    error = float(d.std(ddof=1)) / math.sqrt(len(d)) if len(d) > 1 else 0.0
    return float((norm.ppf(1 - alpha) + z_power) * error)
