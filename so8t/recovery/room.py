"""A full disk: what of ours can go, and how much room there is. Nothing that anybody may still need is touched."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from so8t import durable
from so8t.artifacts import Store

CHECKPOINTS = "checkpoints"


def free_bytes(place: Path) -> int:
    """Free space of the volume that a path lies on, whether or not the path exists."""
    return shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free


def free_own(store: Store, keep: int) -> list[Path]:
    """Remove temporary files that killed writers left in unfinished artifacts, and surplus checkpoints; what went.

    An artifact or a session that another process holds is left alone. `keep` is machine.checkpoint_keep, the rule by
    which a training prunes its own.
    """
    gone = [path for partial in sorted(store.root.glob("*/*.partial")) for path in _temporaries(store, partial)]
    for folder in sorted((store.home / "sessions").glob(f"*/{CHECKPOINTS}")):
        gone += _surplus(store, folder, keep)
    return gone


def _temporaries(store: Store, partial: Path) -> list[Path]:
    with _held(store, f"{partial.parent.name}-{partial.name.partition('.')[0]}") as ours:
        found = sorted(partial.rglob("*" + durable.TMP_SUFFIX), reverse=True) if ours else []
        for path in found:
            _remove(path)
        return found


def _surplus(store: Store, folder: Path, keep: int) -> list[Path]:
    locks = sorted((store.home / "locks").glob(f"{folder.parent.name}*.lock"))
    before = set(folder.iterdir())
    # Torch is not loaded for nothing.
    if len(locks) != 1 or len(before) <= keep:
        return []
    from so8t.loop.checkpoint import Checkpoints

    with _held(store, locks[0].stem) as ours:
        if ours:
            Checkpoints(folder, keep).prune()
    return sorted(before - set(folder.iterdir()))


@contextmanager
def _held(store: Store, name: str) -> Iterator[bool]:
    """Whether a step's lock could be taken; it is let go at the end."""
    lock = FileLock(store.home / "locks" / f"{name}.lock", timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
