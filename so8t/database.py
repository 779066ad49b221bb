"""A SQLite file that survives a power cut."""

import sqlite3
from pathlib import Path
from typing import Literal


def connect(path: Path, schema: str, journal: Literal["DELETE", "WAL"]) -> sqlite3.Connection:
    """Open or make it, whole: sqlite3.DatabaseError where it is damaged. Transactions are begun by hand.

    A rollback journal (DELETE) leaves nothing beside the file once it is closed; WAL needs one flush a commit, not
    two. With synchronous=FULL either has what was committed.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA synchronous=FULL")
        (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        connection.executescript(schema)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
