"""Does a held-out row, or one like it, lie in another split? By another way than the one that made the splits.

`split` trusts MinHash, which misses a pair by chance. `exact` misses none, with another hash and a Jaccard counted on
strings; so here all texts of all splits are compared.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from so8t.preprocess import exact
from so8t.preprocess.index import NONE, SPLITS, Index

Leak = tuple[int, int, float]  # row, later row, Jaccard
Regroup = Callable[[list[Leak]], None]  # takes them as pairs and places all rows


def near(index: Index, threshold: float, kinds_N: np.ndarray | None = None) -> Iterator[Leak]:
    """All texts of different kinds, by default splits, that are as near as `threshold` or nearer, in order."""
    texts = np.flatnonzero(index.text_N & (index.split_N != NONE))
    kinds_N = index.split_N if kinds_N is None else kinds_N
    return exact.near(lambda: index.texts(texts), lambda rows: dict(index.texts(rows)), kinds_N, threshold, index.work)


def remove(index: Index, threshold: float, regroup: Regroup | None = None) -> None:
    """Have the rows placed again with each leak as one more pair, until none is new; what is left cannot be helped.

    Of such a pair the later row leaves its split, with the reason. `regroup` None: of every leak. So are pairs of different
    classes in two groups of one split: they are to share one.
    """
    found = _ungrouped(index, threshold)
    known: set[tuple[int, int]] = set()
    while regroup and (new := [leak for leak in found if leak[:2] not in known]):
        known.update(leak[:2] for leak in new)
        regroup(new)
        found = _ungrouped(index, threshold)
    gone: set[int] = set()
    for first, second, jaccard in found:
        if index.split_N[first] == index.split_N[second]:
            continue
        if first not in gone and second not in gone:
            gone.add(second)
            split = SPLITS[index.split_N[first]]
            index.reasons.give(second, f"leak, Jaccard {jaccard:.2f} with {{}} in the {split} split", first)
    index.split_N[sorted(gone)] = NONE


def _ungrouped(index: Index, threshold: float) -> list[Leak]:
    """Leaks, and near texts of different classes that share no group, sorted."""
    kinds_N = index.split_N * np.int8(8) + index.label_N
    found = sorted([*_equal(index), *near(index, threshold, kinds_N)])
    return [leak for leak in found if index.root_N[leak[0]] != index.root_N[leak[1]]]


def assert_apart(index: Index) -> None:
    """No group, no medium and no text in two splits; one there is a mistake of ours, whatever the data."""
    rows = np.flatnonzero(index.split_N != NONE)
    for row in rows[_first_splits(index, index.root_N[rows], rows) != index.split_N[rows]].tolist():
        other = rows[index.root_N[rows] == index.root_N[row]][0]
        raise AssertionError(f"{index.ids[other]} and {index.ids[row]} share a group, but no split")
    for first, second, _ in _equal(index):
        raise AssertionError(f"{index.ids[first]} and {index.ids[second]} say the same in two splits")


def _first_splits(index: Index, names_R: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """For each of some ascending rows the split of the first one with its name, a row number, int8 [R]."""
    found_N = np.full(index.rows, NONE, np.int8)
    found_N[names_R[::-1]] = index.split_N[rows[::-1]]  # of values for one place the last one stays
    return np.asarray(found_N[names_R])


def _equal(index: Index) -> Iterator[Leak]:
    """The same of equal texts and media, of all rows."""
    rows = np.flatnonzero(index.split_N != NONE)
    same = index.same[rows]
    differ = np.unique(same[_first_splits(index, same, rows) != index.split_N[rows]])
    seen: dict[int, list[int]] = defaultdict(list)
    for row in rows[np.isin(same, differ)].tolist():
        earlier = seen[int(index.same[row])]
        yield from ((other, row, 1.0) for other in earlier if index.split_N[other] != index.split_N[row])
        if all(index.split_N[other] != index.split_N[row] for other in earlier):
            earlier.append(row)  # three at most
