"""What lies under a path: how much, how old. Links are never followed."""

import contextlib
import time
from pathlib import Path

from so8t.sizes import files_of

DAY_S = 86_400.0


def age_days(path: Path) -> float:
    """Days since the newest change of anything under a path; of what has just gone 0."""
    changed = [status.st_mtime for _, status in files_of(path)]
    if not changed:
        with contextlib.suppress(FileNotFoundError):
            changed.append(path.lstat().st_mtime)
    now_s = time.time()
    return (now_s - max(changed, default=now_s)) / DAY_S


def children(parent: Path) -> list[Path]:
    """Files and folders in a folder, sorted; links are passed over."""
    if not parent.is_dir() or parent.is_symlink():
        return []
    return sorted(child for child in parent.iterdir() if not child.is_symlink())
