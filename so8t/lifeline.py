"""Standard input as a life line: the parent holds the other end, and the system closes that however the parent ends."""

import os
import sys
import threading
from collections.abc import Callable

if sys.platform == "win32":
    import ctypes
    import msvcrt
    import time

    LOOK_S = 0.2

    def _wait_for_end() -> None:
        """Look now and then, and read what is there.

        A read that waits would hold up all who ask anything of the same pipe: a library that looks at it while it is
        loaded, as numpy's does (numpy #24290), and a child that inherits it (CPython #78961).
        """
        peek = ctypes.WinDLL("kernel32").PeekNamedPipe
        pipe, waiting = ctypes.c_void_p(msvcrt.get_osfhandle(0)), ctypes.c_uint32()
        while peek(pipe, None, 0, None, ctypes.byref(waiting), None):
            if waiting.value:
                os.read(0, waiting.value)
            time.sleep(LOOK_S)
        _read()  # the end, or no pipe

else:

    def _wait_for_end() -> None:
        _read()


def _read() -> None:
    # On the descriptor: a buffered reader would hold a lock that hangs the interpreter's exit.
    while os.read(0, 1024):
        pass


def at_end(act: Callable[[], None]) -> None:
    """Call it, in a thread of its own, when standard input has come to its end."""

    def watch() -> None:
        _wait_for_end()
        act()

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
