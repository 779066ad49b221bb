"""The splits that an earlier artifact gave: nothing that came later moves its rows."""

import numpy as np

from so8t.artifacts import check_hashes
from so8t.errors import InputError
from so8t.preprocess.config import EarlierSplits
from so8t.preprocess.index import SPLITS, Index
from so8t.preprocess.labelling import BY_MODEL, LABELLED, places

BATCH = 16_384  # rows in memory at a time


def read(config: EarlierSplits, index: Index) -> int:
    """Fill in `index.earlier_N`; how many rows have such a split. InputError for a damaged artifact."""
    import pyarrow.parquet as pq

    if problems := check_hashes(config.folder):
        raise InputError(f"preprocess.splits_of: {problems[0]}", "an undamaged preprocess artifact", "name another one")
    for name in (*SPLITS, LABELLED, BY_MODEL):
        for batch in pq.ParquetFile(config.folder / f"{name}.parquet").iter_batches(BATCH, columns=["id", "split"]):
            rows = np.array(places(batch.column("id").to_pylist(), index), np.int64)
            splits_N = np.array([SPLITS.index(split) for split in batch.column("split").to_pylist()], np.int8)
            index.earlier_N[rows[rows >= 0]] = splits_N[rows >= 0]
    return int((index.earlier_N >= 0).sum())
