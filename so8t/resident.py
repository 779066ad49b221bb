"""How much memory this process has held at most."""

import os
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def memory_peak_bytes() -> int:
    """Largest resident size so far. Linux: VmHWM, because ru_maxrss begins with that of the process that started this one."""
    if STATUS.is_file():
        (line,) = (row for row in STATUS.read_text(encoding="utf-8").splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process(os.getpid()).memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
