"""Reads Parquet, JSONL, JSON and CSV files that came from outside, and says clearly what is none of them."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

from so8t.errors import InputError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
PARQUET, GZIP = b"PAR1", b"\x1f\x8b"
# Pickle protocols 2-5, and the zip container that torch.save and .npz write.
EXECUTABLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".csv")
# No row of text is so long: a file without line ends, or a packed one that unpacks without end.
LINE_CHARACTERS_MAX = 16 << 20
Row = dict[str, Any]


def suffix(name: str) -> str:
    """The end of a file's name that says its format, "" for none that is known."""
    lower = PurePosixPath(name.lower()).name
    return next((known for known in sorted(SUFFIXES, key=len, reverse=True) if lower.endswith(known)), "")


def rows(path: Path, start: int = 0, stop: int | None = None, *, shown: str = "") -> Iterator[tuple[int, Row]]:
    """(number, row) from row `start` up to `stop`, in bounded memory; InputError where it is not what its name says.

    `shown` is how errors name the file; its path else.
    """
    where = shown or str(path)
    check(path, shown=where)
    if suffix(path.name) == ".parquet":
        yield from _parquet(path, start, stop, where)
        return
    with _text(path) as file:
        readers = {".jsonl": _jsonl, ".jsonl.gz": _jsonl, ".json": _json, ".csv": _csv}
        try:
            found = readers[suffix(path.name)](file, where)
            yield from islice(enumerate(found), start, stop)
        except UnicodeDecodeError as error:
            raise InputError(f"{where} is not UTF-8: {error.reason} at byte {error.start}", "UTF-8") from error
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{where} is a truncated or broken gzip file", "a whole file", "fetch it again") from error


def check(path: Path, *, shown: str = "") -> None:
    """InputError with what the file really is: a pointer, a web page, a pickle, empty, or another format."""
    where, format_ = shown or str(path), suffix(path.name)
    if not format_:
        raise InputError(f"{path.name} has an unknown format", "a file named " + ", ".join("*" + s for s in SUFFIXES))
    if not path.is_file():
        raise InputError(f"{path} is not there" if not path.exists() else f"{path} is not a file", "a data file")
    with path.open("rb") as file:
        head = file.read(512)
        size = file.seek(0, 2)
        file.seek(max(0, size - 4))
        tail = file.read()
    found = fault(head, tail, format_)
    if found:
        raise InputError(
            f"{where} is {found}",
            f"a whole {format_} data file",
            "fetch the data itself (for a pointer: git lfs pull) and check that the path names it",
        )


def fault(head: bytes, tail: bytes, format_: str) -> str:
    """What a file of the format is instead, by its first 512 and last 4 bytes; "" if it may be one.

    No format asks only for what no data file is.
    """
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty (0 bytes)"
    if head.startswith(LFS_POINTER):
        return "a Git-LFS pointer, not the data"
    if text.startswith((b"<!doctype", b"<html")):
        return "an HTML page, perhaps an error page"
    if head.startswith(EXECUTABLE):
        return "a pickle or a zip, which could run code"
    if format_ == ".parquet" and not head.startswith(PARQUET):
        return "not Parquet: its first bytes are not PAR1"
    if format_ == ".parquet" and tail != PARQUET:
        return "a truncated Parquet file"
    if format_.endswith(".gz"):
        return "" if head.startswith(GZIP) else "not gzip"
    if format_ not in ("", ".parquet") and (head.startswith((PARQUET, GZIP)) or b"\x00" in head):
        return "binary, not text"
    return ""


def _text(path: Path) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _parquet(path: Path, start: int, stop: int | None, where: str) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if first + count > start and (stop is None or first < stop):
                number = first
                for batch in file.iter_batches(batch_size=256, row_groups=[group]):
                    if number + batch.num_rows > start:
                        for index, row in enumerate(batch.to_pylist(), number):
                            if index >= start and (stop is None or index < stop):
                                yield index, row
                    number += batch.num_rows
            first += count
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{where} cannot be read as Parquet: {error}", "a whole Parquet file") from error


def _jsonl(file: IO[str], where: str) -> Iterator[Row]:
    number = 0
    while line := file.readline(LINE_CHARACTERS_MAX):
        number += 1
        if len(line) >= LINE_CHARACTERS_MAX:
            raise InputError(f"{where} line {number} has more than {LINE_CHARACTERS_MAX} characters", "shorter lines")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            said = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested"
            raise InputError(f"{where} line {number} is not JSON: {said}", "a JSON object on each line") from error
        yield _object(row, f"{where} line {number}")


def _json(file: IO[str], where: str) -> Iterator[Row]:
    """A list of objects, taken one by one; or lines of objects under the name of JSON."""
    buffer = file.read(1 << 20)
    if not buffer.lstrip().startswith("["):
        file.seek(0)
        yield from _jsonl(file, where)
        return
    decoder, buffer = json.JSONDecoder(), buffer.lstrip()[1:]
    while True:
        buffer = buffer.lstrip().removeprefix(",").lstrip()
        if buffer.startswith("]"):
            return
        try:
            row, end = decoder.raw_decode(buffer)
        except (json.JSONDecodeError, RecursionError) as error:
            more = file.read(1 << 20)
            if not more or len(buffer) > LINE_CHARACTERS_MAX:
                raise InputError(f"{where} is not JSON or was cut short", "a list of objects") from error
            buffer += more
            continue
        yield _object(row, where)
        buffer = buffer[end:]


def _object(row: object, where: str) -> Row:
    if not isinstance(row, dict):
        raise InputError(f"{where} holds {type(row).__name__}", "a JSON object on each line")
    return row


def _csv(file: IO[str], where: str) -> Iterator[Row]:
    try:
        for row in csv.DictReader(file, strict=True):
            if None in row or None in row.values():
                raise csv.Error(f"a row has {len(row)} fields that do not fit the header")
            yield row
    except csv.Error as error:
        raise InputError(f"{where} cannot be read as CSV: {error}", "UTF-8 CSV with a header line") from error
