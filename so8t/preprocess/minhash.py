"""MinHash of character 5-grams and the buckets in which near texts meet.

128 permutations in 32 bands of 4 rows (Broder 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets",
section 3.4): a pair of Jaccard 0.5 becomes a candidate with probability 0.87, one of 0.65 with 0.998. Shapes: N texts, C characters, G grams, P permutations, B bands.
"""

from collections.abc import Callable, Iterable
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from so8t import pulse
from so8t.preprocess.distinct import distinct

GRAM = 5
BANDS, ROWS = 32, 4
# A boilerplate bucket of n rows has n^2 pairs; each row is then compared with so many before it.
BUCKET_NEIGHBOURS = 50


def codes_of(key: str) -> np.ndarray:
    """Code points of a compare key, uint32 [C], C >= GRAM: shorter ones are padded with zeros."""
    codes_C = np.frombuffer(key.encode("utf-32-le", "surrogatepass"), "<u4")
    return np.concatenate([codes_C, np.zeros(GRAM - len(codes_C), np.uint32)]) if len(codes_C) < GRAM else codes_C


def bands(keys: Iterable[str], rows: int, seed: int) -> np.ndarray:
    """One hash a band and key, uint64 [B, N]; equal in a band means the same minima, but for 64-bit collisions."""
    rng = np.random.default_rng(seed)
    factors_P = rng.integers(0, 2**31, BANDS * ROWS).astype(np.uint32) * np.uint32(2) + np.uint32(1)
    terms_P = rng.integers(0, 2**32, BANDS * ROWS).astype(np.uint32)
    found_BN = np.empty((BANDS, rows), np.uint64)
    fill = _compiled("fill")
    for row, key in enumerate(keys):
        fill(codes_of(key), factors_P, terms_P, found_BN[:, row])
    return found_BN


def grams(key: str) -> np.ndarray:
    """Sorted distinct 64-bit hashes of the 5-grams of a compare key, uint64 [G]; of a shorter one the whole."""
    hashes_G: np.ndarray = _compiled("hashes")(codes_of(key))
    return distinct(hashes_G)


def shared(first_G: np.ndarray, second_G: np.ndarray) -> int:
    """How many hashes are in both."""
    return int(_compiled("common")(first_G, second_G))


def candidates(bands_BN: Iterable[np.ndarray]) -> np.ndarray:
    """Pairs of rows that share a band, each once, the smaller first, in order: int64 [pairs, 2].

    One band [N] is held at a time, and each pair as 8 bytes.
    """
    met = np.empty(0, np.int64)
    for hashes_N in bands_BN:
        order = np.argsort(hashes_N, kind="stable")
        ordered = hashes_N[order]
        edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
        starts, lengths = edges[:-1], np.diff(edges)
        twos = starts[lengths == 2]
        found = [np.stack([order[twos], order[twos + 1]], axis=1)]
        for start, length in zip(starts[lengths > 2], lengths[lengths > 2], strict=True):
            found.append(_pairs(order[start : start + length]))
        pairs_P2 = np.concatenate(found)
        met = distinct(np.concatenate([met, pairs_P2[:, 0] << 32 | pairs_P2[:, 1]]))
        pulse.beat()
    return np.stack([met >> 32, met & 0xFFFFFFFF], axis=1)


def _pairs(rows: np.ndarray) -> np.ndarray:
    if len(rows) <= BUCKET_NEIGHBOURS:
        return np.array(list(combinations(rows.tolist(), 2)), np.int64)
    # The first row stands for the rest, its neighbours for the edits in between.
    spans = [np.stack([rows[:-step], rows[step:]], axis=1) for step in range(1, BUCKET_NEIGHBOURS + 1)]
    first = np.stack([np.full(len(rows) - 1, rows[0]), rows[1:]], axis=1)
    return np.concatenate([*spans, first]).astype(np.int64)


@cache
def _compiled(name: str) -> Callable[..., Any]:
    from numba import njit

    if name == "fill":
        return njit(_filler(_compiled("hashes")), nogil=True)  # type: ignore[no-any-return]
    return njit({"hashes": _hashes, "common": _common}[name], nogil=True)  # type: ignore[no-any-return]


def _hashes(codes_C: np.ndarray) -> np.ndarray:
    multiplier = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads neighbouring code points
    hashes_G = np.empty(len(codes_C) - 4, np.uint64)
    for place in range(len(hashes_G)):
        value = np.uint64(0)
        for offset in range(5):
            value = (value ^ np.uint64(codes_C[place + offset])) * multiplier
            value ^= value >> np.uint64(29)
        hashes_G[place] = value
    return hashes_G


def _filler(hashes: Callable[[np.ndarray], np.ndarray]) -> Callable[..., None]:
    def fill(codes_C: np.ndarray, factors_P: np.ndarray, terms_P: np.ndarray, found_B: np.ndarray) -> None:
        mixed_G = (hashes(codes_C) >> np.uint64(32)).astype(np.uint32)
        rows = len(factors_P) // len(found_B)
        for band in range(len(found_B)):
            value = np.uint64(band + 1)
            for permutation in range(band * rows, (band + 1) * rows):
                factor, term = factors_P[permutation], terms_P[permutation]
                least = np.uint32(0xFFFFFFFF)
                for place in range(len(mixed_G)):
                    least = min(least, np.uint32(mixed_G[place] * factor + term))
                value = (value ^ np.uint64(least)) * np.uint64(0x9E3779B97F4A7C15)
                value ^= value >> np.uint64(29)
            found_B[band] = value

    return fill


def _common(first_G: np.ndarray, second_G: np.ndarray) -> int:
    a = b = count = 0
    while a < len(first_G) and b < len(second_G):
        if first_G[a] == second_G[b]:
            count += 1
            a += 1
            b += 1
        elif first_G[a] < second_G[b]:
            a += 1
        else:
            b += 1
    return count
