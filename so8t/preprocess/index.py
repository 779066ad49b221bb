"""What the joins need of every row, in canonical order; texts, pictures and hashes stay in the shards.

Some 60 bytes a row are held, and its id. The rest is read from the shards, one column or one block of rows at a time.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from so8t import pulse
from so8t.preprocess.order import Reader
from so8t.preprocess.shard import CONTENT
from so8t.records import Record, Split

NONE = -1
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TEXTS_READ = 1024  # at a time


class Texts:
    """Texts by row number, held as one Arrow array."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __getitem__(self, row: int) -> str:
        return str(self.values[int(row)].as_py())


class Reasons:
    """Why rows go: a text, and for some the row that it names in place of {}. 8 bytes a row."""

    def __init__(self, rows: int) -> None:
        self._texts: list[str] = [""]
        self._codes: dict[str, int] = {"": 0}
        self._code_N, self._other_N = np.zeros(rows, np.int32), np.full(rows, NONE, np.int32)

    @property
    def given(self) -> np.ndarray:
        """Which rows have one, bool [N]."""
        return np.asarray(self._code_N > 0)

    def give(self, row: int, text: str, other: int = NONE) -> None:
        """Of several the first one stays."""
        if not self._code_N[row]:
            if text not in self._codes:
                self._codes[text] = len(self._texts)
                self._texts.append(text)
            self._code_N[row], self._other_N[row] = self._codes[text], other

    def text(self, row: int, ids: Texts) -> str:
        """In words; "" for none."""
        other = int(self._other_N[row])
        return self._texts[int(self._code_N[row])].replace("{}", ids[other] if other != NONE else "{}")


class Index:
    """One number or text a row, N rows. `nsfw`, `split` (a place in SPLITS), `root` (the row whose id is the group's name)
    and `reasons` are filled in by the joins; `earlier`, the splits of an earlier artifact, before them.
    """

    def __init__(self, folders: Sequence[Path], work: Path | None = None) -> None:
        """`work`: a folder for what is too much for memory; None: the system's own for such."""
        import pyarrow.parquet as pq

        self.folders, self.work = list(folders), work
        counts = [pq.read_metadata(folder / "index.parquet").num_rows for folder in self.folders]
        self.starts = np.cumsum([0, *counts])
        self.rows = int(self.starts[-1])
        self.ids = Texts(self._arrow("id").combine_chunks())
        self.label_N, self.nsfw_N, self.text_N = (self.column(name).copy() for name in ("label", "nsfw", "text"))
        self.languages, self.language_N = self.coded("language")
        self.groups, self.group_N = self.coded("group")
        self.split_N, self.earlier_N = (np.full(self.rows, NONE, np.int8) for _ in range(2))
        self.root_N = np.full(self.rows, NONE, np.int32)
        self.reasons = Reasons(self.rows)
        self.take("reason", np.ones(self.rows, bool))

    def _arrow(self, name: str) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = [pq.read_table(folder / "index.parquet", columns=[name]).column(name) for folder in self.folders]
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks])

    def coded(self, name: str) -> tuple[Texts, np.ndarray]:
        """(the different texts, the place of each row's among them or NONE for "", int32 [N])."""
        import pyarrow as pa

        coded = self._arrow(name).dictionary_encode().combine_chunks()
        coded = coded if isinstance(coded, pa.DictionaryArray) else coded.chunk(0)
        codes_N = coded.indices.to_numpy().copy()
        blank = coded.dictionary.index("").as_py()
        if blank != NONE:
            codes_N[codes_N == blank] = NONE
        return Texts(coded.dictionary), codes_N

    def take(self, name: str, among_N: np.ndarray) -> None:
        """Reasons that were found row by row, `reason` or `fault`, for those of these rows, bool [N], that have one."""
        texts, codes_N = self.coded(name)
        for row in np.flatnonzero((codes_N != NONE) & among_N).tolist():
            self.reasons.give(row, texts[codes_N[row]])

    def column(self, name: str) -> np.ndarray:
        """One number a row, [N]."""
        import pyarrow.parquet as pq

        whole_N: np.ndarray | None = None
        for folder, start, end in zip(self.folders, self.starts[:-1], self.starts[1:], strict=True):
            part = pq.read_table(folder / "index.parquet", columns=[name]).column(name).to_numpy()
            whole_N = np.empty(self.rows, part.dtype) if whole_N is None else whole_N
            whole_N[start:end] = part
            pulse.beat()
        assert whole_N is not None
        return whole_N

    def precedence(self) -> np.ndarray:
        """The rows in the order in which they make way for one another, last first: those of the earlier artifact lead."""
        return np.argsort(self.earlier_N == NONE, kind="stable")

    def alive(self) -> np.ndarray:
        """Rows that nothing speaks against and that no pool has taken, bool [N]."""
        return np.asarray(~self.reasons.given & ~self.nsfw_N)

    @cached_property
    def same(self) -> np.ndarray:
        """The first row that says or shows the same, int32 [N]."""
        high_N, low_N = (self.column(name) for name in CONTENT)
        order = np.lexsort((low_N, high_N))
        begins = np.ones(self.rows, bool)
        begins[1:] = (high_N[order[1:]] != high_N[order[:-1]]) | (low_N[order[1:]] != low_N[order[:-1]])
        found_N = np.empty(self.rows, np.int32)
        found_N[order] = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
        return found_N

    def places(self, rows: np.ndarray) -> Iterator[tuple[Path, slice, np.ndarray]]:
        """(shard, which of the given ascending rows lie in it, their places in it)."""
        edges = np.searchsorted(rows, self.starts).tolist()
        for number, (first, last) in enumerate(pairwise(edges)):
            if first < last:
                yield self.folders[number], slice(first, last), rows[first:last] - self.starts[number]

    def values(self, rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Columns of numbers of some ascending rows, float64 [rows, names]."""
        import pyarrow.parquet as pq

        found = np.empty((len(rows), len(names)))
        for folder, where, local in self.places(rows):
            table = pq.read_table(folder / "index.parquet", columns=list(names))
            for place, name in enumerate(names):
                found[where, place] = table.column(name).to_numpy()[local]
        return found

    def texts(self, rows: np.ndarray, name: str = "keys", column: str = "key") -> Iterator[tuple[int, Any]]:
        """(row, what another file of the shards holds of it: a compare key, a thumbnail) of some ascending rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for folder, where, local in self.places(rows):
            first, start = where.start, 0
            # A shard's texts are one row group: buffered, its pages are read one after the other.
            file = pq.ParquetFile(folder / f"{name}.parquet", buffer_size=1 << 20)
            for batch in file.iter_batches(TEXTS_READ, columns=[column], use_threads=False):
                here = local[np.searchsorted(local, start) : np.searchsorted(local, start + len(batch))] - start
                yield from zip(
                    rows[first : first + len(here)].tolist(), batch.column(0).take(here).to_pylist(), strict=True
                )
                pulse.beat()
                first, start = first + len(here), start + len(batch)
                if first == where.stop:
                    break
            del file
            pa.default_memory_pool().release_unused()  # or Arrow's share grows from shard to shard

    def records(self, rows: np.ndarray) -> list[Record]:
        """Some ascending rows, masked."""
        return [row for folder, _, local in self.places(rows) for row in Reader(folder / "rows.parquet").take(local)]
