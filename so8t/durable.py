"""Durable writes: the one place through which every state file of the project goes.

A name that exists is whole. Bytes go to a temporary name in the same folder, are
flushed and fsynced, and are renamed; then the folder is fsynced, because a rename
that is only in memory is lost with the power. (Pillai et al., "All File Systems Are
Not Created Equal", OSDI 2014.)
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from so8t.errors import ResourceError

T = TypeVar("T")

TMP_SUFFIX = ".tmp"
# ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION: a virus scanner,
# an indexer or a reader holds the file for an instant.
SHARING_WINERRORS = frozenset({5, 32, 33})
SHARING_RETRY_S = 4.0


def retry_sharing(action: Callable[[], T]) -> T:
    """Run `action`, retrying Windows sharing violations for a bounded time."""
    deadline = time.monotonic() + SHARING_RETRY_S
    pause_s = 0.01
    while True:
        try:
            return action()
        except OSError as error:
            if getattr(error, "winerror", None) not in SHARING_WINERRORS or time.monotonic() >= deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.5)


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable. Windows journals them and has no call for it from here."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make the bytes of an existing file durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def replace(source: Path, target: Path) -> None:
    """Rename over `target` and make the rename durable."""
    retry_sharing(lambda: source.replace(target))
    fsync_folder(target.parent)


@contextmanager
def open_for_write(path: Path) -> Iterator[IO[bytes]]:
    """Give a binary file that becomes `path`, whole and durable, when the block ends well."""
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + TMP_SUFFIX)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write the whole file or nothing."""
    with open_for_write(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with `\\n` line ends, the whole file or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write readable JSON with sorted keys, so that equal values are equal bytes."""
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left" and "not writable" into errors that say where and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC or getattr(error, "winerror", None) == 112:
            raise ResourceError(
                f"the disk is full: writing {path}",
                "free space on that volume",
                "free some space or move the home with --home DIR, then run the same command: it goes on from here",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise ResourceError(
                f"cannot write {path}: {error.strerror}",
                "a folder that you may write",
                "choose another with --home DIR, or mend its permissions",
            ) from error
        raise
