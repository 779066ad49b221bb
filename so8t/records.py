"""One row of our Parquet files, from collection to benchmark, with the evidence of where it came from."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from so8t import durable, pulse
from so8t.errors import InputError
from so8t.labels import Label

if TYPE_CHECKING:
    import pyarrow as pa

Modality = Literal["text", "image", "audio"]
Split = Literal["", "train", "validation", "test"]


@dataclass(frozen=True)
class Record:
    """One sample. Empty strings stand for "none"; `label` is -1 until a labeller has decided."""

    id: str
    modality: Modality
    language: str  # "ja" or "en"
    prompt: str
    response: str = ""  # reference reply in the thinking format
    answer: str = ""  # what an image or a tone shows, "" for text
    category: str = ""
    label: int = -1
    label_source: str = ""  # human | rule | model | model:<content of the classifier>
    label_confidence: float = 0.0
    nsfw: bool = False
    media: bytes = b""  # PNG or WAV as collected
    media_type: str = ""  # image/png | audio/wav
    image: bytes = b""  # what the image tower reads: an RGB PNG, made in preprocess
    group: str = ""  # rows of one group never fall into different splits
    split: Split = ""
    source: str = ""  # dataset id
    revision: str = ""  # 40 hex digits
    file: str = ""
    row: int = -1
    licence: str = ""
    licence_evidence: str = ""

    @property
    def klass(self) -> Label:
        """The class as a `Label`; a row without one is a mistake of ours."""
        return Label(self.label)

    def with_(self, **changes: object) -> "Record":
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def schema() -> "pa.Schema":
    """The Arrow schema of `Record`."""
    import pyarrow as pa

    kinds = {str: pa.string(), bytes: pa.binary(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return pa.schema([(field.name, kinds.get(_plain(field.type), pa.string())) for field in fields(Record)])


def _plain(annotation: object) -> type:
    return annotation if isinstance(annotation, type) else str


def table(rows: Sequence[Record], extra: dict[str, list[str]] | None = None) -> "pa.Table":
    """Records, and optional string columns beside them, as an Arrow table."""
    import pyarrow as pa

    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(Record)}
    made = pa.table(columns, schema=schema())
    for name, values in (extra or {}).items():
        made = made.append_column(name, pa.array(values, pa.string()))
    return made


def write(path: Path, records: Iterable[Record], extra: dict[str, list[str]] | None = None) -> int:
    """Write records (and optional string columns beside them) as zstd Parquet; give the row count."""
    import pyarrow.parquet as pq

    rows = list(records)
    with durable.open_for_write(path) as file:
        pq.write_table(table(rows, extra), file, compression="zstd")
    return len(rows)


# A row group of a stream ends with whichever comes first.
STREAM_ROWS, STREAM_BYTES = 4096, 64 << 20


class Stream:
    """Writes records to a Parquet file in bounded memory: `with Stream(path) as stream: stream.add(record)`.

    The file is there, whole, when the block has ended well. `columns` names further string columns.
    """

    def __init__(self, path: Path, *columns: str) -> None:
        self._path, self._columns, self.count = path, columns, 0
        self._rows: list[Record] = []
        self._beside: list[tuple[str, ...]] = []
        self._size_bytes = 0

    def __enter__(self) -> Self:
        import pyarrow as pa
        import pyarrow.parquet as pq

        whole = pa.schema([*schema(), *(pa.field(name, pa.string()) for name in self._columns)])
        self._stack = ExitStack()
        file = self._stack.enter_context(durable.open_for_write(self._path))
        self._writer = self._stack.enter_context(pq.ParquetWriter(file, whole, compression="zstd"))
        return self

    def add(self, record: Record, *beside: str) -> None:
        """Take a row; row groups end by count and size, so equal rows are equal bytes."""
        self._rows.append(record)
        self._beside.append(beside)
        self.count += 1
        self._size_bytes += len(record.prompt) + len(record.response) + len(record.media) + len(record.image)
        if len(self._rows) >= STREAM_ROWS or self._size_bytes >= STREAM_BYTES:
            self._flush()

    def _flush(self) -> None:
        beside = {name: [values[place] for values in self._beside] for place, name in enumerate(self._columns)}
        self._writer.write_table(table(self._rows, beside))
        pulse.beat()
        self._rows, self._beside, self._size_bytes = [], [], 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with self._stack:
            if error is not None:
                raise error
            if self._rows or not self.count:
                self._flush()


def read(path: Path) -> list[Record]:
    """Read all records of a file."""
    return list(iterate(path))


def iterate(path: Path, batch_rows: int = 1024) -> Iterator[Record]:
    """Read records in bounded memory; InputError where the file is no Parquet of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [field.name for field in fields(Record)]
    try:
        file = pq.ParquetFile(path)
        absent = set(names) - set(file.schema_arrow.names)
        if absent:
            raise InputError(f"{path} lacks the columns {sorted(absent)}", "a Parquet file written by so8t")
        for batch in file.iter_batches(batch_size=batch_rows, columns=names):
            pulse.beat()
            for row in batch.to_pylist():
                yield Record(**row)
    except (pa.ArrowInvalid, FileNotFoundError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read as Parquet: {error}",
            "a Parquet file",
            "check that the path names the data file itself, whole and not a text file or a Git-LFS pointer",
        ) from error


def without_reply(folder: Path, split: str) -> list[Record]:
    """Rows of preprocessed data with a class and no reply that may be learnt, by id: for four-class heads alone."""
    path = folder / "labelled.parquet"
    # Data made by hand may have none.
    rows = iterate(path) if path.is_file() else ()
    return sorted((row for row in rows if row.split == split), key=lambda row: row.id)
