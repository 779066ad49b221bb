"""Durable writes: the one place through which every state file of the project goes.

A name that exists is whole. Bytes go to a temporary name in the same folder, are
flushed and fsynced, and are renamed; then the folder is fsynced, because a rename
that is only in memory is lost with the power. (Pillai et al., "All File Systems Are
Not Created Equal", OSDI 2014.) A file whose fsync failed is thrown away: the kernel
may have dropped its pages, and a second fsync would say that all is well. (Rebello et
al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020.)
"""

import contextlib
import ctypes
import errno
import json
import math
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from so8t.errors import ResourceError, So8tError

T = TypeVar("T")

TMP_SUFFIX = ".tmp"
_TEMPORARY = re.compile(r"(\.[0-9a-f]{8})?\.tmp$")
# A writer that was killed leaves its temporary file; no write takes this long.
STALE_S = 24 * 3600.0
# Names that Windows keeps for devices, whatever stands behind their first dot.
WINDOWS_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
# ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION: a virus scanner,
# an indexer or a reader holds the file for an instant.
SHARING_WINERRORS = frozenset({5, 32, 33})
SHARING_RETRY_S = 4.0


def retry_sharing(action: Callable[[], T]) -> T:
    """Run `action`, retrying Windows sharing violations and interrupted calls for a bounded time.

    `open` goes through the C runtime there, whose errors have no winerror: a refusal may be a violation or a missing
    right, and is repeated too.
    """
    deadline = time.monotonic() + SHARING_RETRY_S
    pause_s = 0.01
    while True:
        try:
            return action()
        except OSError as error:
            # Python repeats most interrupted calls itself, but neither rename nor mkdir.
            code = getattr(error, "winerror", None)
            refused_open = os.name == "nt" and code is None and isinstance(error, PermissionError)
            passing = isinstance(error, InterruptedError) or code in SHARING_WINERRORS or refused_open
            if not passing or time.monotonic() >= deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.1)


if sys.platform == "win32":
    import msvcrt

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateFileW.restype = ctypes.c_void_p
    _GENERIC_WRITE, _SHARE_ALL, _OPEN_EXISTING, _BACKUP_SEMANTICS = 0x40000000, 7, 3, 0x02000000
    _REPLACE_EXISTING, _WRITE_THROUGH = 1, 8
    # ERROR_INVALID_FUNCTION, ERROR_ACCESS_DENIED, ERROR_NOT_SUPPORTED: this file system flushes no folders.
    _NO_FOLDER_FLUSH = frozenset({1, 5, 50})

    class _Overlapped(ctypes.Structure):
        _fields_ = (
            ("internal", ctypes.c_size_t), ("internal_high", ctypes.c_size_t), ("offset", ctypes.c_uint32),
            ("offset_high", ctypes.c_uint32), ("event", ctypes.c_void_p),
        )  # fmt: skip

    _LOCK_AT_ONCE_ALONE = 3

    @contextmanager
    def _alone(fd: int) -> Iterator[None]:
        """While no other process appends; it is waited for, for a bounded time.

        The C runtime looks for the end first and writes there, so of two writers one would overwrite the other. What
        is locked nobody may read, so it is one byte far behind any end.
        """
        handle, place = ctypes.c_void_p(msvcrt.get_osfhandle(fd)), _Overlapped(offset_high=0x7FFFFFFF)

        def take() -> None:
            if not _kernel32.LockFileEx(handle, _LOCK_AT_ONCE_ALONE, 0, 1, 0, ctypes.byref(place)):
                raise ctypes.WinError(ctypes.get_last_error())

        retry_sharing(take)
        try:
            yield
        finally:
            _kernel32.UnlockFileEx(handle, 0, 1, 0, ctypes.byref(place))

    def _flush(fd: int) -> None:
        os.fsync(fd)

    def _rename(source: Path, target: Path) -> None:
        # os.replace lacks WRITE_THROUGH, and a folder cannot be asked for with REPLACE_EXISTING.
        flags = _WRITE_THROUGH | (0 if source.is_dir() else _REPLACE_EXISTING)
        if not _kernel32.MoveFileExW(str(source), str(target), flags):
            code = ctypes.get_last_error()
            raise OSError(None, ctypes.FormatError(code), str(source), code, str(target))

    def fsync_folder(folder: Path) -> None:
        """Make the folder's entries durable where Windows can; the renames are written through in any case."""
        handle = _kernel32.CreateFileW(
            str(folder), _GENERIC_WRITE, _SHARE_ALL, None, _OPEN_EXISTING, _BACKUP_SEMANTICS, None
        )
        if handle == ctypes.c_void_p(-1).value:
            code = ctypes.get_last_error()
            raise OSError(None, ctypes.FormatError(code), str(folder), code)
        try:
            if not _kernel32.FlushFileBuffers(ctypes.c_void_p(handle)):
                code = ctypes.get_last_error()
                if code not in _NO_FOLDER_FLUSH:
                    raise OSError(None, ctypes.FormatError(code), str(folder), code)
        finally:
            _kernel32.CloseHandle(ctypes.c_void_p(handle))

else:

    def _alone(fd: int) -> contextlib.AbstractContextManager[None]:
        """At any time: one write that appends is one step here."""
        return contextlib.nullcontext()

    def _flush(fd: int) -> None:
        if sys.platform == "darwin":
            import fcntl

            # fsync leaves the bytes in the drive's own cache there.
            try:
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):  # network volumes lack it
                    raise
        os.fsync(fd)

    def _rename(source: Path, target: Path) -> None:
        source.replace(target)

    def fsync_folder(folder: Path) -> None:
        """Make the folder's entries durable: files created in it, renamed or removed."""
        fd = os.open(folder, os.O_RDONLY)
        try:
            _flush(fd)
        finally:
            os.close(fd)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, each durable in the one that holds it."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        retry_sharing(lambda: folder.mkdir(parents=True, exist_ok=True))
    except FileExistsError as error:
        # Windows finds no path below a file, so the parents are made in turn, up to the file; elsewhere it is ENOTDIR.
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from error
    for made in reversed(missing):
        fsync_folder(made.parent)


def fsync_file(path: Path) -> None:
    """Make the bytes of an existing file durable. A file whose fsync fails is removed before the error is raised."""
    # Windows flushes only what is open for writing; elsewhere a read-only file must do.
    with retry_sharing(lambda: path.open("rb+" if os.name == "nt" else "rb")) as file:
        try:
            _flush(file.fileno())
            return
        except OSError as error:
            failure = error
    with contextlib.suppress(OSError):
        path.unlink()
    raise failure


def replace(source: Path, target: Path) -> None:
    """Rename over `target` and make the rename durable. A folder replaces nothing on Windows."""
    retry_sharing(lambda: _rename(source, target))
    fsync_folder(target.parent)


@contextmanager
def open_for_write(path: Path) -> Iterator[IO[bytes]]:
    """Give a binary file that becomes `path`, whole and durable, when the block ends well.

    The temporary name is used once, so that two processes that write one file end with one of the two
    whole files; it is removed where the block fails. ResourceError where the disk refuses.
    """
    with explain_full_disk(path):
        make_folder(path.parent)
        remove_temporaries(path, STALE_S)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TMP_SUFFIX}")
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                _flush(file.fileno())
            replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def replacing_no_error(place: Path) -> Iterator[None]:
    """Notes on what has ended already: one that cannot be written is told on stderr and replaces no error.

    On a full disk a stop is still a stop.
    """
    try:
        yield
    except (OSError, So8tError) as refusal:
        sys.stderr.write(f"so8t: {place} took no note of how the run ended: {refusal}\n")


def target_name(name: str) -> str:
    """The name that a temporary file was to get; any other name is its own."""
    return _TEMPORARY.sub("", name)


def remove_temporaries(path: Path, unused_s: float = -math.inf) -> None:
    """Remove what killed writers of this very file left behind; without an age the caller must be its only writer."""
    with os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name != path.name and target_name(entry.name) == path.name:
                with contextlib.suppress(OSError):  # another writer sweeps too
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime >= unused_s:
                        Path(entry.path).unlink()


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


def append_line(path: Path, line: str) -> None:
    """Append one line to a log that several processes write, and make it durable; a torn last line is ended first."""
    with explain_full_disk(path):
        make_folder(path.parent)
        new = not path.exists()
        with retry_sharing(lambda: path.open("ab+")) as file:
            with _alone(file.fileno()):
                torn = False
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    torn = file.read(1) != b"\n"
                # One write: appended bytes of two processes follow each other.
                file.write(("\n" if torn else "").encode() + line.encode("utf-8") + b"\n")
                file.flush()
            _flush(file.fileno())
        if new:
            fsync_folder(path.parent)


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file, also while another process renames a newer one over it."""
    return json.loads(retry_sharing(lambda: path.read_text(encoding="utf-8")))


_GOES_ON = "then run the same command: it goes on from here"
# errno -> what was found, what was wanted, what to do.
_EXPLAINED = {
    errno.ENOSPC: ("the disk is full", "free space on that volume", "free some space or move the home with --home DIR"),
    errno.EDQUOT: ("the disk quota is used up", "room within the quota", "free some space or raise the quota"),
    errno.EFBIG: ("the file is too large", "a volume for files of that size (FAT32 ends at 4 GB)", "choose another with --home DIR"),
    errno.EIO: ("the disk failed (input/output error)", "a disk that keeps what it is given", "look at the system's log and the disk's health, move the home to a sound disk if it goes on failing"),
    errno.EROFS: ("cannot write to this volume", "a volume that you may write", "choose another with --home DIR, or see in the system's log why it was made read-only"),
    errno.EMFILE: ("too many files are open", "a higher limit for this process", "raise it (ulimit -n)"),
    errno.ENFILE: ("too many files are open on this machine", "a higher limit", "close other programs"),
    errno.EINTR: ("the system call was interrupted again and again", "a call that ends", "see what sends signals to this process"),
}  # fmt: skip
_NO_RIGHT = ("cannot write", "a folder that you may write", "choose another with --home DIR, or mend its permissions")
_EXPLAINED |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.ENOTDIR), _NO_RIGHT)
# ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL; ERROR_CRC, ERROR_IO_DEVICE: Python gives them no errno of their own.
_WINERRORS = {39: errno.ENOSPC, 112: errno.ENOSPC, 23: errno.EIO, 1117: errno.EIO}


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn what the disk or its permissions refuse into errors that say where and what to do.

    An error that names its file is told of that file, else of `path`.
    """
    try:
        yield
    except OSError as error:
        code = _WINERRORS.get(getattr(error, "winerror", None) or 0, error.errno)
        if code not in _EXPLAINED:
            raise
        found, wanted, do = _EXPLAINED[code]
        place = target_name(error.filename if isinstance(error.filename, str) else str(path))
        refused = ResourceError(f"{found}: {place} ({error.strerror})", wanted, f"{do}; {_GOES_ON}")
        refused.place = place
        raise refused from error
