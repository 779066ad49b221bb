"""Does a held-out row, or one like it, lie in another split? By another way than the one that made the splits.

`split` trusts MinHash, which misses a pair by chance. Here n-grams are plain strings in an inverted index, so each
Jaccard is exact and no pair is missed; the price is that only so many held-out texts are indexed.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from so8t.preprocess.index import NONE, SPLITS, Index

GRAM = 5
BLOCK = 20_000  # texts in memory at a time
Leak = tuple[int, int, float]  # row, later row, Jaccard


def near(index: Index, threshold: float, rows_max: int) -> Iterator[Leak]:
    """Texts in different splits that are as near as `threshold` or nearer.

    Up to `rows_max` texts of test and validation, chosen by a hash of their ids, are each compared with every
    text of the other splits.
    """
    texts = np.flatnonzero(index.text_N & (index.split_N != NONE))
    held_out = texts[index.split_N[texts] != SPLITS.index("train")]
    chosen = np.sort(np.array(sorted(held_out.tolist(), key=lambda row: _draw(index.ids[row]))[:rows_max], np.int64))
    sizes: dict[int, int] = {}
    grams_of: dict[str, list[int]] = defaultdict(list)
    for row, key in _keys(index, chosen):
        grams = _grams(key)
        sizes[row] = len(grams)
        for gram in grams:
            grams_of[gram].append(row)
    for row, key in _keys(index, texts if len(chosen) else chosen):
        grams = _grams(key)
        shared = Counter(other for gram in grams if gram in grams_of for other in grams_of[gram])
        for other, count in sorted(shared.items()):
            jaccard = count / (len(grams) + sizes[other] - count)
            # Two indexed rows meet twice.
            once = row not in sizes or other < row
            if once and jaccard >= threshold and index.split_N[other] != index.split_N[row]:
                yield min(row, other), max(row, other), jaccard


def remove(index: Index, threshold: float, rows_max: int) -> None:
    """Take the later row of each leak out of its split, with the reason."""
    gone: set[int] = set()
    for first, second, jaccard in sorted([*_equal(index), *near(index, threshold, rows_max)]):
        if first not in gone and second not in gone:
            gone.add(second)
            split = SPLITS[index.split_N[first]]
            index.reasons.give(second, f"leak, Jaccard {jaccard:.2f} with {{}} in the {split} split", first)
    index.split_N[sorted(gone)] = NONE


def assert_apart(index: Index) -> None:
    """No group, no medium and no text in two splits; one there is a mistake of ours, whatever the data."""
    rows = np.flatnonzero(index.split_N != NONE)
    for row in rows[_first_splits(index.root_N[rows], index.split_N[rows]) != index.split_N[rows]].tolist():
        other = rows[index.root_N[rows] == index.root_N[row]][0]
        raise AssertionError(f"{index.ids[other]} and {index.ids[row]} share a group, but no split")
    for first, second, _ in _equal(index):
        raise AssertionError(f"{index.ids[first]} and {index.ids[second]} say the same in two splits")


def _first_splits(names_N: np.ndarray, splits_N: np.ndarray) -> np.ndarray:
    """For each row the split of the first one with its name."""
    _, first, inverse = np.unique(names_N, return_index=True, return_inverse=True)
    return np.asarray(splits_N[first][inverse])


def _equal(index: Index) -> Iterator[Leak]:
    """The same of equal texts and media, of all rows."""
    rows = np.flatnonzero(index.split_N != NONE)
    same = index.same[rows]
    differ = np.unique(same[_first_splits(same, index.split_N[rows]) != index.split_N[rows]])
    seen: dict[int, list[int]] = defaultdict(list)
    for row in rows[np.isin(same, differ)].tolist():
        earlier = seen[int(index.same[row])]
        yield from ((other, row, 1.0) for other in earlier if index.split_N[other] != index.split_N[row])
        if all(index.split_N[other] != index.split_N[row] for other in earlier):
            earlier.append(row)  # three at most


def _keys(index: Index, rows: np.ndarray) -> Iterator[tuple[int, str]]:
    for start in range(0, len(rows), BLOCK):
        yield from index.texts(rows[start : start + BLOCK]).items()


def _grams(key: str) -> set[str]:
    return {key[place : place + GRAM] for place in range(max(1, len(key) - GRAM + 1))}


def _draw(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
