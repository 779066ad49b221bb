"""The artifact store: done means renamed.

    $SO8T_HOME/artifacts/<step>/<key>.partial/   while a step works there
    $SO8T_HOME/artifacts/<step>/<key>/           whole, with manifest.json
    $SO8T_HOME/artifacts/<step>/<key>.damaged-<n>/  set aside, never trusted, never deleted silently

Commit order: drop `*.tmp`, hash and fsync every file, write `manifest.json` last, rename the
folder, fsync its parent. So a name without a suffix is a finished artifact.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from so8t import durable, pulse
from so8t.errors import ResourceError, StepFailed

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
HASH_CHUNK_BYTES = 1 << 20
# A child outlives its killed parent until it has saved (so8t/child.py gives it 30 s), and holds its folder.
LOCK_WAIT_S = 45.0


class FileEntry(BaseModel):
    """One file of an artifact. A volatile file is checked against damage but is not part of the content."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    size_bytes: int
    sha256: str
    volatile: bool = False


class InputEntry(BaseModel):
    """Which artifact filled a role."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: str
    key: str
    content: str


class Manifest(BaseModel):
    """What an artifact is, where it came from and which bytes it has."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = SCHEMA_VERSION
    step: str
    version: int
    key: str
    content: str
    inputs: dict[str, InputEntry]
    config: dict[str, Any]
    files: list[FileEntry]
    facts: dict[str, Any]
    code: dict[str, Any]
    packages: dict[str, str]
    machine: dict[str, Any]
    started_at: str
    finished_at: str


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk."""

    path: Path
    manifest: Manifest

    @property
    def content(self) -> str:
        """Hash over the paths and hashes of the files that are not volatile."""
        return self.manifest.content

    @property
    def seconds(self) -> float:
        """How long the run that made it took."""
        from datetime import datetime

        started, finished = (
            datetime.fromisoformat(text) for text in (self.manifest.started_at, self.manifest.finished_at)
        )
        return (finished - started).total_seconds()


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an artifact."""

    artifact: Path
    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.artifact / self.file}: {self.what}"


def hash_json(value: object) -> str:
    """sha256 of a value's canonical JSON."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with durable.retry_sharing(lambda: path.open("rb")) as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
            pulse.beat()
    return digest.hexdigest()


def content_of(files: list[FileEntry]) -> str:
    """The content hash of an artifact."""
    return hash_json([[file.path, file.sha256] for file in sorted(files, key=lambda f: f.path) if not file.volatile])


class Store:
    """The artifacts under one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "artifacts"

    def path(self, step: str, key: str) -> Path:
        """Where the finished artifact lies, if it exists."""
        return self.root / step / key

    def find(self, step: str, key: str) -> Artifact | None:
        """The artifact, if it is there and every size matches; a damaged one is set aside."""
        folder = self.path(step, key)
        if not folder.exists():
            return None
        found, problems = _looked_at(folder)
        if found is None or problems:
            self.set_aside(folder)
            return None
        # Whoever renamed it may have been killed before the rename was durable.
        durable.fsync_folder(folder.parent)
        return found

    def peek(self, step: str, key: str) -> Artifact | None:
        """Like `find`, but changes nothing on disk."""
        folder = self.path(step, key)
        found, problems = _looked_at(folder) if folder.exists() else (None, [])
        return None if problems else found

    def all(self) -> Iterator[Artifact]:
        """Every finished artifact with a readable manifest."""
        for folder in self.folders():
            if (folder / MANIFEST).is_file():
                yield load(folder)

    def folders(self) -> Iterator[Path]:
        """Every folder that claims to be a finished artifact."""
        if self.root.is_dir():
            for folder in sorted(self.root.glob("*/*")):
                if folder.is_dir() and "." not in folder.name:
                    yield folder

    def set_aside(self, folder: Path) -> Path:
        """Move a damaged artifact, or a refused `.partial`, out of the way under a name that is never used twice."""
        number, key = 1, folder.name.partition(".")[0]
        while (target := folder.with_name(f"{key}.damaged-{number}")).exists():
            number += 1
        durable.replace(folder, target)
        return target

    def set_aside_of(self, step: str, key: str) -> list[Path]:
        """What was set aside under this key, the newest last."""
        found = (self.root / step).glob(f"{key}.damaged-*")
        return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))

    @contextmanager
    def working(self, step: str, key: str) -> Iterator[Path]:
        """Give the `.partial` folder of a step, locked against any other process."""
        partial, locks = self.root / step / f"{key}.partial", self.home / "locks"
        # Lock files are never unlinked: a second process could lock the unlinked inode.
        lock = FileLock(locks / f"{step}-{key}.lock", timeout=LOCK_WAIT_S)
        try:
            with durable.explain_full_disk(partial):
                durable.make_folder(locks)
                with lock:
                    durable.make_folder(partial)
                    _drop_temporary(partial)
                    yield partial
        except Timeout:
            raise ResourceError(
                f"another process is working on {step} ({key[:12]})",
                "one process a step",
                "wait for it to end, or stop it",
            ) from None

    def commit(self, partial: Path, manifest: dict[str, Any], volatile: frozenset[str]) -> Artifact:
        """Turn a `.partial` folder into an artifact. `manifest` lacks only files and content."""
        _drop_temporary(partial)
        (partial / MANIFEST).unlink(missing_ok=True)
        files = []
        folders, paths = _inside(partial)
        for path in sorted(paths):
            name = path.relative_to(partial).as_posix()
            durable.fsync_file(path)
            files.append(
                FileEntry(
                    path=name,
                    size_bytes=path.stat().st_size,
                    sha256=hash_file(path),
                    volatile=any(name == v or (v.endswith("/") and name.startswith(v)) for v in volatile),
                )
            )
        whole = Manifest(files=files, content=content_of(files), **manifest)
        for folder in sorted(folders, reverse=True):
            durable.fsync_folder(folder)
        durable.write_json(partial / MANIFEST, whole.model_dump(mode="json"))
        target = self.path(whole.step, whole.key)
        if target.exists():
            raise StepFailed(f"{target} exists already; two processes worked on one key")
        durable.replace(partial, target)
        return Artifact(target, whole)


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """Its folders, itself among them, and its files. Path.rglob would pass over what it may not read."""

    def refuse(error: OSError) -> None:
        raise error

    walked = [(Path(at), names) for at, _, names in os.walk(folder, onerror=refuse)]
    return [at for at, _ in walked], [at / name for at, names in walked for name in names]


def _drop_temporary(partial: Path) -> None:
    """What killed writers left; whoever calls holds the folder's lock."""
    folders, paths = _inside(partial)
    for path in paths:
        if path.name.endswith(durable.TMP_SUFFIX):
            path.unlink()
    for folder in folders:
        if folder.name.endswith(durable.TMP_SUFFIX) and folder.exists():
            shutil.rmtree(folder)


def load(folder: Path) -> Artifact:
    """Read an artifact's manifest."""
    return Artifact(folder, Manifest.model_validate(durable.read_json(folder / MANIFEST)))


def check_sizes(folder: Path) -> list[Problem]:
    """Compare the files' sizes with the manifest: cheap, done at every find."""
    return _looked_at(folder)[1]


def _looked_at(folder: Path) -> tuple[Artifact | None, list[Problem]]:
    """The artifact, where its manifest can be read, and what is wrong with it."""
    try:
        found = load(folder)
    except (OSError, ValueError, ValidationError) as error:
        return None, [Problem(folder, MANIFEST, f"unreadable manifest: {type(error).__name__}")]
    problems = []
    for entry in found.manifest.files:
        path = folder / entry.path
        if not path.is_file():
            problems.append(Problem(folder, entry.path, "missing"))
        elif path.stat().st_size != entry.size_bytes:
            problems.append(
                Problem(folder, entry.path, f"{path.stat().st_size} bytes, the manifest says {entry.size_bytes}")
            )
    return found, problems


def check_hashes(folder: Path) -> list[Problem]:
    """Compare every byte with the manifest: done by `so8t verify` and before upload."""
    artifact, problems = _looked_at(folder)
    if artifact is None or problems:
        return problems
    manifest = artifact.manifest
    for entry in manifest.files:
        found = hash_file(folder / entry.path)
        if found != entry.sha256:
            problems.append(
                Problem(folder, entry.path, f"sha256 {found[:12]}.., the manifest says {entry.sha256[:12]}..")
            )
    known = {entry.path for entry in manifest.files} | {MANIFEST}
    for path in sorted(_inside(folder)[1]):
        name = path.relative_to(folder).as_posix()
        if name not in known:
            problems.append(Problem(folder, name, "not in the manifest"))
    if content_of(manifest.files) != manifest.content:
        problems.append(Problem(folder, MANIFEST, "content hash differs from its files"))
    return problems
