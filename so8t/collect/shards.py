"""Rows on their way: what a source has gathered so far, and from where it goes on.

A shard is one Parquet file that holds up to ROWS rows, those that were refused among them, and in its metadata the
place behind its last row. So rows and state are committed by one rename, and each row is there exactly once however
often the process dies. Memory holds one shard.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from so8t import durable, records
from so8t.records import Record

SHARDS = "shards.partial"
# Files on their way, beside the shards.
FETCHED = "fetched.partial"
ROWS = 4096
# A shard with pictures or sound ends before it has so many rows.
BYTES_MAX = 64 << 20
BOUND = "bound.json"
REASON, PLACE = "reason", b"so8t_place"


@dataclass(frozen=True)
class Place:
    """The next row to be read: number of the file, row in it. `ended`: nothing follows."""

    file: int = 0
    row: int = 0
    ended: bool = False


class Shards:
    """The shards of one source in `folder`, bound to what they are gathered from."""

    def __init__(self, folder: Path, bound: dict[str, Any], say: Callable[[str], None]) -> None:
        """Go on with what lies there, or begin anew (and `say` so) where it was gathered from something else."""
        self.folder = folder
        known = _read(folder / BOUND)
        if known != bound:
            if known is not None or folder.exists():
                differing = sorted(name for name in bound if not known or known.get(name) != bound[name])
                say(f"what is gathered from changed since the last stop ({', '.join(differing)}): gathering anew")
                shutil.rmtree(folder)
            durable.write_json(folder / BOUND, bound)
        self._count = sum(1 for _ in self._paths())
        self._kept: list[tuple[Record, str]] = []
        self._bytes = 0

    def place(self) -> Place:
        """Where to go on."""
        if not self._count:
            return Place()
        import pyarrow.parquet as pq

        metadata = pq.read_schema(self._path(self._count - 1)).metadata
        return Place(**json.loads(metadata[PLACE]))

    def add(self, record: Record, reason: str, behind: Place) -> None:
        """Take a row, or one refused for a reason; a full shard is committed with the place behind its last row."""
        self._kept.append((record, reason))
        self._bytes += len(record.media) + len(record.prompt) + len(record.response)
        if len(self._kept) >= ROWS or self._bytes >= BYTES_MAX:
            self.commit(behind)

    def commit(self, behind: Place) -> None:
        """Make the rows so far and the place behind them durable at once."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = records.table([record for record, _ in self._kept])
        table = table.append_column(REASON, pa.array([reason for _, reason in self._kept], pa.string()))
        table = table.replace_schema_metadata({PLACE: json.dumps(asdict(behind)).encode("utf-8")})
        with durable.open_for_write(self._path(self._count)) as file:
            pq.write_table(table, file, compression="zstd")
        self._count += 1
        self._kept, self._bytes = [], 0

    def kept(self) -> Iterator[Record]:
        """The rows that were not refused."""
        return (record for record, reason in self.rows() if not reason)

    def refused(self) -> Iterator[tuple[Record, str]]:
        """The refused rows with their reasons."""
        return ((record, reason) for record, reason in self.rows() if reason)

    def rows(self) -> Iterator[tuple[Record, str]]:
        """All rows in order; "" for a row that was kept."""
        import pyarrow.parquet as pq

        names = [field.name for field in fields(Record)]
        for path in self._paths():
            for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield Record(**{name: row[name] for name in names}), row[REASON]

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"

    def _paths(self) -> Iterator[Path]:
        number = 0
        while self._path(number).is_file():
            yield self._path(number)
            number += 1


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return durable.read_json(path)  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return None
