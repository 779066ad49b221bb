"""Exact and near duplicates: MinHash finds candidate pairs, an exact Jaccard check decides.

Character 5-grams of the compare key, 125 permutations in 25 bands of 5 rows (Broder 1997; Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4): a pair of Jaccard 0.5 becomes a candidate with
probability 0.55, one of 0.7 with 0.99. No pair is merged unverified.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from so8t.preprocess.normalise import compare_key
from so8t.records import Record

GRAM = 5
BANDS, ROWS = 25, 5
# A boilerplate bucket of n rows has n^2 pairs; each row is then compared with so many before it.
BUCKET_NEIGHBOURS = 50


@dataclass(frozen=True)
class Pair:
    """Two row numbers, the first one smaller, and the Jaccard similarity of their 5-grams."""

    first: int
    second: int
    jaccard: float


def grams(text: str) -> np.ndarray:
    """Sorted distinct 64-bit hashes of the 5-grams of a text's compare key; the whole of a shorter one."""
    codes = np.frombuffer(compare_key(text).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    if len(codes) < GRAM:
        codes = np.concatenate([codes, np.zeros(GRAM - len(codes), np.uint64)])
    multiplier = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads neighbouring code points
    hashes = np.zeros(len(codes) - GRAM + 1, np.uint64)
    for offset in range(GRAM):
        hashes = (hashes ^ codes[offset : offset + len(hashes)]) * multiplier
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes)


def signature(shingles: np.ndarray, factors: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """MinHash signature, shape [permutations], by multiply-add-shift hashing."""
    mixed: np.ndarray = (factors[:, None] * shingles + terms[:, None]).min(axis=1)
    return mixed >> np.uint64(32)


def find_pairs(texts: list[str], threshold: float, seed: int) -> list[Pair]:
    """Pairs whose Jaccard is at least `threshold`, sorted by row numbers."""
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, 2**63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    terms = rng.integers(0, 2**63, BANDS * ROWS, dtype=np.uint64)
    shingles = [grams(text) for text in texts]
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for row, own in enumerate(shingles):
        bands = signature(own, factors, terms).reshape(BANDS, ROWS)
        for band, values in enumerate(bands):
            buckets[band, values.tobytes()].append(row)
    pairs = []
    for first, second in sorted(_candidates(buckets)):
        shared = len(np.intersect1d(shingles[first], shingles[second], assume_unique=True))
        jaccard = shared / (len(shingles[first]) + len(shingles[second]) - shared)
        if jaccard >= threshold:
            pairs.append(Pair(first, second, jaccard))
    return pairs


def _candidates(buckets: dict[tuple[int, bytes], list[int]]) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for rows in buckets.values():
        if len(rows) <= BUCKET_NEIGHBOURS:
            found.update(combinations(rows, 2))
        else:  # the first row stands for the rest, its neighbours for the edits in between
            for place, row in enumerate(rows[1:], 1):
                found.update((earlier, row) for earlier in {rows[0], *rows[max(0, place - BUCKET_NEIGHBOURS) : place]})
    return found


def drop(records: list[Record], pairs: list[Pair], threshold: float) -> dict[int, str]:
    """Rows to drop and why: an earlier survivor of the same class says the same. Opposite classes are kept.

    `records` stand in the canonical order (`split.canonical`), so the outcome does not depend on theirs.
    """
    earlier: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        earlier[pair.second].append(pair)
    dropped: dict[int, str] = {}
    for row in sorted(earlier):
        for pair in earlier[row]:
            same_class = records[pair.first].label == records[row].label
            if same_class and pair.first not in dropped and pair.jaccard >= threshold:
                exact = compare_key(records[pair.first].prompt) == compare_key(records[row].prompt)
                dropped[row] = f"{'exact' if exact else 'near'} duplicate of {records[pair.first].id}"
                break
    return dropped
