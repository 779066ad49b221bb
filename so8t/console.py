"""The end of a Windows console: closed window, logoff, shutdown.

The C runtime makes SIGBREAK of them and returns, and Windows ends a process whose handler has returned ("HandlerRoutine
callback function", Microsoft), before Python has run a byte code. The handler here asks for the same and stays: the
process saves and ends by itself, or is ended when the system's own patience does (5 s for a closed window).
"""

import _thread
import signal
import sys
import time
from typing import Any

# CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT
ENDINGS = frozenset({2, 5, 6})
# Beyond any patience of the system.
STAY_S = 60.0

# What the system calls must not be collected; one is enough.
_handler: list[Any] = []


def outlast_closing() -> None:
    """From now on an end of the console is SIGBREAK and time to act on it. Elsewhere than on Windows nothing."""
    if sys.platform != "win32" or _handler:
        return
    import ctypes
    from ctypes import wintypes

    def handle(event: int) -> bool:
        if event not in ENDINGS:
            return False
        _thread.interrupt_main(signal.SIGBREAK)
        time.sleep(STAY_S)
        return True

    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _handler.append(ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)(handle))
    if not kernel32.SetConsoleCtrlHandler(_handler[0], True):
        raise ctypes.WinError(ctypes.get_last_error())
