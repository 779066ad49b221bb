"""Three systems and more on the same items: average ranks, whether they differ at all, and which pairs do.

Legend: N items, K systems. Scores: more is better; rank 1 is the best, ties share the mean rank.

Sources: Friedman 1937 (with the correction for ties, which for right/wrong scores is Cochran's Q); Iman and Davenport
1980; Nemenyi 1963; Demsar 2006, section 3.2.2; Kendall's W.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from so8t.benchmark.statistics import Floats


@dataclass(frozen=True)
class Ranking:
    """How K systems rank over N items."""

    n: int
    average_ranks: list[float]
    chi2: float  # corrected for ties
    p: float
    iman_davenport_f: float | None  # None: without bound
    iman_davenport_p: float
    kendall_w: float
    critical_difference: float
    nemenyi_p: list[list[float]]


def rank(scores_NK: NDArray[Any], alpha: float = 0.05) -> Ranking:
    """Rank at least three systems; ValueError for fewer or for no item. All equal: chi2 0, p 1."""
    n, k = scores_NK.shape
    if k < 3 or not n:
        raise ValueError(f"{k} systems and {n} items; Friedman's test needs three and one")
    ranks_NK = ranks_of(scores_NK)
    average = ranks_NK.mean(0)
    chi2, p = corrected(ranks_NK)
    f, f_p = iman_davenport(chi2, n, k)
    return Ranking(
        n=n,
        average_ranks=average.tolist(),
        chi2=chi2,
        p=p,
        iman_davenport_f=f,
        iman_davenport_p=f_p,
        kendall_w=chi2 / (n * (k - 1)),
        critical_difference=critical_difference(n, k, alpha),
        nemenyi_p=nemenyi_p(average, n).tolist(),
    )


def ranks_of(scores_NK: NDArray[Any]) -> Floats:
    """Ranks [N, K] within each item; 1 has the highest score."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-np.asarray(scores_NK, np.float64), axis=1), np.float64)


def uncorrected(ranks_NK: Floats) -> float:
    """Friedman's chi2 as it is for ranks without ties: 12 N / (K (K + 1)) (sum R^2 - K (K + 1)^2 / 4)."""
    n, k = ranks_NK.shape
    return float(12 * n / (k * (k + 1)) * ((ranks_NK.mean(0) ** 2).sum() - k * (k + 1) ** 2 / 4))


def corrected(ranks_NK: Floats) -> tuple[float, float]:
    """Friedman's chi2 corrected for ties, and its p with K - 1 degrees of freedom."""
    from scipy.stats import friedmanchisquare

    if float(np.ptp(ranks_NK)) == 0.0:
        return 0.0, 1.0
    found = friedmanchisquare(*(-ranks_NK).T)
    return float(found.statistic), float(found.pvalue)


def iman_davenport(chi2: float, n: int, k: int) -> tuple[float | None, float]:
    """F = (N - 1) chi2 / (N (K - 1) - chi2) with K - 1 and (K - 1)(N - 1) degrees of freedom, and its p."""
    from scipy.stats import f

    rest = n * (k - 1) - chi2
    if rest <= 1e-9 * n or n == 1:  # every item ranks alike: F has no bound; one item: no freedom
        return (None, 0.0) if n > 1 else (0.0, 1.0)
    value = (n - 1) * chi2 / rest
    return value, float(f.sf(value, k - 1, (k - 1) * (n - 1)))


def critical_difference(n: int, k: int, alpha: float = 0.05) -> float:
    """Nemenyi's: average ranks that lie further apart differ at `alpha`."""
    from scipy.stats import studentized_range

    return float(studentized_range.isf(alpha, k, np.inf) / math.sqrt(2) * _rank_error(n, k))


def nemenyi_p(average_K: Floats, n: int) -> Floats:
    """p [K, K] of every pair of average ranks."""
    from scipy.stats import studentized_range

    k = len(average_K)
    gaps = np.abs(average_K[:, None] - average_K[None]) / _rank_error(n, k)
    return np.asarray(np.clip(studentized_range.sf(gaps * math.sqrt(2), k, np.inf), 0.0, 1.0), np.float64)


def _rank_error(n: int, k: int) -> float:
    return math.sqrt(k * (k + 1) / (6 * n))
