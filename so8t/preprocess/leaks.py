"""Does a held-out row, or one like it, lie in another split? By another way than the one that made the splits.

`split` trusts MinHash, which misses a pair by chance. Here n-grams are plain strings in an inverted index, so each
Jaccard is exact and no pair is missed; the price is that only so many held-out texts are indexed.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator

from so8t.preprocess.media import content
from so8t.preprocess.normalise import compare_key
from so8t.records import Record

GRAM = 5


def near(records: list[Record], threshold: float, rows_max: int) -> Iterator[tuple[int, int, float]]:
    """(row, later row, Jaccard) of texts in different splits that are as near as `threshold` or nearer.

    Up to `rows_max` texts of test and validation, chosen by a hash of their ids, are each compared with every
    text of the other splits.
    """
    texts = [row for row, record in enumerate(records) if record.modality == "text"]
    held_out = sorted((row for row in texts if records[row].split != "train"), key=lambda row: _draw(records[row].id))
    sizes: dict[int, int] = {}
    index: dict[str, list[int]] = defaultdict(list)
    for row in held_out[:rows_max]:
        grams = _grams(records[row].prompt)
        sizes[row] = len(grams)
        for gram in grams:
            index[gram].append(row)
    for row in texts:
        grams = _grams(records[row].prompt)
        shared = Counter(other for gram in grams if gram in index for other in index[gram])
        for other, count in sorted(shared.items()):
            jaccard = count / (len(grams) + sizes[other] - count)
            # Two indexed rows meet twice.
            once = row not in sizes or other < row
            if once and jaccard >= threshold and records[other].split != records[row].split:
                yield min(row, other), max(row, other), jaccard


def remove(records: list[Record], threshold: float, rows_max: int) -> tuple[list[Record], list[tuple[Record, str]]]:
    """(rows without leaks, the later row of each leak with the reason); `records` in canonical order."""
    reasons: dict[int, str] = {}
    for first, second, jaccard in sorted([*_equal(records), *near(records, threshold, rows_max)]):
        if first not in reasons:
            reasons.setdefault(
                second, f"leak, Jaccard {jaccard:.2f} with {records[first].id} in the {records[first].split} split"
            )
    kept = [record for row, record in enumerate(records) if row not in reasons]
    return kept, [(records[row], reason) for row, reason in sorted(reasons.items())]


def assert_apart(records: list[Record]) -> None:
    """No group, no medium and no text in two splits; one there is a mistake of ours, whatever the data."""
    where: dict[str, Record] = {}
    for record in records:
        other = where.setdefault(record.group, record)
        assert other.split == record.split, f"{other.id} and {record.id} share a group, but no split"
    for first, second, _ in _equal(records):
        raise AssertionError(f"{records[first].id} and {records[second].id} say the same in two splits")


def _equal(records: list[Record]) -> Iterator[tuple[int, int, float]]:
    """The same of equal texts and media, of all rows."""
    seen: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        earlier = seen[content(record)]
        yield from ((other, row, 1.0) for other in earlier if records[other].split != record.split)
        if all(records[other].split != record.split for other in earlier):
            earlier.append(row)  # three at most


def _grams(text: str) -> set[str]:
    key = compare_key(text)
    return {key[place : place + GRAM] for place in range(max(1, len(key) - GRAM + 1))}


def _draw(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
