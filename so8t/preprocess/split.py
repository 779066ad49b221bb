"""Groups and splits: no group lies in two splits, and rows appended later move none of the earlier ones.

Rows are taken in a canonical order. One that is linked to earlier rows (a declared group, or a near text)
joins their split; one that is linked to none is placed by a hash. A row that links rows of different splits
would leak, and moving them would not be stable, so it is dropped.
"""

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from so8t.preprocess.config import Preprocess
from so8t.preprocess.duplicates import Pair
from so8t.preprocess.index import NONE, SPLITS, Index
from so8t.records import Split

CONFLICT = "links rows of different splits"


def place(name: str, seed: int, validation: float, test: float) -> Split:
    """The split of a group, from a hash of its name alone."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"


def assign(index: Index, pairs: Iterable[Pair], config: Preprocess) -> None:
    """Give every row that is alive a split and a root, or the reason why it goes."""
    linked: dict[int, list[int]] = defaultdict(list)
    for pair in pairs:
        linked[pair.second].append(pair.first)
    groups = _Groups(index.rows)
    members: dict[int, int] = {}  # of a declared group the first row; the others are joined with it
    for row in np.flatnonzero(index.alive()).tolist():
        group = int(index.group_N[row])
        neighbours = [other for other in linked.get(row, ()) if index.split_N[other] != NONE]
        neighbours += [members[group]] if group in members else []
        met = {int(index.split_N[other]) for other in neighbours}
        if len(met) > 1:
            index.reasons.give(row, CONFLICT)
            continue
        name = index.groups[group] if group != NONE else index.ids[row]
        found = met.pop() if met else SPLITS.index(place(name, config.seed, config.validation, config.test))
        index.split_N[row] = found
        for other in neighbours:
            groups.join(other, row)
        if group != NONE:
            members.setdefault(group, row)
    for row in np.flatnonzero(index.split_N != NONE).tolist():
        index.root_N[row] = groups.root(row)


class _Groups:
    """Union-find; the root of a set is its earliest row."""

    def __init__(self, size: int) -> None:
        self._parent = array("i", range(size))

    def root(self, row: int) -> int:
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.root(first), self.root(second)))
        self._parent[high] = low
