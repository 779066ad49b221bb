"""The canonical order of collected rows, by provenance, and reading any of them in it.

Whatever order the rows came in, their places in the canonical one are the same: so are shards, splits and files.
"""

from pathlib import Path
from typing import Any

import numpy as np

from so8t import pulse
from so8t.errors import InputError
from so8t.preprocess.config import Shard
from so8t.records import Record, schema
from so8t.step import Inputs

PROVENANCE = ("source", "file", "row")


def count(section: Shard, inputs: Inputs) -> int:
    """How many parts preprocess.shard has."""
    return shards_of(inputs["collected"].path / "records.parquet", section.rows)


def shards_of(path: Path, shard_rows: int) -> int:
    """How many shards the rows of a Parquet file make; at least one."""
    return max(1, -(-int(_opened(path).metadata.num_rows) // shard_rows))


def shard_of(path: Path, number: int, shard_rows: int) -> np.ndarray:
    """The positions of one shard's rows in canonical order, int64 [shard_rows] or fewer."""
    return canonical(path)[number * shard_rows :][:shard_rows].copy()


def canonical(path: Path) -> np.ndarray:
    """Positions in the file in canonical order (source, file, row, then id), int64 [N].

    About 40 bytes a row while it is worked out; ids are read only where the rest is equal.
    """
    import pyarrow.compute as pc

    file = _opened(path)
    keys = [_ranks(file, name) for name in PROVENANCE]
    order = np.lexsort(keys[::-1])
    ties = np.ones(max(0, len(order) - 1), bool)
    for key in keys:
        ties &= key[order[1:]] == key[order[:-1]]
    if not ties.any():
        return order
    ids = pc.rank(file.read(columns=["id"]).column("id"), tiebreaker="dense").to_numpy(zero_copy_only=False)
    return np.lexsort([ids, *keys[::-1]])


def _ranks(file: Any, name: str) -> np.ndarray:
    """Numbers in the order of a column's values: int32 [N] for texts, the values themselves for numbers."""
    import pyarrow as pa

    chunks = file.read(columns=[name]).column(name)
    if not pa.types.is_string(chunks.type):
        return np.asarray(chunks.to_numpy())
    coded = chunks.dictionary_encode().combine_chunks()
    coded = coded if isinstance(coded, pa.DictionaryArray) else coded.chunk(0)
    values = coded.dictionary.to_pylist()
    rank_of = np.empty(len(values), np.int32)
    rank_of[sorted(range(len(values)), key=values.__getitem__)] = np.arange(len(values), dtype=np.int32)
    return np.asarray(rank_of[coded.indices.to_numpy()])


class Reader:
    """Reads rows by position; holds one row group."""

    def __init__(self, path: Path) -> None:
        self._file = _opened(path)
        metadata = self._file.metadata
        self._starts = np.cumsum([0] + [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)])
        self._held: tuple[int, Any] = (-1, None)

    def take(self, positions: np.ndarray) -> list[Record]:
        """The rows at these positions, in their order."""
        groups = np.searchsorted(self._starts, positions, side="right") - 1
        found: dict[int, Record] = {}
        for group in np.unique(groups).tolist():
            where = np.flatnonzero(groups == group)
            part = self._group(group).take(positions[where] - self._starts[group])
            found.update(zip(where.tolist(), (Record(**row) for row in part.to_pylist()), strict=True))
        return [found[place] for place in range(len(positions))]

    def _group(self, number: int) -> Any:
        if self._held[0] != number:
            self._held = (-1, None)  # not two at a time
            self._held = (number, self._file.read_row_group(number, columns=schema().names))
            pulse.beat()
        return self._held[1]


def _opened(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise InputError(
            f"{path} cannot be read as Parquet: {error}", "a Parquet file written by so8t", "run `so8t verify`"
        ) from error
    absent = set(schema().names) - set(file.schema_arrow.names)
    if absent:
        raise InputError(f"{path} lacks the columns {sorted(absent)}", "a Parquet file written by so8t")
    return file
