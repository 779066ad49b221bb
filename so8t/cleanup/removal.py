"""Removing: first the name, then the bytes.

A folder is renamed to `.trash-<name>` before anything in it is deleted, so a crash never leaves half an
artifact under a name that counts as whole; the next cleanup deletes the rest.
"""

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from so8t import durable
from so8t.cleanup.retention import TRASH

# Other locks lie there too, such as the one of `so8t up`.
STEP_LOCK = re.compile(r".+-[0-9a-f]{64}")


def busy_keys(home: Path, own: str) -> list[str]:
    """`<step>-<key>` of every lock that another process holds; `own` is the caller's."""
    found = []
    for path in sorted((home / "locks").glob("*.lock")):
        if path.stem != own and STEP_LOCK.fullmatch(path.stem):
            with holding(path) as free:
                if not free:
                    found.append(path.stem)
    return found


@contextmanager
def holding(lock: Path) -> Iterator[bool]:
    """Hold a lock file if it is free; gives whether it was. The file itself stays: see `Store.working`."""
    durable.make_folder(lock.parent)
    try:
        with FileLock(lock, timeout=0):
            yield True
    except Timeout:
        yield False


def is_inside(home: Path, path: Path) -> bool:
    """Whether a path is under the home by plain folders alone, and no link itself."""
    parts = path.relative_to(home).parts
    return ".." not in parts and not any(home.joinpath(*parts[:end]).is_symlink() for end in range(1, len(parts) + 1))


def remove(home: Path, path: Path) -> bool:
    """Remove a file or folder under the home; False where it is a link, is gone, or someone works on it."""
    if not is_inside(home, path) or not path.exists():
        return False
    if path.name.startswith(TRASH):
        delete(path)
        return True
    key = path.name.partition(".")[0]
    lock = home / "locks" / f"{path.parent.name}-{key}.lock"
    if path.parent.parent != home / "artifacts":
        delete(discard(path))
        return True
    with holding(lock) as free:
        if free:
            delete(discard(path))
        return free


def discard(path: Path) -> Path:
    """Take the name away; gives the name under which the bytes still lie."""
    number = 0
    while (trash := path.with_name(f"{TRASH}{number}-{path.name}")).exists():
        number += 1
    durable.replace(path, trash)
    return trash


def delete(trash: Path) -> None:
    """Delete the bytes; links inside are removed themselves, never what they lead to."""
    if trash.is_dir():
        durable.retry_sharing(lambda: shutil.rmtree(trash, onerror=_make_writable))
    else:
        durable.retry_sharing(trash.unlink)
    durable.fsync_folder(trash.parent)


def _make_writable(function: Callable[[str], object], path: str, error: Any) -> None:
    """Windows deletes no read-only file, POSIX nothing in a read-only folder."""
    if not isinstance(error[1], PermissionError):
        raise error[1]
    for place in (Path(path).parent, Path(path)):
        if not place.is_symlink():
            place.chmod(place.stat().st_mode | stat.S_IRWXU)
    if function in (os.rmdir, os.unlink):
        function(path)
    else:  # a folder that could not be opened: from the start
        shutil.rmtree(path)
