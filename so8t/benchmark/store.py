"""Answers by digest: a SQLite file in which an interrupted cell finds what it has asked already.

A key covers everything that decides an answer: model, backend and its settings, prompt ids, template
and task. No path and no thread count. One changed byte gives no hit.
"""

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from so8t import database

SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    new_tokens INTEGER NOT NULL,
    prompt_s REAL NOT NULL,
    new_s REAL NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Cost:
    """What an answer took: tokens read and written, and the seconds of each."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    prompt_s: float = 0.0
    new_s: float = 0.0


class SampleStore:
    """Use as a context manager. A damaged file is thrown away: its answers are computed again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.was_damaged = False
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError:
            self.was_damaged = True
            for suffix in ("", "-journal", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        return database.connect(self.path, SCHEMA, "DELETE")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, key: str) -> Any | None:
        """The stored value, if it is there and its bytes are those that were stored."""
        row = self._connection.execute("SELECT value, sha256 FROM samples WHERE key = ?", (key,)).fetchone()
        if row is None or _digest(row[0]) != row[1]:
            return None
        return json.loads(row[0])

    def put(self, values: Mapping[str, tuple[Any, Cost]]) -> None:
        """Store a batch in one transaction: all of it or nothing."""
        rows = []
        for key, (value, cost) in values.items():
            text = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
            rows.append((key, text, _digest(text), *astuple(cost)))
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM samples").fetchone()[0])

    def cost(self) -> Cost:
        """Of everything stored, over all attempts."""
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in Cost.__dataclass_fields__)
        return Cost(*self._connection.execute(f"SELECT {sums} FROM samples").fetchone())  # noqa: S608


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
