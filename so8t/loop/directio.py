"""Writes large files past the page cache where Linux allows it, hashed on the way.

A checkpoint is written every few minutes and read hardly ever. Through the page cache, 200 MB cost the
kernel as much memory traffic as the training needs at that moment (benchmarks/checkpoint_stall.py), and push
out what others have there. Elsewhere, and on file systems without it (tmpfs), the same bytes go the usual way.
"""

import errno
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from typing import IO

import numpy as np

# Address, length and offset must be multiples of the device's block; a page is one everywhere.
BLOCK_BYTES = 4 * 2**20


class Hashed:
    """Size and sha256 of what was written."""

    def __init__(self) -> None:
        self._digest, self.size_bytes = hashlib.sha256(), 0

    def take(self, block: memoryview) -> None:
        """Another piece."""
        self._digest.update(block)
        self.size_bytes += len(block)

    @property
    def sha256(self) -> str:
        """In hexadecimal."""
        return self._digest.hexdigest()


class BlockWriter:
    """Gathers pieces in one aligned block that is used again and again."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, BLOCK_BYTES)
        self._block = np.frombuffer(self._memory, dtype=np.uint8)

    def write(self, file: IO[bytes], pieces: Iterable[bytes | memoryview], check: Callable[[], None]) -> Hashed:
        """Write everything; `check` may raise between two blocks."""
        hashed = Hashed()
        _set_direct(file.fileno(), True)
        for size in self._blocks(pieces):
            check()
            if size < BLOCK_BYTES:
                _set_direct(file.fileno(), False)
            block = self._block.data[:size]
            hashed.take(block)
            _write_all(file.fileno(), block)
        return hashed

    def _blocks(self, pieces: Iterable[bytes | memoryview]) -> Iterator[int]:
        """How much of the block is filled, each time it is full and once at the end."""
        filled = 0
        for piece in pieces:
            source, start = np.frombuffer(piece, dtype=np.uint8), 0
            while start < len(source):
                count = min(BLOCK_BYTES - filled, len(source) - start)
                np.copyto(self._block[filled : filled + count], source[start : start + count])
                start, filled = start + count, filled + count
                if filled == BLOCK_BYTES:
                    yield filled
                    filled = 0
        if filled:
            yield filled


def _write_all(fd: int, block: memoryview) -> None:
    while len(block):
        try:
            written = os.write(fd, block)
        except OSError as error:
            # The file system took the flag but not the write, or the one before was cut short off the alignment.
            if error.errno != errno.EINVAL or not _set_direct(fd, False):
                raise
        else:
            block = block[written:]


def _set_direct(fd: int, on: bool) -> bool:
    """Whether that changed anything."""
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return False
    import fcntl

    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if bool(flags & flag) == on:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags ^ flag)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this file system has no such thing
            raise
        return False
    return True
