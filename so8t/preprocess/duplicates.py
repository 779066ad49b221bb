"""Exact and near duplicates: MinHash finds candidate pairs, an exact Jaccard check decides.

Only the band hashes and the compare keys of all texts are held; the grams of candidates are made again. No pair
is merged unverified.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

from so8t.preprocess import minhash
from so8t.preprocess.normalise import compare_key
from so8t.records import Record

GRAMS_HELD = 2048  # candidates come sorted by their first row, whose grams are then at hand


@dataclass(frozen=True)
class Pair:
    """Two row numbers, the first one smaller, and the Jaccard similarity of their 5-grams."""

    first: int
    second: int
    jaccard: float


def find_pairs(texts: list[str], threshold: float, seed: int) -> list[Pair]:
    """Pairs whose Jaccard of the compare keys' 5-grams is at least `threshold`, sorted by row numbers."""
    keys = [compare_key(text) for text in texts]
    grams = lru_cache(GRAMS_HELD)(lambda row: minhash.grams(keys[row]))
    pairs = []
    for first, second in minhash.candidates(minhash.bands(keys, len(keys), seed)).tolist():
        if keys[first] == keys[second]:
            pairs.append(Pair(first, second, 1.0))
            continue
        left, right = grams(first), grams(second)
        both = minhash.shared(left, right)
        jaccard = both / (len(left) + len(right) - both)
        if jaccard >= threshold:
            pairs.append(Pair(first, second, jaccard))
    return pairs


def drop(records: list[Record], pairs: list[Pair], threshold: float) -> dict[int, str]:
    """Rows to drop and why: an earlier survivor of the same class says the same.

    Opposite classes are kept, and so is a near copy that has an opposite of its own (a pair of at least the pairs'
    threshold): with it a minimal pair would go. Of equal texts of one class the first stands for all.
    `records` stand in the canonical order (`split.canonical`), so the outcome does not depend on theirs.
    """
    opposed = {
        row
        for pair in pairs
        if -1 < records[pair.first].label != records[pair.second].label > -1
        for row in (pair.first, pair.second)
    }
    earlier: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        earlier[pair.second].append(pair)
    dropped: dict[int, str] = {}
    for row in sorted(earlier):
        for pair in earlier[row]:
            same_class = records[pair.first].label == records[row].label
            if same_class and pair.first not in dropped and pair.jaccard >= threshold:
                exact = compare_key(records[pair.first].prompt) == compare_key(records[row].prompt)
                if row in opposed and not exact:
                    continue
                dropped[row] = f"{'exact' if exact else 'near'} duplicate of {records[pair.first].id}"
                break
    return dropped
