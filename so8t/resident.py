"""How much memory this process has held at most, and that it gives back what it no longer needs."""

import ctypes
import os
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
M_MMAP_THRESHOLD = -3  # of glibc's mallopt(3)
MALLOC_VARIABLE = "MALLOC_MMAP_THRESHOLD_"


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


def give_back_freed_memory(from_bytes: int) -> None:
    """Have buffers of so many bytes and more given back to the kernel when they are freed, from now on in this process.

    glibc raises its threshold to what is freed, up to 32 MB; from then on such buffers leave holes in its heap. With a
    4-bit base, whose linears are widened one by one, those are gigabytes. What the user has set stays.
    """
    if sys.platform.startswith("linux") and MALLOC_VARIABLE not in os.environ:
        # Another C library has no such function, or does not need it.
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, from_bytes)
