"""Which process a process id meant: ids are given again, and the clock may be set in between."""

from pathlib import Path

import psutil

from so8t.session import boot_id

_START = 22 - 3  # of /proc/<pid>/stat (proc(5)), counted behind the name, which is the second field and may hold spaces


def birth(pid: int) -> str:
    """A name that this process alone ever has on this machine; psutil.NoSuchProcess where there is none.

    psutil's `create_time` is computed on Linux from the time of the boot, which moves whenever the clock is set, as it is
    soon after a start without a network. The kernel's own figure counts from the boot. Elsewhere it is a recorded date.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return f"{pid} {psutil.Process(pid).create_time():.3f}"
    return f"{pid} {stat.rpartition(')')[2].split()[_START]} {boot_id()}"
