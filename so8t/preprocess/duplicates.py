"""Exact and near duplicates: MinHash finds candidate pairs, an exact Jaccard check decides.

The compare keys of candidates are looked up and their grams made again. No pair is merged unverified.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from so8t import pulse
from so8t.preprocess import minhash
from so8t.preprocess.normalise import compare_key

GRAMS_HELD = 2048  # candidates come sorted by their first row, whose grams are then at hand
BELOW_ONE = 1 - 1e-9  # texts of equal 5-grams in another order
EXACT, NEAR = "exact duplicate of {}", "near duplicate of {}"


class Pair(NamedTuple):
    """Two row numbers, the first one smaller, and the Jaccard similarity of their 5-grams."""

    first: int
    second: int
    jaccard: float


def find_pairs(texts: list[str], threshold: float, seed: int) -> list[Pair]:
    """Pairs whose Jaccard of the compare keys' 5-grams is at least `threshold`, sorted by row numbers."""
    keys = [compare_key(text) for text in texts]
    return verified(minhash.candidates(minhash.bands(keys, len(keys), seed)), keys.__getitem__, threshold)


def verified(candidates_P2: np.ndarray, key_of: Callable[[int], str], threshold: float) -> list[Pair]:
    """The candidate pairs [P, 2] of row numbers whose Jaccard is at least `threshold`; 1 is given to equal keys alone."""
    grams = lru_cache(GRAMS_HELD)(lambda row: minhash.grams(key_of(row)))
    pairs = []
    for first, second in candidates_P2.tolist():
        pulse.beat()
        if key_of(first) == key_of(second):
            pairs.append(Pair(first, second, 1.0))
            continue
        left, right = grams(first), grams(second)
        both = minhash.shared(left, right)
        jaccard = min(both / (len(left) + len(right) - both), BELOW_ONE)
        if jaccard >= threshold:
            pairs.append(Pair(first, second, jaccard))
    return pairs


def drop(
    labels_N: np.ndarray, pairs: Sequence[Pair], threshold: float, order_N: np.ndarray | None = None
) -> dict[int, tuple[str, int]]:
    """Rows to drop, and (why, the row that stays): an earlier survivor of the same class says the same.

    Opposite classes are kept, and so is a near copy that has an opposite of its own (a pair of at least the pairs'
    threshold): with it a minimal pair would go. Of equal texts of one class the first stands for all. Which is earlier
    says `order_N`, all rows by precedence; by default the canonical order, in which they are numbered.
    """
    rank_N = np.argsort(np.arange(len(labels_N)) if order_N is None else order_N)
    opposed = {
        row
        for pair in pairs
        if -1 < labels_N[pair.first] != labels_N[pair.second] > -1
        for row in (pair.first, pair.second)
    }
    earlier: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for pair in pairs:
        first, row = sorted(pair[:2], key=rank_N.__getitem__)
        earlier[row].append((first, pair.jaccard))
    dropped: dict[int, tuple[str, int]] = {}
    for row in sorted(earlier, key=rank_N.__getitem__):
        for first, jaccard in sorted(earlier[row], key=lambda found: int(rank_N[found[0]])):
            exact = jaccard == 1
            allowed = jaccard >= threshold and (exact or row not in opposed)
            if allowed and labels_N[first] == labels_N[row] and first not in dropped:
                dropped[row] = (EXACT if exact else NEAR, first)
                break
    return dropped
