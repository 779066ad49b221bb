"""The audit log: who may check it knows the key and the text; who reads it learns neither prompt nor thinking.

A line is JSON with HMAC-SHA-256 of prompt, thinking and answer under a key of this installation, never their text:
a plain hash of a short text is found by trying. A line is on the disk before its answer leaves.
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from so8t import durable
from so8t.errors import InputError, ResourceError

KEY_BYTES = 32
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600


class Key:
    """The installation's key, made once, readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        """InputError for a file that is no key."""
        if not path.exists():
            _private_folder(path.parent)
            # Of two servers that start at once the later one must find the key of the other.
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    durable.write_text(path, secrets.token_hex(KEY_BYTES))
                    path.chmod(PRIVATE_FILE)
        try:
            self._key = bytes.fromhex(path.read_text(encoding="utf-8").strip())
        except (ValueError, OSError) as error:
            raise InputError(f"{path} is no key: {error}", f"{2 * KEY_BYTES} hex digits", "move it away") from None
        if len(self._key) != KEY_BYTES:
            raise InputError(f"{path} holds {len(self._key)} bytes", f"{KEY_BYTES}", "move it away; a new one is made")
        self.id = hashlib.sha256(self._key).hexdigest()[:16]

    def sign(self, text: str) -> str:
        """HMAC-SHA-256 of the text's UTF-8, in hex."""
        return hmac.new(self._key, text.encode("utf-8", errors="surrogatepass"), hashlib.sha256).hexdigest()


class AuditLog:
    """Appends lines to a file that is rotated by size; the oldest files go."""

    def __init__(self, path: Path, key: Key, size_bytes: int, files: int) -> None:
        """ResourceError where another server writes the same log."""
        self.path, self.key = path, key
        _private_folder(path.parent)
        self._lock = FileLock(path.with_suffix(".lock"), timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise ResourceError(f"another server writes {path}", "a log of its own", "choose another --port") from None
        self._lines = _Lines(path, maxBytes=size_bytes, backupCount=files, encoding="utf-8")
        # Windows refuses the rename for a moment while somebody reads.
        self._lines.rotator = lambda source, target: durable.replace(Path(source), Path(target))

    def write(self, **facts: Any) -> None:
        """Make one line durable; OSError where the disk refuses."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "key_id": self.key.id, **facts}
        text = json.dumps(line, ensure_ascii=True, sort_keys=True, allow_nan=False)
        self._lines.emit(logging.makeLogRecord({"msg": text}))

    def close(self) -> None:
        """Close the file and let another server have it."""
        self._lines.close()
        self._lock.release()


class _Lines(RotatingFileHandler):
    """As the standard library rotates, but private, durable line by line, and loud where it fails."""

    terminator = "\n"

    def _open(self) -> Any:
        path = Path(self.baseFilename)
        torn = _is_torn(path)
        file = path.open("a", encoding="utf-8", newline="\n")
        path.chmod(PRIVATE_FILE)
        if torn:
            # The torn last line of a power cut must not swallow the next one.
            file.write("\n")
        return file

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        assert self.stream is not None
        os.fsync(self.stream.fileno())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """What is not logged must not look logged."""
        error = sys.exc_info()[1]
        assert error is not None
        raise error


def _is_torn(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _private_folder(folder: Path) -> None:
    with durable.explain_full_disk(folder):
        durable.make_folder(folder)
        folder.chmod(PRIVATE_FOLDER)
