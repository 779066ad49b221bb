"""The directory target: the repository as a folder, every file copied durably and read back."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from so8t import durable, pulse
from so8t.artifacts import HASH_CHUNK_BYTES, hash_file
from so8t.errors import DamagedArtifact, InputError
from so8t.upload.repository import Entry

SUMS = "SHA256SUMS"
# What an unfinished upload has put there or will: the old list and the new one.
UNFINISHED = "SHA256SUMS.partial"
Report = Callable[[int, str], None]


def check_free(root: Path) -> None:
    """InputError where the folder holds files that this step did not put there."""
    if not root.exists():
        return
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", "a folder", "choose another upload.target.path")
    own = _listed(root)
    strangers = sorted(name for name in _present(root) if durable.target_name(name) not in own)
    if strangers:
        raise InputError(
            f"{root} holds {len(strangers)} file(s) that are not from here, for example {strangers[0]}",
            "an empty folder, or one that an earlier upload filled",
            "choose another upload.target.path, or move those files away",
        )


def publish(root: Path, entries: list[Entry], report: Report) -> int:
    """Make `root` hold exactly `entries`; give the number of files that were copied.

    Resumable: what lies there with the right size and hash is kept. SHA256SUMS goes last, so a
    folder that has it is whole.
    """
    ours = _listed(root) | {entry.path for entry in entries}
    if not (root / SUMS).is_file() or not all(_is(root / entry.path, entry) for entry in entries if entry.path == SUMS):
        durable.write_text(root / UNFINISHED, "".join(f"{'-' * 64}  {path}\n" for path in sorted(ours)))
        (root / SUMS).unlink(missing_ok=True)
    for stray in sorted(_present(root) - {entry.path for entry in entries} - {UNFINISHED}):
        (root / stray).unlink()
    copied, done_bytes = 0, 0
    for entry in sorted(entries, key=lambda entry: (entry.path == SUMS, entry.path)):
        report(done_bytes, f"copying {entry.path}")
        if not _is(root / entry.path, entry):
            copy(entry, root / entry.path)
            copied += 1
        done_bytes += entry.size_bytes
    (root / UNFINISHED).unlink(missing_ok=True)
    return copied


def copy(entry: Entry, target: Path) -> None:
    """Copy one file durably; DamagedArtifact if the source's bytes are not the manifest's."""
    digest = hashlib.sha256()
    with entry.source.open("rb") as source, durable.open_for_write(target) as file:
        while chunk := source.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
            pulse.beat()
        if digest.hexdigest() != entry.sha256:
            raise DamagedArtifact(f"{entry.source} changed while it was published")


def verify(root: Path, entries: list[Entry], report: Report) -> int:
    """Read everything back; give the number of files that are right, DamagedArtifact if any is not."""
    wrong = []
    for done, entry in enumerate(entries):
        report(done, f"verifying {entry.path}")
        if hash_file(root / entry.path) != entry.sha256:
            wrong.append(entry.path)
    wrong += sorted(_present(root) ^ {entry.path for entry in entries})
    if wrong:
        raise DamagedArtifact(f"{root}: {len(wrong)} file(s) differ from what was published: {', '.join(wrong[:5])}")
    return len(entries)


def _is(path: Path, entry: Entry) -> bool:
    return path.is_file() and path.stat().st_size == entry.size_bytes and hash_file(path) == entry.sha256


def _present(root: Path) -> set[str]:
    if not root.is_dir():
        return set()
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() or path.is_symlink()}


def _listed(root: Path) -> set[str]:
    """Files that an earlier upload, finished or not, put there."""
    names = {SUMS, UNFINISHED}
    for sums in (root / SUMS, root / UNFINISHED):
        lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
        names |= {line.partition("  ")[2] for line in lines}
    return names
