"""Every pair of texts in different splits that is as near as a bound, without a chance of missing one.

Prefix filter (Chaudhuri, Ganti, Kaushik, "A Primitive Operator for Similarity Joins in Data Cleaning", ICDE 2006): in any
one order of all n-grams, two sets with a Jaccard of at least t share one of the first n - ceil(t n) + 1 of each. With the
rare ones first few texts meet. The order is by how often an n-gram's hash occurs, then by the hash; a candidate's Jaccard
is counted on strings. Shapes: N rows, G distinct n-grams of a text, P postings, M meetings.

Texts are read twice, to count n-grams and to make postings, which are sorted on disk; what is held is one size a row and
what the constants below bound.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from so8t import pulse
from so8t.preprocess.distinct import distinct
from so8t.preprocess.postings import Postings

GRAM = 5
COUNTERS = 1 << 25  # of one byte; n-grams that share one are only ordered otherwise, and looked at in vain
MEETINGS_HELD, BLOCK, GRAMS_HELD = 1 << 20, 10_000, 64
ARRAY = 16  # meetings take the place of an array's own 128 bytes
_MULTIPLIERS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0xFF51AFD7ED558CCD], np.uint64
)

Keys = Callable[[], Iterable[tuple[int, str]]]  # (row, compare key) of each text in order, as often as asked
Some = Callable[[np.ndarray], dict[int, str]]  # compare keys of some rows


def near(
    keys: Keys, some: Some, splits_N: np.ndarray, threshold: float, folder: Path | None = None
) -> Iterator[tuple[int, int, float]]:
    """(row, later row, Jaccard) of each pair whose splits differ, in order. `folder` is where postings may lie meanwhile."""
    found: dict[tuple[int, int], float] = {}
    with Postings(folder) as postings:
        sizes_N = _fill(postings, keys, len(splits_N), threshold)
        for met_M in _meetings(postings.parts(), splits_N, sizes_N, threshold):
            found.update(_verified(met_M, some, len(splits_N), threshold))
    for (one, other), jaccard in sorted(found.items()):
        yield one, other, jaccard


def _fill(postings: Postings, keys: Keys, rows: int, threshold: float) -> np.ndarray:
    """Add each text's looked-at n-grams, save those that only one text has; gives how many each text has, int32 [N]."""
    counts, sizes_N = np.zeros(COUNTERS, np.uint8), np.zeros(rows, np.int32)
    for row, key in keys():
        hashes_G = hashes(key)
        slots = hashes_G % np.uint64(COUNTERS)
        counts[slots] = np.minimum(counts[slots], 254) + 1
        sizes_N[row] = len(hashes_G)
    for row, key in keys():
        hashes_G = hashes(key)
        counts_G = counts[hashes_G % np.uint64(COUNTERS)]
        order = np.lexsort((hashes_G, counts_G))[: prefix(len(hashes_G), threshold)]
        postings.add(hashes_G[order[counts_G[order] > 1]], row)
    return sizes_N


def _verified(met_M: np.ndarray, some: Some, rows: int, threshold: float) -> Iterator[tuple[tuple[int, int], float]]:
    for start in range(0, len(met_M), BLOCK):
        first, second = np.divmod(met_M[start : start + BLOCK], rows)
        texts = some(np.union1d(first, second))
        grams_of = lru_cache(GRAMS_HELD)(lambda row, texts=texts: grams(texts[row]))
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            left, right = grams_of(one), grams_of(other)
            both = len(left & right)
            jaccard = both / (len(left) + len(right) - both)
            if jaccard >= threshold:
                yield (one, other), jaccard
        del texts, grams_of  # not two blocks' at a time


def prefix(size: int, threshold: float) -> int:
    """How many of a text's n-grams are looked at."""
    return size - int(np.ceil(threshold * size - 1e-9)) + 1


def grams(key: str) -> set[str]:
    """The distinct n-grams of a compare key; of a shorter one the whole."""
    return {key[place : place + GRAM] for place in range(max(1, len(key) - GRAM + 1))}


def hashes(key: str) -> np.ndarray:
    """A 64-bit hash of each distinct n-gram, uint64 [G], by another function than MinHash's."""
    codes_C = np.frombuffer(key.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    codes_C = np.pad(codes_C, (0, max(0, GRAM - len(codes_C))))
    mixed_G = np.lib.stride_tricks.sliding_window_view(codes_C, GRAM) @ _MULTIPLIERS
    mixed_G = (mixed_G ^ (mixed_G >> np.uint64(31))) * _MULTIPLIERS[0]
    return distinct(mixed_G ^ (mixed_G >> np.uint64(29)))


def _meetings(
    parts: Iterable[tuple[np.ndarray, np.ndarray]], splits_N: np.ndarray, sizes_N: np.ndarray, threshold: float
) -> Iterator[np.ndarray]:
    """Rows of different splits that share a looked-at n-gram and whose sizes allow the bound: first * N + second [M].

    What does not fit into memory at once comes in parts, in which a pair may come again.
    """
    waiting: list[np.ndarray] = []
    held = 0
    for hashes_P, rows_P in parts:
        pulse.beat()
        for rows in _mixed(hashes_P, rows_P, splits_N):
            for place, row in enumerate(rows[:-1]):
                others = rows[place + 1 :]
                others = others[splits_N[others] != splits_N[row]]
                sizes = sizes_N[others]
                others = others[np.minimum(sizes, sizes_N[row]) >= threshold * np.maximum(sizes, sizes_N[row]) - 1e-9]
                waiting.append(row.astype(np.int64) * len(splits_N) + others)
                held += len(others) + ARRAY
                if held > MEETINGS_HELD:
                    waiting = [distinct(np.concatenate(waiting))]
                    if len(waiting[0]) > MEETINGS_HELD // 2:
                        yield waiting.pop()
                    held = sum(map(len, waiting))
    if waiting:
        yield distinct(np.concatenate(waiting))


def _mixed(hashes_P: np.ndarray, rows_P: np.ndarray, splits_N: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each hash that stands in more than one split, ascending."""
    starts = np.flatnonzero(np.concatenate([[True], hashes_P[1:] != hashes_P[:-1]]))
    ends, splits_P = np.append(starts[1:], len(rows_P)), splits_N[rows_P]
    mixed = np.minimum.reduceat(splits_P, starts) != np.maximum.reduceat(splits_P, starts)
    for start, end in zip(starts[mixed].tolist(), ends[mixed].tolist(), strict=True):
        yield rows_P[start:end]
