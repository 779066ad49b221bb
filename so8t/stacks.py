"""Where a process stands, asked from outside: the Python stacks of all its threads, in a file beside its other notes.

On POSIX a signal asks (`faulthandler` answers in C, so also while native code keeps the interpreter); on Windows, which
has no such signal, the name of a file does, seen by a thread as long as the interpreter lets it run.
"""

import atexit
import contextlib
import faulthandler
import os
import signal
import threading
import time
from pathlib import Path
from typing import IO

import psutil

LOOK_S = 1.0
ANSWER_S = 5.0

# Kept open: the handler writes to the descriptor.
_files: list[IO[str]] = []


def file_of(place: Path, pid: int) -> Path:
    """Where the process of this id writes its stacks; `place` is a name beside which files may be put."""
    return place.with_name(f"{place.name}.stacks-{pid}.txt")


def request_of(place: Path, pid: int) -> Path:
    """The file whose being there asks on Windows."""
    return place.with_name(f"{place.name}.stacks-{pid}.request")


def answer(place: Path, *, by_signal: bool = hasattr(signal, "SIGUSR1")) -> None:
    """From now on this process writes its stacks when it is asked; a file that stayed empty goes with the process."""
    _sweep(place)
    path = file_of(place, os.getpid())
    file = path.open("a", encoding="utf-8", newline="\n")
    _files.append(file)
    atexit.register(_leave, file, path)
    if by_signal:
        faulthandler.register(signal.SIGUSR1, file, all_threads=True)
    else:
        request = request_of(place, os.getpid())
        threading.Thread(target=_watch, args=(request, file), name="stacks", daemon=True).start()


def _sweep(place: Path) -> None:
    """What killed processes left empty; several processes may answer beside one name."""
    for path in place.parent.glob(f"{place.name}.stacks-*.txt"):
        pid = path.stem.rpartition("-")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            with contextlib.suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()


def _watch(request: Path, file: IO[str]) -> None:
    while not file.closed:
        if request.exists():
            with contextlib.suppress(OSError):
                request.unlink()
            faulthandler.dump_traceback(file, all_threads=True)
        time.sleep(LOOK_S)


def _leave(file: IO[str], path: Path) -> None:
    if hasattr(signal, "SIGUSR1"):
        faulthandler.unregister(signal.SIGUSR1)
    file.close()
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def ask(place: Path, pid: int) -> None:
    """Ask a process that answers here; one that does not would be ended by the signal, and is left alone."""
    if not file_of(place, pid).exists():
        return
    if hasattr(signal, "SIGUSR1"):
        os.kill(pid, signal.SIGUSR1)
    else:
        request_of(place, pid).touch()


def answered(place: Path, pid: int, before_bytes: int, wait_s: float = ANSWER_S) -> bool:
    """Whether the file has grown beyond what it was, and stopped growing, within the time."""
    path, deadline, last = file_of(place, pid), time.monotonic() + wait_s, before_bytes
    while time.monotonic() < deadline:
        time.sleep(0.1)
        size = path.stat().st_size if path.exists() else 0
        if size > before_bytes and size == last:
            return True
        last = size
    return last > before_bytes
