"""Groups and splits: no group lies in two splits, and rows that came later move none of the earlier ones.

Rows that are linked (a declared group, near texts, like pictures) are one group, which a hash of its first row places. A
row of an earlier artifact stays where that put it, and what is linked to it goes there, too. Only a later row that links
rows in different splits cannot be kept: it would leak, and they may not move. So it is with a group that was declared
since then of rows in different splits: it stays in that of the first. Where nothing was placed earlier, no row goes.
N rows, L links.
"""

import hashlib
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
    """Give every row that is alive a split and a root, or the reason why it goes. What was given before is forgotten."""
    _declared_since(index)
    alive_N = index.alive()
    near_L2 = np.fromiter((end for pair in pairs for end in pair[:2]), np.int32).reshape(-1, 2)
    near_L2 = near_L2[alive_N[near_L2].all(axis=1)]
    links_L2 = np.concatenate([near_L2, _declared(index, alive_N)])
    index.split_N[:] = np.where(alive_N, index.earlier_N, NONE)
    later = np.flatnonzero(alive_N & (index.split_N == NONE))
    root_N, lowest_N, highest_N = _met(index, links_L2)
    free_N = np.zeros(index.rows, bool)
    free_N[root_N[later]] = True
    free = np.flatnonzero(free_N & (highest_N == NONE))
    lowest_N[free] = np.fromiter((_hashed(index, int(row), config) for row in free), np.int8, len(free))
    whole = highest_N[root_N[later]] <= lowest_N[root_N[later]]
    index.split_N[later[whole]] = lowest_N[root_N[later[whole]]]
    _one_by_one(index, later[~whole].tolist(), near_L2, config)
    kept_N = index.split_N != NONE
    links_L2 = np.concatenate([near_L2, _declared(index, kept_N)])
    one, other = index.split_N[links_L2].T
    index.root_N[:] = np.where(kept_N, _roots(index.rows, links_L2[(one == other) & (one != NONE)]), NONE)


def _met(index: Index, links_L2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the groups of later rows the root of each row, and by root the lowest and the highest split of placed rows that
    they are linked to, [N] each; the highest is NONE where there is no such row.
    """
    split_L2 = index.split_N[links_L2]
    root_N = _roots(index.rows, links_L2[(split_L2 == NONE).all(axis=1)])
    lowest_N, highest_N = np.full(index.rows, len(SPLITS), np.int8), np.full(index.rows, NONE, np.int8)
    for row, beside in ((0, 1), (1, 0)):
        meets = (split_L2[:, row] == NONE) & (split_L2[:, beside] != NONE)
        roots, splits = root_N[links_L2[meets, row]], split_L2[meets, beside]
        np.minimum.at(lowest_N, roots, splits)
        np.maximum.at(highest_N, roots, splits)
    return root_N, lowest_N, highest_N


def _one_by_one(index: Index, torn: list[int], near_L2: np.ndarray, config: Preprocess) -> None:
    """Rows of groups that cannot stay whole: each joins what it is linked to, or goes where that lies in two splits."""
    if not torn:
        return
    beside: dict[int, list[int]] = {row: [] for row in torn}
    for one, other in near_L2[np.isin(near_L2, torn).any(axis=1)].tolist():
        for row, neighbour in ((one, other), (other, one)):
            beside.get(row, []).append(neighbour)
    members = np.flatnonzero((index.group_N != NONE) & (index.split_N != NONE))
    declared = dict(zip(index.group_N[members].tolist(), index.split_N[members].tolist(), strict=True))
    for row in torn:
        group = int(index.group_N[row])
        found = {int(index.split_N[other]) for other in beside[row]} | {declared.get(group, NONE)}
        found -= {NONE}
        if len(found) > 1:
            index.reasons.give(row, CONFLICT)
            continue
        index.split_N[row] = found.pop() if found else _hashed(index, row, config)
        if group != NONE:
            declared[group] = int(index.split_N[row])


def _declared_since(index: Index) -> None:
    """Rows that were placed earlier, and now are of one group with an earlier row in another split, go."""
    links_L2 = _declared(index, index.alive() & (index.earlier_N != NONE))
    first, second = index.earlier_N[links_L2].T
    for row in links_L2[first != second, 1].tolist():
        index.reasons.give(row, CONFLICT)


def _hashed(index: Index, row: int, config: Preprocess) -> int:
    group = int(index.group_N[row])
    name = index.groups[group] if group != NONE else index.ids[row]
    return SPLITS.index(place(name, config.seed, config.validation, config.test))


def _declared(index: Index, among_N: np.ndarray) -> np.ndarray:
    """Links of the rows of each declared group with the first of them, int32 [L, 2]."""
    rows = np.flatnonzero(among_N & (index.group_N != NONE))
    _, first, group = np.unique(index.group_N[rows], return_index=True, return_inverse=True)
    return np.stack([rows[first[group]], rows], axis=1).astype(np.int32)


def _roots(rows: int, links_L2: np.ndarray) -> np.ndarray:
    """For each row the first one that it is linked with, directly or by others, int32 [N]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(links_L2), bool), (links_L2[:, 0], links_L2[:, 1])), shape=(rows, rows))
    _, group_N = connected_components(graph, directed=False)
    first_N = np.empty(rows, np.int32)
    # Of values for one place the last one stays; np.unique, which tells the same, takes 30 bytes a row.
    first_N[group_N[::-1]] = np.arange(rows - 1, -1, -1, dtype=np.int32)
    return np.asarray(first_N[group_N])
