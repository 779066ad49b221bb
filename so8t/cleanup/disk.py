"""What lies under a path: how much, how old. Links are never followed."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

DAY_S = 86_400.0


def size_bytes(path: Path) -> int:
    """Bytes under a path, links not followed."""
    return sum(place.lstat().st_size for place in walk(path))


def age_days(path: Path) -> float:
    """Days since the newest change of anything under a path."""
    newest = max((place.lstat().st_mtime for place in walk(path)), default=path.lstat().st_mtime)
    return (time.time() - newest) / DAY_S


def walk(path: Path) -> Iterator[Path]:
    """The files under a path, or the file itself; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        yield path
        return
    for folder, _, names in os.walk(path, followlinks=False):
        yield from (Path(folder) / name for name in names)


def children(parent: Path) -> list[Path]:
    """Files and folders in a folder, sorted; links are passed over."""
    if not parent.is_dir() or parent.is_symlink():
        return []
    return sorted(child for child in parent.iterdir() if not child.is_symlink())
