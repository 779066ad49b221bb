"""The splits that an earlier artifact gave: nothing that came later moves its rows."""

import numpy as np

from so8t.preprocess.config import EarlierSplits
from so8t.preprocess.index import SPLITS, Index
from so8t.preprocess.labelling import BY_MODEL, LABELLED, places

BATCH = 16_384  # rows in memory at a time


def read(config: EarlierSplits, index: Index) -> None:
    """Fill in `index.earlier_N`. InputError for a damaged artifact, or another one than the key was made with."""
    import pyarrow.parquet as pq

    config.checked()
    for name in (*SPLITS, LABELLED, BY_MODEL):
        for batch in pq.ParquetFile(config.folder / f"{name}.parquet").iter_batches(BATCH, columns=["id", "split"]):
            rows = np.array(places(batch.column("id").to_pylist(), index), np.int64)
            splits_N = np.array([SPLITS.index(split) for split in batch.column("split").to_pylist()], np.int8)
            index.earlier_N[rows[rows >= 0]] = splits_N[rows >= 0]


def kept(index: Index) -> int:
    """How many rows stand in the split that was given earlier."""
    return int(((index.earlier_N >= 0) & index.alive() & (index.split_N == index.earlier_N)).sum())
