"""Keeps a process running: its output in a rotated log, its restarts with a growing pause."""

import contextlib
import logging
import logging.handlers
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from so8t import child, durable

LOG_BYTES_MAX, LOG_FILES = 5_000_000, 5
PAUSE_S, PAUSE_MAX_S = 1.0, 60.0
# A process that ran for as long was healthy: the next pause starts small again.
HEALTHY_S = 300.0
# Emergency checkpoints and the last word to the server fit into this.
STOP_GRACE_S = 40.0
LAST_WORD_S = 5.0


class Output:
    """A pipe for a child's output and a thread that empties it into a log that is rotated by size."""

    def __init__(self, path: Path) -> None:
        durable.make_folder(path.parent)
        self.path = path
        self._log = logging.handlers.RotatingFileHandler(
            path, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES, encoding="utf-8"
        )
        self._log.setFormatter(logging.Formatter("%(message)s"))
        self._told = False
        self._log.handleError = self._cannot_write  # type: ignore[method-assign]
        reader, self._writer = os.pipe()
        threading.Thread(target=self._empty, args=(reader,), name=f"log-{path.name}", daemon=True).start()

    def fileno(self) -> int:
        """For `subprocess.Popen(stdout=...)`."""
        return self._writer

    def _cannot_write(self, _: logging.LogRecord) -> None:
        """Said once, and tried again with each line: a full disk must not stop who would mend it."""
        if not self._told:
            self._told = True
            sys.stderr.write(f"so8t: {self.path} takes no more lines: {sys.exc_info()[1]}\n")

    def _empty(self, reader: int) -> None:
        with os.fdopen(reader, encoding="utf-8", errors="replace", newline=None) as lines:
            for line in lines:
                self._log.emit(logging.makeLogRecord({"msg": line.rstrip("\n")}))


class Kept:
    """One process of ours. `look` is called again and again and never blocks for long."""

    def __init__(
        self, name: str, command: list[str], cwd: Path, environment: dict[str, str], output: Output,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.name, self._command, self._cwd, self._environment = name, command, cwd, environment
        self._output, self._say = output, say
        self._process: subprocess.Popen[bytes] | None = None
        self._pause_s, self._not_before, self._began = PAUSE_S, 0.0, 0.0

    def look(self) -> None:
        """Start the process where it should run and does not."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            code, healthy = self._process.returncode, now - self._began > HEALTHY_S
            self._pause_s = PAUSE_S if healthy else min(self._pause_s * 2, PAUSE_MAX_S)
            self._not_before, self._process = now + self._pause_s, None
            self._say(f"{self.name:<7} ended with exit code {code}; again in {self._pause_s:g} s")
        if self._process is None and now >= self._not_before:
            self._start()

    def _start(self) -> None:
        self._began = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603
            # The guard ends the process when this one is gone: the kernel closes the pipe however that happens.
            [sys.executable, "-m", "deployments.guard", *self._command],
            stdin=subprocess.PIPE, stdout=self._output.fileno(), stderr=subprocess.STDOUT,
            cwd=self._cwd, env=self._environment, start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )  # fmt: skip
        self._say(f"{self.name:<7} started (pid {self._process.pid})")

    def stop(self) -> None:
        """Have everything below save and end, then the process itself."""
        if self._process is None or self._process.poll() is not None:
            return
        own = psutil.Process(self._process.pid)
        family = own.children(recursive=True)
        _end(family, STOP_GRACE_S, spared=_steps(family) if os.name == "nt" else frozenset())
        _end([own, *own.children(recursive=True)] if own.is_running() else [], LAST_WORD_S)
        self._process.wait()


def _steps(family: list[psutil.Process]) -> frozenset[psutil.Process]:
    """The steps' processes and all below them: they end by themselves when whoever holds their standard input ends."""
    found = set[psutil.Process]()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.DIE_WITH_STDIN in process.cmdline():
                found |= {process, *process.children(recursive=True)}
    return frozenset(found)


def _end(family: list[psutil.Process], grace_s: float, spared: frozenset[psutil.Process] = frozenset()) -> None:
    """Ask all to end, the lowest first, wait, kill the rest.

    On Windows to ask is to kill: there the `spared` are not asked, and see it by their closed standard input.
    """
    for process in reversed(family):
        if process not in spared:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
    _, alive = psutil.wait_procs(family, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
