"""What lies under a folder in which others write and remove: what goes meanwhile counts nothing, links are not followed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def files_of(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files under a folder, or the file (or link) itself, each as it is now; none where there is nothing."""
    if not path.is_dir() or path.is_symlink():
        with contextlib.suppress(FileNotFoundError):
            yield path, path.lstat()
        return
    # A folder that goes meanwhile is passed over by os.walk, where Path.rglob would raise.
    for at, _, names in os.walk(path, followlinks=False):
        for name in names:
            place = Path(at) / name
            with contextlib.suppress(FileNotFoundError):
                yield place, place.lstat()


def size_of(path: Path) -> int:
    """Bytes of all of them."""
    return sum(status.st_size for _, status in files_of(path))
