"""Faults in single system calls: the nth call of one kind fails, or the process dies at it.

strace injects them into a child that was forked, warm and stopped, by a process that had imported everything
and saved before; so the calls that it makes are those of one save, and a case takes some 50 ms.

    python -m tests.crash.syscalls SCENARIO      the process that forks; one request a line
"""

import collections
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from so8t.errors import So8tError
from tests.crash.powercut_writer import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent.parent
CALLS = ("openat", "write", "fsync", "close", "rename", "mkdir", "unlink", "unlinkat", "rmdir", "getdents64", "flock")
FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO", "error=EACCES", "error=EINTR")
ATTACH_TIMEOUT_S = 20.0
_PR_SET_PTRACER = 0x59616D61


@dataclass(frozen=True)
class Ended:
    """How one save ended: acknowledged, killed, or with an error of this kind and text."""

    acknowledged: bool
    killed: bool
    kind: str
    text: str


class Saver:
    """Saves single items in warm children of one process. A context manager."""

    def __init__(self, scenario: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.syscalls", scenario], env=environment, cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", bufsize=1,
        )  # fmt: skip

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the forking process ended"
        return line

    def save(self, home: Path, number: int, strace: list[str]) -> Ended:
        """One save under strace with these further options."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(home), number]) + "\n")
        pid = int(self._line())
        _until(lambda: _status(pid, "State").startswith(("T", "t")))
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-p", str(pid), *strace], stderr=subprocess.DEVNULL)
        try:
            _until(lambda: _status(pid, "TracerPid") != "0")
            os.kill(pid, signal.SIGCONT)
            status, told = json.loads(self._line())
        finally:
            tracer.wait(ATTACH_TIMEOUT_S)
        kind, text = told or ["", ""]
        return Ended(kind == "saved", os.WIFSIGNALED(status), kind, text)

    def census(self, home: Path, number: int, log: Path) -> dict[str, int]:
        """How often a save that meets no fault makes each call."""
        ended = self.save(home, number, ["-e", f"trace={','.join(CALLS)}", "-o", str(log)])
        assert ended.acknowledged, ended
        names = [line.split()[1].partition("(")[0] for line in log.read_text(encoding="utf-8").splitlines()]
        return {name: count for name, count in collections.Counter(names).items() if name in CALLS}


def _status(pid: int, key: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return line.partition(":")[2].strip()
    raise AssertionError(key)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ATTACH_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _child(scenario: str, home: Path, number: int, told: socket.socket) -> None:
    # Where Yama lets only parents trace.
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        SCENARIOS[scenario](home).write(number)
    except BaseException as error:  # noqa: BLE001 - reported, and judged by the test
        frames = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        said = [type(error).__name__, str(error) if isinstance(error, So8tError) else f"{error} ({' '.join(frames)})"]
    else:
        said = ["saved", ""]
    # A send is none of the calls that fail.
    told.send(json.dumps(said).encode())
    os._exit(0)


def main() -> None:
    """Fork a child for each line `[home, number]`; answer its pid, then how it ended."""
    scenario = sys.argv[1]
    with tempfile.TemporaryDirectory() as warm:
        for number in range(7):
            SCENARIOS[scenario](Path(warm) / "home").write(number)
    for line in sys.stdin:
        home, number = json.loads(line)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _child(scenario, Path(home), number, theirs)
        theirs.close()
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        told = ours.recv(1 << 16)
        ours.close()
        sys.stdout.write(json.dumps([status, json.loads(told) if told else None]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
