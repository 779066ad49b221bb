"""Reads Parquet, JSONL and CSV files that came from outside, and says clearly what is none of them."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from so8t.errors import InputError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
PARQUET = b"PAR1"
# Pickle protocols 2-5, and the zip container that torch.save and .npz write.
EXECUTABLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
SUFFIXES = (".parquet", ".jsonl", ".csv")


def rows(path: Path, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The file's rows as dicts, at most `limit`, in bounded memory; InputError where it is not what its name says."""
    check(path)
    readers = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}
    for index, row in enumerate(readers[path.suffix.lower()](path)):
        if limit is not None and index >= limit:
            return
        yield row


def check(path: Path) -> None:
    """InputError with what the file really is: a pointer, a web page, a pickle, empty, or another format."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path.name} has an unknown format", "a file named " + ", ".join("*" + s for s in SUFFIXES))
    if not path.is_file():
        raise InputError(f"{path} is not there" if not path.exists() else f"{path} is not a file", "a data file")
    with path.open("rb") as file:
        head = file.read(512)
        size = file.seek(0, 2)
        file.seek(max(0, size - 4))
        tail = file.read()
    found = _fault(head, tail, suffix)
    if found:
        raise InputError(
            f"{path} is {found}",
            f"a whole {suffix} data file",
            "fetch the data itself (for a pointer: git lfs pull) and check that the path names it",
        )


def _fault(head: bytes, tail: bytes, suffix: str) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty (0 bytes)"
    if head.startswith(LFS_POINTER):
        return "a Git-LFS pointer, not the data"
    if text.startswith((b"<!doctype", b"<html")):
        return "an HTML page, perhaps an error page"
    if head.startswith(EXECUTABLE):
        return "a pickle or a zip, which could run code"
    if suffix == ".parquet" and not head.startswith(PARQUET):
        return "not Parquet: its first bytes are not PAR1"
    if suffix == ".parquet" and tail != PARQUET:
        return "a truncated Parquet file"
    if suffix != ".parquet" and (head.startswith(PARQUET) or b"\x00" in head):
        return "binary, not text"
    return ""


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}", "a whole Parquet file") from error


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f"{path} line {number} holds {type(row).__name__}", "a JSON object on each line")
                yield row
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8: {error.reason} at byte {error.start}", "UTF-8") from error
        except json.JSONDecodeError as error:
            raise InputError(f"{path} line {number} is not JSON: {error.msg}", "a JSON object on each line") from error


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield from csv.DictReader(file, strict=True)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} cannot be read as CSV: {error}", "UTF-8 CSV with a header line") from error
