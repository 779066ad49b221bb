"""Programs that the tests start with `python -c`: each a real process of Windows."""

import contextlib
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT

# Marks that it has started, then works until it is asked to end, and saves.
SAVES = """
import sys, time
from pathlib import Path
from so8t import child
from so8t.cli import raise_on_signals
from so8t.errors import Interrupted
raise_on_signals()
child.die_with_stdin()
try:
    Path(sys.argv[1]).touch()
    while True:
        time.sleep(0.05)
except Interrupted as stop:
    time.sleep(0.3)
    Path(sys.argv[1]).write_text("saved", encoding="utf-8")
    sys.exit(stop.exit_code)
"""

# The same, for whom a note beside its second argument may ask too; it needs a library that looks at standard input.
HEEDS = SAVES.replace("try:", "from so8t import hang\nhang.heed(Path(sys.argv[2]))\nimport numpy\ntry:")

# The same, while its console is closed: the system starts a thread that calls the handlers, and ends the process when
# the one that took the event has returned.
CLOSES = f"""
import ctypes, os, threading
from ctypes import wintypes
def close():
    kernel32, kernelbase = ctypes.WinDLL("kernel32"), ctypes.WinDLL("kernelbase")
    kernel32.CreateThread.restype = wintypes.HANDLE
    kernel32.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.05)
    routine = ctypes.cast(kernelbase.CtrlRoutine, ctypes.c_void_p)
    thread = kernel32.CreateThread(None, 0, routine, ctypes.c_void_p(int(sys.argv[2])), 0, None)
    kernel32.WaitForSingleObject(thread, 0xFFFFFFFF)
    os._exit(99)
import sys, time
threading.Thread(target=close, daemon=True).start()
{SAVES}"""

# Owns a console without a window, in which the program works that it is given; then somebody presses Ctrl+C there.
PRESSES = """
import ctypes, os, subprocess, sys, time
kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
process = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdin=subprocess.PIPE)
while not os.path.exists(sys.argv[2]) and process.poll() is None:
    time.sleep(0.05)
kernel32.SetConsoleCtrlHandler(None, True)
if not kernel32.GenerateConsoleCtrlEvent(0, 0):
    raise ctypes.WinError(ctypes.get_last_error())
sys.exit(process.wait())
"""

# A console with Japan's code page; what the command that it is given writes there is read back from the screen.
SCREEN = """
import ctypes, msvcrt, os, subprocess, sys
from ctypes import wintypes
kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
if not (kernel32.SetConsoleOutputCP(932) and kernel32.SetConsoleCP(932)):
    raise ctypes.WinError(ctypes.get_last_error())
screen = os.open("CONOUT$", os.O_RDWR)
code = subprocess.call([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE, stdout=screen, stderr=screen)
wide, high = 120, 30
text, read = ctypes.create_unicode_buffer(wide * high + 1), wintypes.DWORD()
handle = wintypes.HANDLE(msvcrt.get_osfhandle(screen))
kernel32.ReadConsoleOutputCharacterW(handle, text, wide * high, wintypes.DWORD(0), ctypes.byref(read))
sys.stdout.buffer.write(text.value.encode("utf-8"))
sys.exit(code)
"""


def python(program: str, *arguments: object, flags: int = 0, **options: object) -> subprocess.Popen[bytes]:
    """A Python that runs the program; its standard input stays open as long as this process holds it."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, stdin=subprocess.PIPE, creationflags=flags,
        **options,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def wait_for(path: Path, text: str | None = None, wait_s: float = 60.0) -> None:
    """Until the file is there, with this text if one is given; or until the time is over."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline and not (path.exists() and text in (None, path.read_text(encoding="utf-8"))):
        time.sleep(0.05)


# A flow with mapped tasks, and the monitor's, with its artifact and its events.
FLOWS = """
import os
from prefect import flow, task
from flows.monitor import so8t_monitor

@task
def double(n):
    return 2 * n

@flow
def numbers():
    return sum(double.map([1, 2, 3]).result())

print("sum", numbers(), flush=True)
print("monitor", sorted(so8t_monitor(os.environ["SO8T_HOME"], "so8t")), flush=True)
"""
DATABASE_VARIABLE = "SO8T_LANE_DATABASE"


def runs(home: Path) -> set[tuple[str, str]]:
    """Name and state of every flow run that the home's server knows."""
    address = f"file:{(home / 'prefect' / 'prefect.db').as_posix()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        found = database.execute("SELECT flow.name, state_name FROM flow_run JOIN flow ON flow.id = flow_id")
        return {(str(name), str(state)) for name, state in found}
