"""One file of a Hub repository at a pinned commit: resumed at the byte, checked by hash, nothing left beside it.

huggingface_hub starts a file again from zero after a kill and leaves the old bytes behind, so the bytes are fetched
here with Range requests into `<name>.part`; addresses, token, session and errors are its own.

After every PART_BYTES the part is fsynced and `<name>.part.json` says how much of it is durable. Within the boot that
wrote it the part is taken as long as it is, since a killed process loses nothing that the kernel has; after another
boot it is cut to what was durable. So a kill costs less than one part, and wrong bytes are found by the hash.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from so8t import durable
from so8t.artifacts import HASH_CHUNK_BYTES
from so8t.errors import StepFailed
from so8t.faults import Fault
from so8t.session import boot_id
from so8t.waits import asked_s

PART_SUFFIX, STATE_SUFFIX = ".part", ".part.json"
PART_BYTES = 16 << 20
TIMEOUT_S = 60.0
# Tries in a row that bring no byte; each waits twice as long as the one before, or as long as the server says.
FRUITLESS_TRIES = 6
FIRST_PAUSE_S = 1.0
PAUSE_MAX_S = 300.0
# Whole files whose hash is wrong.
MISMATCHES_MAX = 2
RETRIED_STATUSES = frozenset({408, 425, 429})

Report = Callable[[int], None]


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it: `expected` is its sha256 (LFS, 64 digits) or its git blob id (40 digits)."""

    kind: Literal["model", "dataset"]
    repo: str
    revision: str
    name: str
    size_bytes: int
    expected: str

    @classmethod
    def listed(cls, kind: Literal["model", "dataset"], repo: str, revision: str, sibling: Any) -> "RemoteFile":
        """From an entry of `siblings`, asked for with `files_metadata=True`."""
        expected = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        if sibling.size is None or not expected:
            raise StepFailed(f"{repo}: the Hub lists {sibling.rfilename} without size or hash")
        return cls(kind, repo, revision, sibling.rfilename, sibling.size, expected)

    def __str__(self) -> str:
        return f"{self.repo}: {self.name}"


def endpoint() -> str | None:
    """Where the Hub is; read now, not when huggingface_hub was imported."""
    return os.environ.get("HF_ENDPOINT") or None


class Denied(StepFailed):
    """The Hub refuses this file to us (401, 403, 404, 451); another try gives the same answer."""

    def __init__(self, file: RemoteFile, status: int) -> None:
        super().__init__(f"{file} was refused with status {status}")
        self.status = status
        if status in (401, 403):
            self.fault = Fault.AUTHENTICATION


class _Fault(Exception):
    """A try that failed; `pause_s` is what the server asked for."""

    def __init__(self, text: str, pause_s: float | None = None, kind: Fault = Fault.NETWORK) -> None:
        super().__init__(text)
        self.pause_s, self.kind = pause_s, kind


class _Other(Exception):
    """What lies in the part is of another file than what the server has: it is thrown away."""


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass
class _Part:
    """The bytes so far, with their running hash."""

    file: RemoteFile
    path: Path
    etag: str = ""
    size_bytes: int = 0
    digest: _Hash = field(init=False)

    def __post_init__(self) -> None:
        self.digest = _hash_of(self.file)

    @property
    def state(self) -> Path:
        return self.path.with_name(self.path.name.removesuffix(PART_SUFFIX) + STATE_SUFFIX)

    def _identity(self) -> dict[str, object]:
        return {"repo": self.file.repo, "revision": self.file.revision, "name": self.file.name,
                "size_bytes": self.file.size_bytes, "expected": self.file.expected}  # fmt: skip

    def resume(self) -> None:
        """Take over what an earlier process left, as far as it can be trusted."""
        known = _read_state(self.state)
        there = self.path.stat().st_size if self.path.is_file() else 0
        trusted = 0
        if all(known.get(name) == value for name, value in self._identity().items()):
            trusted = there if known.get("boot_id") == boot_id() else min(there, int(known.get("durable_bytes", 0)))
            self.etag = str(known.get("etag", ""))
        if not 0 < trusted <= self.file.size_bytes:
            self.clear()
            return
        with self.path.open("r+b") as file:
            file.truncate(trusted)
        for chunk in _chunks(self.path):
            self.digest.update(chunk)
        self.size_bytes = trusted

    def clear(self) -> None:
        """Begin the file anew."""
        self.path.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)
        self.etag, self.size_bytes, self.digest = "", 0, _hash_of(self.file)

    def append(self, chunks: Iterator[bytes], report: Report) -> None:
        """Write what comes; durable after every PART_BYTES."""
        # Known before the first byte is there: bytes of which no state says whose they are would be thrown away.
        self.save()
        due = self.size_bytes + PART_BYTES
        with self.path.open("ab", buffering=0) as file:
            for chunk in chunks:
                if self.size_bytes + len(chunk) > self.file.size_bytes:
                    raise _Other(f"more than the {self.file.size_bytes} bytes that the Hub lists")
                file.write(chunk)
                self.digest.update(chunk)
                self.size_bytes += len(chunk)
                report(self.size_bytes)
                if due <= self.size_bytes < self.file.size_bytes:
                    self.save()
                    due = self.size_bytes + PART_BYTES

    def save(self) -> None:
        """Make the bytes durable, then say whose they are and how many a power cut leaves."""
        if self.size_bytes:
            durable.fsync_file(self.path)
        state = {**self._identity(), "etag": self.etag, "durable_bytes": self.size_bytes, "boot_id": boot_id()}
        durable.write_json(self.state, state)


def bring(file: RemoteFile, target: Path, report: Report = lambda size_bytes: None) -> None:
    """Have the file whole at `target`; StepFailed where it will not come, Denied where the Hub refuses it."""
    durable.make_folder(target.parent)
    part = _Part(file, target.with_name(target.name + PART_SUFFIX))
    durable.remove_temporaries(part.state)
    if target.is_file() and target.stat().st_size == file.size_bytes and _digest(file, target) == file.expected:
        part.clear()
        return
    part.resume()
    fruitless = mismatches = 0
    while True:
        before = part.size_bytes
        try:
            if part.size_bytes < file.size_bytes:
                _fetch_rest(part, report)
            if part.size_bytes == file.size_bytes:
                if part.digest.hexdigest() == file.expected:
                    _publish(part, target)
                    return
                raise _Other("the bytes are not those that the Hub lists")
            fault = _Fault(f"the answer ended after {part.size_bytes} of {file.size_bytes} bytes")
        except _Fault as caught:
            fault = caught
        except _Other as caught:
            mismatches += 1
            part.clear()
            if mismatches >= MISMATCHES_MAX:
                raise StepFailed(f"{file} came wrong {mismatches} times: {caught}") from None
            continue
        fruitless = 0 if part.size_bytes > before else fruitless + 1
        if fruitless >= FRUITLESS_TRIES:
            failed = StepFailed(f"{file} did not come in {FRUITLESS_TRIES} tries: {fault}")
            failed.fault, failed.endpoint, failed.wait_s = fault.kind, endpoint() or "", fault.pause_s or 0.0
            raise failed from fault
        wait_s = FIRST_PAUSE_S * 2 ** max(0, fruitless - 1) if fault.pause_s is None else fault.pause_s
        if fruitless or fault.pause_s is not None:
            time.sleep(min(wait_s, PAUSE_MAX_S))


def _publish(part: _Part, target: Path) -> None:
    if part.file.size_bytes == 0:
        durable.write_bytes(target, b"")
    else:
        durable.fsync_file(part.path)
        durable.replace(part.path, target)
    part.clear()


def _fetch_rest(part: _Part, report: Report) -> None:
    """One request for what is missing. _Fault where another try may help, _Other where the part is of another file."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import build_hf_headers, get_session

    file = part.file
    url = hf_hub_url(file.repo, file.name, repo_type=file.kind, revision=file.revision, endpoint=endpoint())
    # Compressed answers have no byte ranges of the file itself.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if part.size_bytes:
        headers["Range"] = f"bytes={part.size_bytes}-"
    try:
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as response:
            _judge(part, response)
            # As the pieces come: with a size the last ones would be lost with the connection.
            part.append(response.iter_raw(), report)
    except (HTTPError, ConnectionError) as error:
        raise _Fault(f"{type(error).__name__}: {error}") from error


def _judge(part: _Part, response: Any) -> None:
    """Whether the answer's bytes go on where the part ends; a whole answer begins the part anew."""
    status = response.status_code
    if status == 416:
        raise _Other("the Hub's file is shorter than it lists")
    if status in RETRIED_STATUSES or status >= 500:
        kind = Fault.RATE_LIMIT if status == 429 else Fault.NETWORK
        raise _Fault(f"status {status}", asked_s(response.headers.get("Retry-After")), kind)
    if status not in (200, 206):
        raise Denied(part.file, status)
    answers = (*response.history, response)
    commit = next((a.headers["X-Repo-Commit"] for a in answers if "X-Repo-Commit" in a.headers), part.file.revision)
    if commit != part.file.revision:
        raise StepFailed(f"{part.file}: the Hub answers with commit {commit}, asked for was {part.file.revision}")
    # The storage behind a redirect has an ETag of its own; the Hub's first answer names the file's.
    linked = next((a.headers["X-Linked-Etag"] for a in answers if "X-Linked-Etag" in a.headers), "")
    etag = (linked or response.headers.get("ETag", "")).removeprefix("W/").strip('"')
    if status == 200:
        if part.size_bytes:
            part.clear()
    else:
        if response.headers.get("Content-Range", "").split("/")[0] != (
            f"bytes {part.size_bytes}-{part.file.size_bytes - 1}"
        ):
            raise _Other(f"the Hub sent the range {response.headers.get('Content-Range')!r}")
        if part.etag and etag and etag != part.etag:
            raise _Other(f"its ETag changed from {part.etag} to {etag}")
    part.etag = etag or part.etag


def _hash_of(file: RemoteFile) -> _Hash:
    if len(file.expected) == 40:
        return hashlib.sha1(f"blob {file.size_bytes}\0".encode(), usedforsecurity=False)
    return hashlib.sha256()


def _digest(file: RemoteFile, path: Path) -> str:
    digest = _hash_of(file)
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            yield chunk


def _read_state(path: Path) -> dict[str, Any]:
    """{} where there is none, or one that a cut has torn."""
    try:
        state = durable.read_json(path)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
