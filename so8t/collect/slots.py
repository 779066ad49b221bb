"""At most so many downloads at a time, over all tasks and processes that share a home."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from so8t import durable
from so8t.progress import Progress

POLL_S = 0.1


@contextmanager
def slot(progress: Progress) -> Iterator[None]:
    """Wait for one of `machine.max_parallel_downloads` places; the kernel gives it back if the process dies."""
    folder = progress.home / "locks"
    durable.make_folder(folder)
    locks = [FileLock(folder / f"download-{n}.lock") for n in range(progress.machine.max_parallel_downloads)]
    while True:
        for lock in locks:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            try:
                yield
            finally:
                lock.release()
            return
        time.sleep(POLL_S)
