"""Cleanup, ended at each of its changes in turn.

Python announces every change of the file system before it is made (`sys.addaudithook`), so a process can die, or fail,
before the n-th one; before the next one is after this one. Each n has a home of its own, and a second process ends the
work there. By hand: python -m tests.cleanup.kills HOME UPLOAD_KEY FOLDER MODE, with MODE kill or fail.
"""

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from so8t import durable
from so8t.artifacts import Store, check_hashes
from tests.cleanup.made import clean

CHANGES = frozenset({"os.remove", "os.rmdir", "os.rename", "os.truncate", "os.link", "os.symlink"})
FAILED = 3


def end_at(number: int, mode: str) -> None:
    """Have this process die, or the call fail, before the change of this number."""
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        # A lock file is nobody's data.
        if event not in CHANGES or str(arguments[0]).endswith(".lock"):
            return
        left -= 1
        if left == -1:
            if mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, "as asked by the test")

    sys.addaudithook(hook)


def forked(home: Path, key: str, number: int, mode: str) -> int:
    """Run cleanup in a process of its own; how it ended."""
    pid = os.fork()
    if pid == 0:
        code = FAILED
        try:
            durable._flush = lambda fd: None  # a killed process loses nothing that the kernel has
            used = Store(home).peek("upload", key)
            if number >= 0:
                end_at(number, mode)
            clean(home, used)
            code = 0
        except Exception as error:  # noqa: BLE001 - the campaign judges how a process ends
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def look(home: Path) -> dict[str, Any]:
    """What is there: whole artifacts, damage, what else a rule speaks of, and the notes."""
    partial = next((home / "artifacts" / "cleanup").glob("*.partial"), None)
    notes = partial / "removed.json" if partial else None
    return {
        "artifacts": sorted(f"{folder.parent.name}/{folder.name}" for folder in Store(home).folders()),
        "damage": [str(problem) for folder in Store(home).folders() for problem in check_hashes(folder)],
        "others": sorted(
            path.relative_to(home).as_posix()
            for place in ("sessions", "logs", "artifacts/train")
            for path in (home / place).glob("*")
            if place != "artifacts/train" or "." in path.name
        ),
        "removed": sorted(entry["path"] for entry in durable.read_json(notes)) if notes and notes.exists() else [],
    }


def campaign(home: Path, key: str, root: Path, mode: str) -> list[dict[str, Any]]:
    """One entry a change: what the ended process left, and what the next one made of it; the last was not ended."""
    found = []
    for number in range(10_000):
        copied = root / f"{mode}-{number}"
        shutil.copytree(home, copied, copy_function=shutil.copy2)
        code = forked(copied, key, number, mode)
        after = look(copied)
        again = forked(copied, key, -1, mode)
        found.append({"code": code, "after": after, "again": again, "end": look(copied)})
        shutil.rmtree(copied)
        if code == 0:
            return found
    raise AssertionError("no end")


if __name__ == "__main__":
    json.dump(campaign(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]), sys.stdout)
