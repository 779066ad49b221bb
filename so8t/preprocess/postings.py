"""Postings (a hash and the row that it stands in), sorted by hash outside of memory.

They are collected until RUN are there, sorted, and written as one run to a file without a name, which is gone with the
process however it ends. A part is a range of hashes, gathered out of all runs; no hash lies in two parts.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np

from so8t import durable

RUN, PART = 1 << 19, 1 << 19  # postings in memory at a time; a range that holds more is a part of its own
RANGES = 1 << 12  # of hashes, the smallest parts; a power of two
POSTING = np.dtype([("hash", "<u8"), ("row", "<i4")])


class Postings:
    """Add rows in ascending order, then ask for the parts: `with Postings(folder) as postings`."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` (None: the system's for temporary files) must have room for 12 bytes a posting."""
        self._folder = folder or Path(tempfile.gettempdir())
        self._run_P, self._filled = np.empty(RUN, POSTING), 0
        self._starts: list[int] = []  # of each run, in postings
        self._bounds: list[np.ndarray] = []  # of each run: where its ranges begin, int32 [RANGES + 1]

    def __enter__(self) -> Self:
        with durable.explain_full_disk(self._folder):
            # The suffix is for a machine that loses its power where such a file has a name after all (Windows).
            self._file = tempfile.TemporaryFile(dir=self._folder, suffix=durable.TMP_SUFFIX)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, hashes_G: np.ndarray, row: int) -> None:
        """The hashes that stand in one row, uint64 [G]."""
        while len(hashes_G):
            some_G = hashes_G[: RUN - self._filled]
            room_G = self._run_P[self._filled : self._filled + len(some_G)]
            room_G["hash"], room_G["row"] = some_G, row
            self._filled += len(some_G)
            if self._filled == RUN:
                self._write()
            hashes_G = hashes_G[len(some_G) :]

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(hashes uint64 [P], rows int32 [P]) by hash, then by row, a part at a time, in ascending order of hashes."""
        self._write()
        if not self._bounds:
            return
        bounds_RB = np.stack(self._bounds)
        ends_B = bounds_RB.sum(axis=0, dtype=np.int64)
        first = 0
        while first < RANGES:
            last = max(first + 1, int(np.searchsorted(ends_B, ends_B[first] + PART, side="right")) - 1)
            part_P = self._gathered(bounds_RB[:, first], bounds_RB[:, last])
            first = last
            if len(part_P):
                hashes_P = part_P["hash"]
                order = np.argsort(hashes_P, kind="stable")
                yield hashes_P[order], part_P["row"][order]

    def _write(self) -> None:
        if not self._filled:
            return
        hashes_P = self._run_P["hash"][: self._filled]
        order = np.argsort(hashes_P, kind="stable")
        edges_B = np.arange(RANGES, dtype=np.uint64) << np.uint64(65 - RANGES.bit_length())
        bounds_B = np.searchsorted(hashes_P, edges_B, sorter=order)
        self._starts.append(self._starts[-1] + int(self._bounds[-1][-1]) if self._starts else 0)
        self._bounds.append(np.append(bounds_B, self._filled).astype(np.int32))
        with durable.explain_full_disk(self._folder):
            self._file.write(self._run_P[order].tobytes())
            self._file.flush()
        self._filled = 0

    def _gathered(self, first_R: np.ndarray, last_R: np.ndarray) -> np.ndarray:
        found_P = np.empty(int((last_R - first_R).sum()), POSTING)
        filled = 0
        for start, first, last in zip(self._starts, first_R.tolist(), last_R.tolist(), strict=True):
            self._file.seek((start + first) * POSTING.itemsize)
            read = self._file.read((last - first) * POSTING.itemsize)
            found_P[filled : filled + last - first] = np.frombuffer(read, POSTING)
            filled += last - first
        return found_P
