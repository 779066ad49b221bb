"""Temporary files of our own durable writes whose writer was killed; nothing else is ever removed."""

import contextlib
import os
import time
from pathlib import Path

import psutil

from so8t import durable
from so8t.sizes import files_of

# No write leaves its file untouched for as long.
IDLE_S = 3600.0
# Of Prefect's own folder nothing is ours.
OURS = ("artifacts", "sessions", "logs", "monitor", "progress_logs", "hub")


def find(home: Path, idle_s: float = IDLE_S) -> list[tuple[Path, int]]:
    """Path and bytes of each."""
    return [
        (path, status.st_size)
        for name in OURS
        for path, status in files_of((home / name).resolve())
        if durable.target_name(path.name) != path.name and time.time() - status.st_mtime >= idle_s
    ]


def remove(found: list[tuple[Path, int]]) -> tuple[int, int]:
    """How many could be removed, and their bytes."""
    files, size_bytes, opened = 0, 0, _open_now()
    for path, size in found:
        if path.resolve() in opened:
            continue
        with contextlib.suppress(OSError):  # its writer lives after all, and has it open
            path.unlink()
            files, size_bytes = files + 1, size_bytes + size
    return files, size_bytes


def _open_now() -> set[Path]:
    """Files that some process has open: a writer that was asleep with the machine goes on with an old file."""
    found: set[Path] = set()
    if os.name == "nt":
        return found  # there they refuse to go
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            found |= {Path(one.path) for one in process.open_files()}
    return found
