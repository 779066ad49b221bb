"""Groups and splits: no group lies in two splits, and rows appended later move none of the earlier ones.

Rows are taken in a canonical order. One that is linked to earlier rows (a declared group, or a near text)
joins their split; one that is linked to none is placed by a hash. A row that links rows of different splits
would leak, and moving them would not be stable, so it is dropped.
"""

import hashlib
from collections import defaultdict

from so8t.preprocess.config import Preprocess
from so8t.preprocess.duplicates import Pair
from so8t.records import Record, Split

CONFLICT = "links rows of different splits"


def canonical(records: list[Record]) -> list[Record]:
    """The order of provenance, whatever order the rows came in."""
    return sorted(records, key=lambda record: (record.source, record.file, record.row, record.id))


def place(name: str, seed: int, validation: float, test: float) -> Split:
    """The split of a group, from a hash of its name alone."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"


def assign(records: list[Record], pairs: list[Pair], config: Preprocess) -> tuple[list[Record], list[Record]]:
    """(rows with group and split, rows dropped because they link different splits); canonical order kept."""
    linked: dict[int, list[int]] = defaultdict(list)
    for pair in pairs:
        linked[pair.second].append(pair.first)
    groups = _Groups(len(records))
    members: dict[str, list[int]] = defaultdict(list)
    splits: dict[int, Split] = {}
    dropped = []
    for row, record in enumerate(records):
        neighbours = [other for other in linked[row] if other in splits] + members[record.group or f"row:{row}"]
        met = {splits[other] for other in neighbours}
        if len(met) > 1:
            dropped.append(record)
            continue
        splits[row] = (
            met.pop() if met else place(record.group or record.id, config.seed, config.validation, config.test)
        )
        for other in neighbours:
            groups.join(other, row)
        if record.group:
            members[record.group].append(row)
    kept = [records[row].with_(split=split, group=records[groups.root(row)].id) for row, split in splits.items()]
    return kept, dropped


class _Groups:
    """Union-find; the root of a set is its earliest row."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, row: int) -> int:
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.root(first), self.root(second)))
        self._parent[high] = low
